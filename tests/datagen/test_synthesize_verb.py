"""The verb as a person types it: what it takes from a config and a work folder, what it refuses, what it says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from scripted_server import ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
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
        ["--fork", tmp_path / "forked"],
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
