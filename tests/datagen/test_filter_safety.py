"""``alpacare filter`` cleans any data set of evaluation items and of personal identifiers."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from alpacare_jax.cli import filter_verb
from datagen.errors import ConfigError, DataError

QUESTION = (
    "A 41-year-old diver has an itchy mottled rash and shoulder pain two hours after surfacing; which treatment "
    "should begin first?"
)
ROWS: list[dict[str, Any]] = [
    {"id": "new", "instruction": "How is gout treated in old age?", "output": "With rest."},
    {"id": "leak", "instruction": "Answer the question.", "input": QUESTION, "output": "Oxygen."},
    {
        "id": "named",
        "instruction": "Write to Mrs. Okafor.",
        "input": "<noinput>",
        "output": "Dear Mrs. Okafor, ...",
    },
    {"id": "told", "instruction": "Invent an exam question.", "output": f"Here: {QUESTION}", "rejected": 1},
    {"id": "again", "instruction": "How is gout treated in old age", "output": "Call 212-555-0143."},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(folder: Path, *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(filter_verb.command)
    outputs = ("--out", folder / "kept.jsonl", "--rejected", folder / "rejected.jsonl")
    return CliRunner().invoke(app, [str(each) for each in (folder / "in.jsonl", *outputs, *arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "in.jsonl", ROWS)
    write(tmp_path / "exam.jsonl", [{"id": "q1", "question": QUESTION}])
    return tmp_path


def test_rows_that_hold_a_test_question_are_dropped(folder: Path) -> None:
    result = run(folder, "--evaluation", folder / "exam.jsonl")
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in read(folder / "kept.jsonl")] == ["new", "named"]
    rejected = {row["id"]: row["rejected"] for row in read(folder / "rejected.jsonl")}
    assert list(rejected) == ["leak", "told", "again"]
    assert {key: rejected["leak"][key] for key in ("reason", "evaluation_item", "overlap", "overlap_in")} == {
        "reason": "evaluation-overlap",
        "evaluation_item": "q1",
        "overlap": "ngram",
        "overlap_in": "input",
    }
    assert rejected["told"]["overlap_in"] == "answer"
    assert rejected["again"]["reason"] == "near-duplicate"
    assert read(folder / "rejected.jsonl")[1]["rejected_before"] == 1
    assert "2 kept" in result.output
    assert "1 near-duplicate" in result.output
    assert "2 evaluation-overlap" in result.output
    assert "overlap with exam.jsonl (1 item): 2 rows" in result.output


def test_identifiers_are_dropped_masked_or_listed(folder: Path) -> None:
    places = folder / "places.jsonl"
    result = run(folder, "--privacy", "drop", "--identifiers", places)
    assert result.exit_code == 0, result.output
    rejected = {row["id"]: row["rejected"]["reason"] for row in read(folder / "rejected.jsonl")}
    assert rejected == {"named": "personal-identifier", "again": "personal-identifier"}
    assert "personal identifiers: NAME 2, PHONE 1" in result.output
    assert read(places)[0] == {
        "row": f"{folder / 'in.jsonl'}:3",
        "action": "dropped",
        "kind": "NAME",
        "field": "instruction",
        "start": 14,
        "end": 20,
    }
    assert run(folder, "--privacy", "mask", "--overwrite").exit_code == 0
    kept = {row["id"]: row for row in read(folder / "kept.jsonl")}
    assert kept["named"]["instruction"] == "Write to Mrs. [NAME]."
    assert kept["named"]["output"] == "Dear Mrs. [NAME], ..."
    assert kept["named"]["input"] == "<noinput>"
    assert run(folder, "--privacy", "report", "--identifiers", places, "--overwrite").exit_code == 0
    assert read(folder / "kept.jsonl") == ROWS[:4]
    assert {row["action"] for row in read(places)} == {"reported"}


def test_a_masked_file_is_masked_already(folder: Path) -> None:
    run(folder, "--privacy", "mask")
    first = (folder / "kept.jsonl").read_bytes()
    (folder / "in.jsonl").write_bytes(first)
    result = run(folder, "--privacy", "mask", "--overwrite")
    assert (folder / "kept.jsonl").read_bytes() == first
    assert "personal identifiers: none" in result.output


def test_without_the_options_nothing_is_looked_for(folder: Path) -> None:
    result = run(folder)
    assert [row["id"] for row in read(folder / "kept.jsonl")] == ["new", "leak", "named", "told"]
    assert "identifiers" not in result.output


def test_impossible_orders_are_refused(folder: Path) -> None:
    orders: list[tuple[tuple[object, ...], type[Exception], str]] = [
        (("--privacy", "report"), ConfigError, "--privacy report has no file"),
        (("--identifiers", folder / "places.jsonl"), ConfigError, "privacy is off"),
        (("--privacy", "drop", "--identifiers", folder / "kept.jsonl"), ConfigError, "same file"),
        (("--privacy", "drop", "--identifiers", folder / "in.jsonl"), ConfigError, "replace an input"),
        (("--evaluation", folder / "kept.jsonl"), ConfigError, "replace an input"),
        (("--evaluation", folder / "none.jsonl"), DataError, "does not exist"),
        (("--evaluation", f"{folder / 'exam.jsonl'}:stem"), DataError, "no question"),
    ]
    for options, kind, what in orders:
        result = run(folder, *options)
        assert isinstance(result.exception, kind), options
        assert what in str(result.exception)
    assert run(folder, "--privacy", "hide").exit_code == 2
    assert not (folder / "kept.jsonl").exists()
    assert read(folder / "in.jsonl") == ROWS
