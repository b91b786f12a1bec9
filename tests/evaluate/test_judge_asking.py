"""How a judge is asked: its sampling, its limits of money, batches, and what is asked again."""

import json
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer, Course, succeed
from scripted_server import Scripted, ScriptedServer
from test_judge import arguments, files, prefers_ours, run

from datagen.errors import ConfigError, DataError, ServiceError
from datagen.ledger import Ledger
from datagen.records import Verdict, read_records

__all__ = ["files"]  # the fixture of the judge's other tests


def verdicts(files: Path) -> list[str | None]:
    return [each.verdict for each in read_records(files / "v.jsonl", Verdict)]


def test_fields_that_a_judge_refuses_are_left_out_or_named_otherwise(files: Path) -> None:
    options = ("--temperature", "none", "--top-p", "None", "--presence-penalty", "none")
    options += ("--max-tokens-field", "max_completion_tokens", "--max-tokens", "2000")
    with ScriptedServer(prefers_ours) as server:
        run(*arguments(files, server, *options))
    assert all(set(body) == {"model", "messages", "max_completion_tokens"} for body in server.bodies)
    assert {body["max_completion_tokens"] for body in server.bodies} == {2000}
    assert verdicts(files) == ["win"] * 6


def test_a_refused_field_is_named_with_the_option_that_leaves_it_out(files: Path) -> None:
    error = {"message": "Unsupported value.", "param": "temperature", "code": "unsupported_value"}
    refusal = Scripted(status=400, raw=json.dumps({"error": error}).encode())
    with ScriptedServer(lambda body, tried: refusal) as server, pytest.raises(ServiceError) as caught:
        run(*arguments(files, server))
    assert "--temperature none" in str(caught.value.remedy)
    assert "--derive" not in str(caught.value.remedy)


def test_a_file_of_settings_says_what_options_say_and_more(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        config = files / "judge.yaml"
        config.write_text(
            f"judge: {{base_url: {server.base_url}, model: from-file, concurrency: 2}}\n"
            "sampling: {temperature: null, extra_body: {reasoning_effort: low}}\n"
        )
        args = arguments(files, server, "--config", config)
        at = args.index("--base-url")
        run(*args[:at], *args[at + 4 :])
    assert {(b["model"], b["reasoning_effort"], "temperature" in b) for b in server.bodies} == {
        ("from-file", "low", False)
    }
    config.write_text("judge: {base_url: http://127.0.0.1:1/v1}\nsampling: {temprature: 0}\n")
    with pytest.raises(ConfigError, match=r"sampling\.temprature.*did you mean sampling.temperature"):
        run(*args)


UNFINISHED = {
    "empty": Scripted("", finish_reason="stop"),
    "cut": Scripted("Let me compare both. Output (a) names", finish_reason="length"),
    "thoughts alone": Scripted("<think>Output (a) is better.", finish_reason="length"),
    "failed": Scripted("no", status=400),
}


@pytest.mark.parametrize("reply", UNFINISHED.values(), ids=UNFINISHED)
def test_what_came_to_nothing_is_asked_again_at_another_length_and_nothing_else_is(
    files: Path, reply: Scripted
) -> None:
    def script(body: dict[str, Any], _: int) -> Scripted | str:
        second = "Question 2?" in body["messages"][-1]["content"]
        return reply if second and body["max_tokens"] < 4096 else prefers_ours(body, 0)

    with ScriptedServer(script) as server:
        run(*arguments(files, server), status=int(reply.status != 200))
        run(*arguments(files, server, "--max-tokens", "4096", "--overwrite"), status=int(reply.status != 200))
        assert server.count == 6  # a longer reply alone asks nothing
        assert verdicts(files) == ["win"] * 4 + ["invalid"] * 2
        printed = run(*arguments(files, server, "--max-tokens", "4096", "--retry-failed", "--overwrite"))
        assert server.count == 8
        assert verdicts(files) == ["win"] * 6
        run(*arguments(files, server, "--max-tokens", "256", "--retry-failed", "--overwrite"))
        assert server.count == 8
    assert "2 failed, empty or cut replies are requested again" in printed
    with Ledger(files / "work" / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.counts()["judge"]["tries"] == 8


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            Scripted("", finish_reason="length"),
            "6 of them were cut off; --retry-failed with a larger --max-tokens",
        ),
        (Scripted("<think>Both are fine", finish_reason="MAX_TOKENS"), "6 of them were cut off"),
        (Scripted(""), "6 of them are empty; --retry-failed"),
        (Scripted("I cannot say."), "6 replies have no clear verdict"),
        (Scripted("The input was flagged.", status=400), "content-filter: HTTP 400: The input was flagged."),
    ],
)
def test_a_run_without_any_verdict_says_why_by_words_and_status(
    files: Path, reply: Scripted, words: str
) -> None:
    with ScriptedServer(lambda body, tried: reply) as server:
        printed = run(*arguments(files, server), status=1)
    assert "no reply states a verdict: nothing was judged" in printed
    assert words in printed
    with ScriptedServer(lambda body, tried: "Tie") as server:
        run(
            *arguments(files, server, "--retry-failed", "--overwrite"),
            status=int(reply.text == "I cannot say."),
        )


def test_a_cut_reply_that_states_its_verdict_is_kept(files: Path) -> None:
    cut = Scripted("Output (a) is better. It names", finish_reason="length")
    with ScriptedServer(lambda body, tried: cut) as server:
        run(*arguments(files, server))
        run(*arguments(files, server, "--retry-failed", "--overwrite"))
        assert server.count == 6


def test_other_sampling_in_the_same_work_folder_is_refused(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        run(*arguments(files, server))
        with pytest.raises(DataError, match="another configuration"):
            run(*arguments(files, server, "--temperature", "1", "--retry-failed", "--overwrite"))


def test_a_budget_ends_the_run_holds_later_and_can_be_lifted(files: Path) -> None:
    (files / "prices.yaml").write_text("scripted-judge: {input: 1000, output: 1000}\n")
    options = ("--prices", files / "prices.yaml", "--concurrency", "1")
    with ScriptedServer(prefers_ours) as server:
        plan = run(*arguments(files, server, *options, "--dry-run"))
        assert server.count == 0
        with pytest.raises(ServiceError, match="budget"):
            run(*arguments(files, server, *options, "--budget-usd", "1"))
        with pytest.raises(ServiceError, match="budget"):
            run(*arguments(files, server, *options))
        assert server.count == 0
        with pytest.raises(ConfigError, match="price"):
            run(*arguments(files, server))
        printed = run(*arguments(files, server, *options, "--budget-usd", "inf"))
        assert server.count == 6
    assert "6 requests to send, 0 answered already" in plan
    assert "Which of two outputs follows the instruction better?" in plan
    assert "expected cost $" in plan
    assert "spent so far" in printed


def test_a_cost_that_is_not_known_is_said_so(files: Path) -> None:
    with ScriptedServer(prefers_ours) as server:
        assert "unknown: no price for scripted-judge" in run(*arguments(files, server, "--dry-run"))
    assert not (files / "work").exists()


def test_batches_give_the_verdicts_that_single_requests_give(files: Path) -> None:
    course = Course(reply=lambda row, number: succeed(row, prefers_ours(row["body"], 0)))
    with BatchServer([course]) as server:
        options = ("--mode", "batch", "--batch-poll-s", "0.01")
        run(*arguments(files, server, *options, "--no-wait"), status=3)
        printed = run(*arguments(files, server, *options))
    assert len(server.batches) == 1
    assert verdicts(files) == ["win"] * 6
    assert "6 win" in printed
