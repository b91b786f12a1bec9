"""The verb as a person types it: what it takes from a config and a work folder, what it refuses, what it says."""

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from scripted_server import Scripted, ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.records import read_objects


def synthesize(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["synthesize", *map(str, arguments)])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, server: ScriptedServer) -> Path:
    path = tmp_path / "run.yaml"
    content = {
        "teacher": {"base_url": server.base_url, "model": "scripted", "concurrency": 2},
        "target": 8,
        "tasks_per_request": 4,
        "evaluation_files": [str(exam_of_first_task(tmp_path))],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def exam_of_first_task(folder: Path) -> Path:
    """Write an exam that asks what the scripted teacher writes first."""
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        run = synthesize(
            *("--work", folder / "rehearsal", "--base-url", server.base_url, "--model", "scripted"),
            *("--target", 4, "--tasks-per-request", 4),
        )
    assert run.exit_code == 0, run.output
    (_, first), *_ = read_objects(folder / "rehearsal" / "tasks.jsonl")
    exam = folder / "exam.jsonl"
    exam.write_text(json.dumps({"question": first["instruction"], "context": first["input"]}) + "\n")
    return exam


def test_evaluation_files_of_a_config_are_named_in_the_plan_and_kept_out(
    tmp_path: Path, config: Path
) -> None:
    work = tmp_path / "work"
    planned = synthesize("--work", work, "--config", config, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "exam.jsonl" in planned.output
    run = synthesize("--work", work, "--config", config)
    assert run.exit_code == 0, run.output
    assert "overlap with exam.jsonl: 1 tasks" in run.output
    assert (work / "contamination.json").exists()


def test_evaluation_files_of_a_work_folder_hold_when_only_the_folder_is_named(
    tmp_path: Path, config: Path
) -> None:
    work = tmp_path / "work"
    assert synthesize("--work", work, "--config", config).exit_code == 0
    again = synthesize("--work", work, "--target", 16)
    assert again.exit_code == 0, again.output
    assert "overlap with exam.jsonl: 1 tasks" in again.output
    assert [Path(file).name for file in settings(work)["evaluation_files"]] == ["exam.jsonl"]


def settings(work: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((work / "config.json").read_text())["settings"]
    return found


@pytest.mark.parametrize("emptied", [False, True])
def test_a_folder_that_lost_its_ledger_is_not_paid_for_again(
    tmp_path: Path, config: Path, server: ScriptedServer, emptied: bool
) -> None:
    work = tmp_path / "work"
    assert synthesize("--work", work, "--config", config).exit_code == 0
    for file in work.glob("ledger.sqlite*"):
        file.unlink()
    if emptied:
        (work / "ledger.sqlite").touch()
    words = f"holds results but its ledger is {'empty' if emptied else 'missing'}"
    asked = len(server.bodies)
    for arguments in (
        ["--config", config],
        ["--dry-run"],
        ["--status"],
        ["--cancel-batches"],
        ["--derive", tmp_path / "derived"],
    ):
        run = synthesize("--work", work, *arguments)
        assert words in str(run.exception) + run.output, arguments
        assert "new folder" in str(run.exception) + run.output
    report = CliRunner().invoke(app, ["report", str(work), "--out", str(tmp_path / "report.html")])
    assert words in str(report.exception) + report.output
    (work / "config.json").unlink()
    again = synthesize("--work", work, "--config", config)
    assert (words if emptied else "other files") in str(again.exception) + again.output
    assert len(server.bodies) == asked


def test_the_status_adds_up_with_what_was_asked_beyond_the_target(tmp_path: Path) -> None:
    work, requests = tmp_path / "work", itertools.count()

    def answer_the_first_last(body: dict[str, Any], tried: int) -> str:
        if next(requests) == 0:
            time.sleep(0.5)
        return write_tasks(body)

    with ScriptedServer(answer_the_first_last) as server:
        service = ("--base-url", server.base_url, "--model", "scripted", "--tasks-per-request", 4)
        run = synthesize("--work", work, *service, "--target", 12, "--eager", "--concurrency", 6)
    assert run.exit_code == 0
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        counts = ledger.counts()
    funnel = json.loads((work / "funnel.json").read_text())
    beyond = funnel["money"].get("beyond_target", {"requests": 0, "prompt_tokens": 0})
    assert beyond["requests"] == counts["tasks"]["answered"] - funnel["task_requests"] > 0
    total = sum(stage["prompt_tokens"] for stage in counts.values())
    assert funnel["prompt_tokens"] + beyond["prompt_tokens"] == total
    output = synthesize("--work", work, "--status").output
    assert f"asked beyond the target, not judged: {beyond['requests']} task requests" in output
    assert re.search(rf"ledger, tasks: .*, {counts['tasks']['tries']} tries", output)
    plain = json.loads(synthesize("--work", work, "--status", "--json").output)
    assert plain["beyond_target"] == beyond
    assert plain["ledger"] == counts
    assert synthesize("--work", work, "--json").exit_code == 2
    publish = ["publish", str(work), "--out", str(tmp_path / "data")]
    assert CliRunner().invoke(app, publish).exit_code == 0
    card = (tmp_path / "data" / "README.md").read_text()
    assert f"{beyond['requests']} task requests ({beyond['prompt_tokens']:,} tokens in" in card
    page = tmp_path / "report.html"
    assert CliRunner().invoke(app, ["report", str(work), "--out", str(page)]).exit_code == 0
    assert f"{beyond['requests']} requests beyond the target, not judged" in page.read_text()


def test_the_status_of_a_stopped_run_shows_what_is_in(tmp_path: Path, server: ScriptedServer) -> None:
    work = tmp_path / "work"
    service = ("--base-url", server.base_url, "--model", "scripted", "--tasks-per-request", 4)
    assert synthesize("--work", work, *service, "--target", 12, "--concurrency", 1).exit_code == 0
    with Ledger(work / "ledger.sqlite") as ledger:
        whole = ledger.noted("progress")
        assert whole is not None
        keys = ("money", "budget_reached", "identifiers", "evaluation_overlaps")
        early = {key: value for key, value in json.loads(whole).items() if key not in keys}
        early |= {"answer_replies": 0, "instructions": 0, "target_reached": False, "task_requests": 1}
        ledger.note("progress", json.dumps(early))
    output = synthesize("--work", work, "--status").output
    assert re.search(r"answers +12\n", output)
    assert "12 answers are not judged yet" in output
    assert "answered, waiting for an earlier one: 3 task requests" in output


def test_costs_are_unknown_where_no_price_is_and_written_alike_elsewhere(
    tmp_path: Path, server: ScriptedServer
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("scripted: {input: 1, output: 1}\n")
    work = tmp_path / "work"
    service = ("--base-url", server.base_url, "--model", "scripted", "--tasks-per-request", 4, "--target", 8)
    run = synthesize("--work", work, *service, "--answer-model", "unlisted", "--prices", prices)
    assert run.exit_code == 0, run.output
    assert re.search(r"spent \(tasks \$0\.\d+, answers unknown\)", run.output)
    derived = synthesize(
        *("--work", work, "--derive", tmp_path / "derived", "--answer-model", "scripted", "--target", 8)
    )
    assert derived.exit_code == 0, derived.output
    assert re.search(r"\$0\.\d+ of these replies was paid in the folder", derived.output)
    amounts = re.search(r"cost: \$0\.(\d+) spent \(tasks \$0\.(\d+), answers \$0\.(\d+)\)", derived.output)
    assert amounts is not None
    assert len({len(each) for each in amounts.groups()}) == 1


def test_files_of_a_config_lie_beside_it_and_a_moved_one_is_named_with_who_asks_for_it(
    tmp_path: Path, config: Path, server: ScriptedServer
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "prices.yaml").write_text("scripted: {input: 1, output: 1}\n")
    (tmp_path / "exam.jsonl").rename(folder / "exam.jsonl")
    (tmp_path / "rehearsal" / "tasks.jsonl").rename(folder / "seeds.jsonl")
    content = yaml.safe_load(config.read_text())
    content |= {
        "prices": "prices.yaml",
        "seeds": "seeds.jsonl",
        "evaluation_files": ["exam.jsonl:question,context"],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    work = tmp_path / "work"
    run = synthesize("--work", work, "--config", folder / "run.yaml")
    assert run.exit_code == 0, run.output
    assert "cost: $" in run.output
    pinned = settings(work)
    assert pinned["seeds"] == str(folder / "seeds.jsonl")
    assert pinned["evaluation_files"] == [f"{folder / 'exam.jsonl'}:question,context"]
    (folder / "seeds.jsonl").rename(folder / "moved.jsonl")
    # Its own copy would do: see work/test_own_seeds.py.
    (work / "seeds.jsonl").unlink()
    for source, arguments in (
        (work / "config.json", []),
        (folder / "run.yaml", ["--config", folder / "run.yaml"]),
    ):
        words = str(synthesize("--work", work, *arguments).exception)
        assert words.startswith("seeds: the file does not exist")
        assert f"where:    {source}" in words
        assert str(folder / "seeds.jsonl") in words
        assert "--seeds sets seeds" in words
    assert synthesize("--work", work, "--seeds", folder / "moved.jsonl").exit_code == 0


def test_the_plan_names_seeds_what_is_compared_and_whether_the_budget_suffices(
    tmp_path: Path, config: Path
) -> None:
    prices, work = tmp_path / "prices.yaml", tmp_path / "work"
    prices.write_text("scripted: {input: 1, output: 1}\n")
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": "Why is the sky blue at noon?", "gold": "Rayleigh"}) + "\n")
    seeds = tmp_path / "rehearsal" / "tasks.jsonl"
    plan = ("--work", work, "--config", config, "--prices", prices, "--seeds", seeds, "--dry-run")
    output = synthesize(*plan, "--budget-usd", 5).output
    assert f"seeds       {seeds}" in output
    assert f"{exam}, 1 items; compared: question; not compared: gold" in output
    assert re.search(r"Expected cost \$0\.\d+ fits the budget of \$5\.00", output)
    assert re.search(r"exceeds the budget of \$0\.00001", synthesize(*plan, "--budget-usd", 0.00001).output)


def test_a_misspelt_key_of_a_price_is_named(tmp_path: Path, config: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("scripted: {input: 1, ouput: 1}\n")
    run = synthesize("--work", tmp_path / "work", "--config", config, "--prices", prices, "--dry-run")
    assert "scripted.ouput: unknown key; did you mean scripted.output?" in str(run.exception)


def test_ending_batches_where_there_are_none_says_so(tmp_path: Path, config: Path) -> None:
    work = tmp_path / "work"
    assert synthesize("--work", work, "--config", config).exit_code == 0
    run = synthesize("--work", work, "--cancel-batches")
    assert run.exit_code == 0, run.output
    assert "No batch is under way" in run.output


def test_terminal_and_page_call_what_replies_hold_by_one_name(tmp_path: Path, config: Path) -> None:
    from alpacare_jax.report.funnel import funnel_steps
    from datagen.synthesize import Funnel

    work = tmp_path / "work"
    run = synthesize("--work", work, "--config", config)
    assert run.exit_code == 0, run.output
    funnel = Funnel.read(work / "funnel.json")
    page = next(step["label"] for step in funnel_steps(funnel) if step["count"] == funnel.tasks_found)
    assert re.search(rf"^{page.lower()} +{funnel.tasks_found}$", run.output, re.MULTILINE)


def reply(content: object, reason: str = "stop", **message: object) -> Scripted:
    choice = {"message": {"content": content, **message}, "finish_reason": reason}
    return Scripted(raw=json.dumps({"choices": [choice]}).encode())


NOTHING = {
    "reasoning alone": (reply(None, reasoning_content="Rest."), "was in the reasoning field"),
    "a stream": (Scripted(raw=b'data: {"choices": []}\n\n'), "turn streaming off"),
    "cut": (reply("Rest and", "MAX_TOKENS"), "raise --answer-max-tokens"),
    "withheld": (reply("Rest", "SAFETY"), "a content filter"),
    "an unknown form": (reply([{"type": "hologram"}]), "bad-reply: the content cannot be read"),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_run_without_any_answer_says_why_by_words_and_status(tmp_path: Path, kind: str) -> None:
    answer, words = NOTHING[kind]

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return answer if body["model"] == "answerer" else write_tasks(body)

    with ScriptedServer(script) as server:
        address = (
            "--base-url",
            f"{server.base_url}/chat/completions",
            "--model",
            "m",
            "--answer-model",
            "answerer",
        )
        run = synthesize("--work", tmp_path, *address, "--target", 3, "--tasks-per-request", 3)
    assert run.exit_code == 1, run.output
    assert "No answer of 3 can be published." in run.output
    assert words in run.output


def test_a_run_without_any_task_names_the_main_reason_and_the_option(tmp_path: Path) -> None:
    with ScriptedServer(lambda *_: reply("1. Type: Ch", "length")) as server:
        address = ("--base-url", server.base_url, "--model", "m")
        run = synthesize("--work", tmp_path, *address, "--target", 3, "--max-requests", 2)
    assert isinstance(run.exception, DataError)
    assert "truncated 2 (the reply was cut off" in str(run.exception)
    assert "raise --max-tokens" in str(run.exception)
