"""A cap on spending, through the whole of synthesis: the command itself, a real server that bills what it receives."""

import itertools
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import MODEL, Scripted, ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.client import Service
from datagen.errors import ConfigError
from datagen.ledger import Ledger
from datagen.money.budget import BudgetReached
from datagen.records import read_objects
from datagen.settings import Settings
from datagen.synthesize import synthesize

MILLION = {MODEL: {"input": 1.0, "output": 1.0}}


class Billing:
    """Answers by a script and bills every request that it receives, whether or not the reply arrives."""

    def __init__(self, script: Callable[[dict[str, Any], int], Scripted | str]) -> None:
        self._script, self._lock = script, threading.Lock()
        self.usd = 0.0

    def __call__(self, body: dict[str, Any], tried: int) -> Scripted | str:
        reply = self._script(body, tried)
        if isinstance(reply, str) or reply.status == 200:
            text = reply if isinstance(reply, str) else reply.text
            with self._lock:
                self.usd += (7 + len(text.split())) / 1e6
        return reply


def settings_for(server: ScriptedServer, **changes: Any) -> Settings:
    timeout_s = changes.pop("timeout_s", 60)
    service = Service(
        server.base_url, MODEL, timeout_s=timeout_s, max_tries=3, first_wait_s=0.02, concurrency=4
    )
    base = {"teacher": service, "answerer": service, "target": 20, "tasks_per_request": 4, "prices": MILLION}
    return Settings(**base | changes)


def spending(work: Path) -> dict[str, float]:
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        stages = ledger.spending().values()
    return {
        name: sum(getattr(each, name) for each in stages) for name in ("spent_usd", "unknown_usd", "held_usd")
    }


def rows(work: Path) -> list[Any]:
    found = [row for _, row in read_objects(work / "instructions.jsonl")]
    for row in found:
        row["source"].pop("time")
    return found


def test_a_run_ends_at_its_cap_with_its_tasks_answered_and_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    billing = Billing(lambda body, tried: write_tasks(body))
    with ScriptedServer(billing) as server:
        whole = synthesize(settings_for(server), tmp_path / "whole")
        cost = billing.usd
        assert whole.money.spent_usd == pytest.approx(cost)
        assert whole.money.tasks_usd + whole.money.answers_usd == pytest.approx(cost)
        # The worst case of a request is far above what it costs, so a cap must leave room for it.
        cap, billing.usd = 0.011, 0.0
        some = synthesize(settings_for(server, budget_usd=cap, target=400, max_requests=400), tmp_path / "w")
        assert 0 < billing.usd <= cap
        assert some.money.spent_usd == pytest.approx(billing.usd)
        assert (some.budget_reached, some.target_reached) == (True, False)
        assert 0 < some.tasks_kept < 400
        assert some.instructions >= 0.9 * some.tasks_kept
        assert some.answer_requests == some.answer_replies + sum(some.answer_requests_failed.values())
        before = rows(tmp_path / "w")
        more = synthesize(settings_for(server, budget_usd=1.0, target=some.tasks_kept), tmp_path / "w")
        assert more.instructions == more.tasks_kept == some.tasks_kept
        assert {json.dumps(row) for row in before} <= {json.dumps(row) for row in rows(tmp_path / "w")}


def test_a_cap_that_suffices_for_nothing_says_so(tmp_path: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        with pytest.raises(BudgetReached, match="budget is reached") as caught:
            synthesize(settings_for(server, budget_usd=0.000001), tmp_path / "work")
        assert server.count == 0
    assert "raise `budget_usd`" in str(caught.value)
    assert "the next request could cost $0.00" in str(caught.value)


def test_whatever_the_service_does_the_bill_stays_within_the_cap(tmp_path: Path) -> None:
    # In turn, the good ones first: a cap reached by tries of unknown cost alone would leave no task to answer.
    turns = itertools.cycle(
        [
            {},
            {},
            {},
            {"reset": True},
            {"status": 429, "headers": {"retry-after": "0"}},
            # Longer than any run: a reply that comes late because the machine is busy is another matter.
            {"delay_s": 600},
            {"status": 503},
            {"promise_more": 9},
            {"raw": b"<html>"},
        ]
    )
    lock = threading.Lock()

    def faulty(body: dict[str, Any], tried: int) -> Scripted:
        with lock:
            turn = next(turns)
        return Scripted(write_tasks(body), **turn)

    billing = Billing(faulty)
    with ScriptedServer(billing) as server:
        settings = settings_for(server, budget_usd=0.04, target=60, max_requests=60, timeout_s=1.5)
        funnel = synthesize(settings, tmp_path / "work")
    spent = spending(tmp_path / "work")
    assert 0 < billing.usd <= spent["spent_usd"] + spent["unknown_usd"] <= 0.04
    assert funnel.budget_reached
    assert spent["unknown_usd"] > 0
    assert spent["held_usd"] == 0
    assert funnel.money.unknown_usd == pytest.approx(spent["unknown_usd"])


def test_a_reply_that_was_withheld_is_paid_for_all_the_same(tmp_path: Path) -> None:
    def withheld(body: dict[str, Any], tried: int) -> Scripted:
        text = write_tasks(body)
        return Scripted(text, finish_reason="content_filter" if "angina" in str(body) else "stop")

    billing = Billing(withheld)
    with ScriptedServer(billing) as server:
        funnel = synthesize(settings_for(server, budget_usd=1.0), tmp_path / "work")
    assert funnel.answer_requests_failed["content-filter"] > 0
    assert funnel.money.spent_usd == pytest.approx(billing.usd)
    assert funnel.money.unknown_usd == 0


def test_what_is_in_flight_when_the_target_is_reached_is_waited_for(tmp_path: Path) -> None:
    def later_ones_are_slow(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted(write_tasks(body), delay_s=0.3 if server.count > 1 else 0.0)

    with ScriptedServer(later_ones_are_slow) as server:
        settings = settings_for(server, target=3, eager=True)
        funnel = synthesize(settings, tmp_path / "work")
    assert funnel.task_requests == 1
    assert funnel.money.unknown_usd == 0
    with Ledger(tmp_path / "work" / "ledger.sqlite") as ledger:
        assert {each.outcome for each in ledger.tries()} == {"settled"}
        assert sum(entry.state == "answered" for entry in ledger.entries("tasks")) > 1


def test_a_model_without_a_price_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        with pytest.raises(ConfigError, match="a budget needs the price of every model") as caught:
            synthesize(settings_for(server, prices=None, budget_usd=1.0), tmp_path / "work")
        assert server.count == 0
        assert not (tmp_path / "work").exists()
        assert "no price for scripted" in str(caught.value)
        free = {MODEL: {"input": 0, "output": 0}}
        funnel = synthesize(settings_for(server, prices=free, budget_usd=0.0), tmp_path / "work")
    assert funnel.instructions == 20
    assert funnel.money.spent_usd == 0


def test_the_command_says_what_it_spends_and_keeps_the_cap_it_was_given(
    tmp_path: Path, alpacare: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    work, prices, config = tmp_path / "work", tmp_path / "prices.yaml", tmp_path / "config.yaml"
    prices.write_text(f"{MODEL}: {{input: 1, output: 1}}\n")
    billing = Billing(lambda body, tried: write_tasks(body))

    def run(*flags: str) -> "subprocess.CompletedProcess[str]":
        return alpacare("synthesize", "--work", work, *flags)

    with ScriptedServer(billing) as server:
        teacher = {"base_url": server.base_url, "model": MODEL}
        config.write_text(json.dumps({"teacher": teacher, "target": 400, "tasks_per_request": 4}))
        first = run("--config", str(config), "--prices", str(prices), "--budget-usd", "0.011")
        assert first.returncode == 1, first.stderr
        assert "Stopped at the budget of $0.011 with" in first.stderr
        assert "of $0.011, about $" in first.stderr
        assert "of a budget of $0.011" in first.stdout
        spent = billing.usd
        again = run("--config", str(config))
        assert again.returncode == 1, again.stderr
        assert spent <= billing.usd <= 0.011
        status = run("--status")
        assert "of a budget of $0.011" in status.stdout
        lifted = run(
            "--config", str(config), "--prices", str(prices), "--budget-usd", "inf", "--target", "40"
        )
        assert lifted.returncode == 0, lifted.stderr
        assert "budget" not in lifted.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--budget-usd", "-1"], "budget_usd must be at least 0"),
        (["--budget-usd", "nan"], "budget_usd must be"),
        (["--requests-per-minute", "-5"], "requests_per_minute"),
        (["--tokens-per-minute", "0"], "tokens_per_minute"),
        (["--concurrency", "0"], "concurrency"),
        (["--timeout-s", "nan"], "timeout_s"),
        (["--timeout-s", "-1"], "timeout_s"),
        (["--max-tries", "0"], "max_tries"),
        (["--target", "99999999999"], "target must be at least 1"),
        (["--prices", "no-such.yaml"], "no-such.yaml does not exist"),
    ],
)
def test_impossible_limits_are_refused_before_anything_is_made(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    work = tmp_path / "work"
    service = ["--base-url", "http://127.0.0.1:1/v1", "--model", MODEL]
    refused = CliRunner().invoke(app, ["synthesize", "--work", str(work), *service, *flags])
    assert isinstance(refused.exception, ConfigError), refused.output
    assert words in str(refused.exception)
    assert not work.exists()
