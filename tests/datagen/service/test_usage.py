"""A service's count of tokens is believed only where it is one; else the worst case of the try stays spent."""

import json
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer

from datagen.client import ChatRequest, Sampling, Service, complete
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.money.prices import Price, Prices


def outcome_of(tmp_path: Path, content: str, usage: object) -> tuple[str, int | None, int | None]:
    """Ask once under a cap; return how the try was settled and the tokens that it counts."""
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    raw = json.dumps({"choices": [choice], "usage": usage}).encode()
    asked = ChatRequest("a", ({"role": "user", "content": "a"},), Sampling(max_tokens=100))
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ScriptedServer([Scripted(raw=raw)]) as server:
        budget = Budget(ledger, Prices({"scripted": Price(1.0, 2.0)}), 1.0)
        complete([asked], Service(server.base_url, "scripted", max_tries=1), ledger, stage="s", budget=budget)
        (only,) = ledger.tries()
        if only.outcome == "unknown":
            assert only.cost_usd == only.reserved_usd
    return only.outcome, only.prompt_tokens, only.completion_tokens


@pytest.mark.parametrize("completion", [None, -900, "900", 900.5, True, 10**30, [9], 0])
def test_a_reply_whose_own_tokens_are_not_counted_has_no_known_bill(
    tmp_path: Path, completion: object
) -> None:
    usage = {"prompt_tokens": 7} | ({} if completion is None else {"completion_tokens": completion})
    assert outcome_of(tmp_path, "Rest.", usage) == ("unknown", None, None)


@pytest.mark.parametrize("prompt", [None, -7, 0, "7", 10**30])
def test_a_prompt_that_is_not_counted_leaves_the_bill_unknown(tmp_path: Path, prompt: object) -> None:
    usage = {"completion_tokens": 9} | ({} if prompt is None else {"prompt_tokens": prompt})
    assert outcome_of(tmp_path, "Rest.", usage) == ("unknown", None, None)


@pytest.mark.parametrize("usage", [None, [1, 2], "many", 12])
def test_usage_of_another_form_leaves_the_bill_unknown(tmp_path: Path, usage: object) -> None:
    assert outcome_of(tmp_path, "Rest.", usage) == ("unknown", None, None)


def test_whole_counts_are_believed(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, "Rest.", {"prompt_tokens": 7.0, "completion_tokens": 9}) == ("settled", 7, 9)


def test_an_empty_reply_may_have_cost_no_tokens(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, "", {"prompt_tokens": 7, "completion_tokens": 0}) == ("settled", 7, 0)


@pytest.mark.parametrize(
    ("usage", "outcome"),
    [
        # Thoughts that the total alone counts, and those that stand in the details as well.
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 106}, ("settled", 7, 99)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 9,
                "total_tokens": 106,
                "completion_tokens_details": {"reasoning_tokens": 90},
            },
            ("settled", 7, 99),
        ),
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": None}, ("settled", 7, 9)),
        ({"prompt_tokens": 7, "completion_tokens": 0, "output_tokens": 9}, ("settled", 7, 9)),
        ({"input_tokens": 7, "output_tokens": 9}, ("settled", 7, 9)),
        ({"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": 50}, ("settled", 57, 9)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 9, "thoughtsTokenCount": 80}, ("settled", 7, 89)),
        # Counts that contradict each other, or the reply.
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 15}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 5}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": "16"}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": -1}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "completion_tokens": 9, "reasoning_tokens": 80}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "completion_tokens": 1}, ("unknown", None, None)),
        ({"prompt_tokens": 7, "total_tokens": 90}, ("unknown", None, None)),
    ],
)
def test_the_output_is_all_that_is_billed_beside_the_prompt(
    tmp_path: Path, usage: object, outcome: tuple[str, int | None, int | None]
) -> None:
    assert outcome_of(tmp_path, "Rest and drink enough water. " * 10, usage) == outcome
