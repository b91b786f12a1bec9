"""The filter of any dataset, from Python and as the verb ``alpacare filter``."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alpacare_jax.cli import app
from datagen.dedup import rouge_l
from datagen.errors import ConfigError, DataError
from datagen.filtering import filter
from datagen.records import SeedTask
from datagen.seeds import load_seeds

ROWS: list[dict[str, Any]] = [
    {"instruction": "Name five causes of chronic cough.", "id": "a", "note": {"kept": [1]}},
    {"instruction": "How is gout treated in old age?", "id": "b"},
    {"instruction": "Name six causes of chronic cough.", "id": "c", "note": {"kept": [2]}},
    {"instruction": "What is a hernia?", "id": "d"},
]
QUESTION = (
    "A 41-year-old diver has an itchy mottled rash and shoulder pain two hours after surfacing; which treatment "
    "should begin first?"
)
UNSAFE: list[dict[str, Any]] = [
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
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def places(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["id"]: row["rejected"]["nearest_at"] for row in rows}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["filter", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    return write(tmp_path / "exam.jsonl", [{"id": "q1", "question": QUESTION}])


def test_the_first_is_kept_and_a_near_duplicate_names_the_nearest(tmp_path: Path, source: Path) -> None:
    found = filter(source, tmp_path / "kept.jsonl", tmp_path / "rejected.jsonl", progress=False)
    reason = {
        "reason": "near-duplicate",
        "nearest": ROWS[0]["instruction"],
        "nearest_at": f"{source}:1",
        "score": round(rouge_l(ROWS[0]["instruction"], ROWS[2]["instruction"]), 4),
    }
    assert found.kept == read(tmp_path / "kept.jsonl") == [ROWS[0], ROWS[1], ROWS[3]]
    assert found.rejected == read(tmp_path / "rejected.jsonl") == [{**ROWS[2], "rejected": reason}]
    assert found.reasons == {"near-duplicate": 1}


def test_rows_in_memory_are_filtered_and_left_as_they_are() -> None:
    rows = [dict(row) for row in ROWS]
    found = filter(rows, against=[[{"instruction": "what is a HERNIA"}]], progress=False)
    assert rows == ROWS
    assert ids(found.kept) == ["a", "b"]
    assert places(found.rejected) == {"c": "row:1", "d": "row:1"}
    assert found.identifiers is None
    assert len(filter([SeedTask("What is gout?"), SeedTask("what is gout")], progress=False).kept) == 1


def test_the_threshold_is_the_users() -> None:
    assert filter(ROWS, threshold=0.9, progress=False).kept == ROWS


def test_files_that_are_kept_already_are_compared_with_and_not_judged(tmp_path: Path, source: Path) -> None:
    first = write(tmp_path / "first.jsonl", [{"instruction": "what is a HERNIA"}] * 2)
    second = tmp_path / "second.json"
    second.write_text('[\n{"instruction": "How is gout treated in old age"}]', encoding="utf-8")
    found = filter(source, against=[first, second], progress=False)
    assert ids(found.kept) == ["a"]
    assert places(found.rejected) == {"b": f"{second}:2", "c": f"{source}:1", "d": f"{first}:1"}


def test_both_of_a_pair_go_under_the_published_policy(tmp_path: Path, source: Path) -> None:
    found = filter(source, policy="all-pairs", progress=False)
    assert ids(found.kept) == ["b", "d"]
    assert places(found.rejected) == {"a": f"{source}:3", "c": f"{source}:1"}
    known = write(tmp_path / "known.jsonl", [{"instruction": "what is a HERNIA"}] * 2)
    found = filter(source, policy="all-pairs", against=[known], progress=False)
    assert ids(found.kept) == ["b"]
    assert places(found.rejected)["d"] == f"{known}:1"


def test_new_rows_against_the_kept_ones_end_as_if_all_were_filtered_at_once() -> None:
    chance = random.Random(3)
    text = "causes signs of cough gout in old young adults children name list six five"
    words = text.split()
    rows = [{"instruction": " ".join(chance.choices(words, k=6)), "id": n} for n in range(120)]
    whole = filter(rows, threshold=0.6, progress=False).kept
    old = filter(rows[:70], threshold=0.6, progress=False).kept
    assert 10 < len(whole) < 110
    assert old + filter(rows[70:], against=[old], threshold=0.6, progress=False).kept == whole


def test_shipped_seeds_count_on_request() -> None:
    found = filter([{"instruction": load_seeds()[3].instruction}], seeds=True, progress=False)
    assert found.kept == []
    assert found.rejected[0]["rejected"]["nearest_at"] == "seed_tasks.jsonl:4"


def test_a_rejected_row_filtered_again_keeps_its_first_reason() -> None:
    row = filter([ROWS[0], {**ROWS[2], "rejected": {"reason": "older"}}], progress=False).rejected[0]
    assert row["rejected"]["reason"] == "near-duplicate"
    assert row["rejected_before"] == {"reason": "older"}


def test_rows_that_hold_a_test_question_are_rejected(exam: Path) -> None:
    found = filter(UNSAFE, evaluation=[exam], progress=False)
    assert ids(found.kept) == ["new", "named"]
    rejected = {row["id"]: row["rejected"] for row in found.rejected}
    assert list(rejected) == ["leak", "told", "again"]
    assert {key: rejected["leak"][key] for key in ("reason", "evaluation_item", "overlap", "overlap_in")} == {
        "reason": "evaluation-overlap",
        "evaluation_item": "q1",
        "overlap": "ngram",
        "overlap_in": "input",
    }
    assert rejected["told"]["overlap_in"] == "answer"
    assert rejected["again"]["reason"] == "near-duplicate"
    assert found.rejected[1]["rejected_before"] == 1
    assert found.reasons == {"evaluation-overlap": 2, "near-duplicate": 1}
    assert [(file["file"], file["items"], file["rows_rejected"]) for file in found.evaluation] == [
        ("exam.jsonl", 1, 2)
    ]


def test_identifiers_are_dropped_masked_or_listed(tmp_path: Path) -> None:
    source, listed = write(tmp_path / "in.jsonl", UNSAFE), tmp_path / "places.jsonl"
    dropped = filter(source, privacy="drop", identifiers=listed, progress=False)
    reasons = {row["id"]: row["rejected"]["reason"] for row in dropped.rejected}
    assert reasons == {"named": "personal-identifier", "again": "personal-identifier"}
    assert "personal identifiers: NAME 2, PHONE 1" in dropped.summary()
    first = {"kind": "NAME", "field": "instruction", "start": 14, "end": 20}
    assert read(listed)[0] == {"row": f"{source}:3", "action": "dropped", **first}
    masked = {row["id"]: row for row in filter(source, privacy="mask", progress=False).kept}
    assert masked["named"]["instruction"] == "Write to Mrs. [NAME]."
    assert masked["named"]["output"] == "Dear Mrs. [NAME], ..."
    assert masked["named"]["input"] == "<noinput>"
    reported = filter(source, privacy="report", progress=False)
    assert reported.kept == UNSAFE[:4]
    assert {place["action"] for place in reported.identifiers or ()} == {"reported"}


def test_masked_rows_are_masked_already() -> None:
    once = filter(UNSAFE, privacy="mask", progress=False).kept
    twice = filter(once, privacy="mask", progress=False)
    assert (twice.kept, twice.identifiers) == (once, [])
    assert "personal identifiers: none" in twice.summary()


@pytest.mark.parametrize("name", ["kept.jsonl", "rejected.jsonl"])
def test_results_are_not_overwritten_unasked(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / name).write_text("precious\n", encoding="utf-8")
    outputs = (tmp_path / "kept.jsonl", tmp_path / "rejected.jsonl")
    with pytest.raises(DataError, match="overwrite"):
        filter(source, *outputs, progress=False)
    assert (tmp_path / name).read_text(encoding="utf-8") == "precious\n"
    filter(source, *outputs, overwrite=True, progress=False)
    assert len(read(tmp_path / "kept.jsonl")) == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": "a"}', "no instruction"),
        ('{"instruction": 3}', "no instruction"),
        ('{"instruction": ', "not valid JSON"),
    ],
)
def test_a_broken_row_is_named_and_nothing_is_written(
    tmp_path: Path, source: Path, line: str, what: str
) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=what) as caught:
        filter(source, tmp_path / "k", tmp_path / "r", progress=False)
    assert f"{source}:5" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_impossible_arguments_are_refused(tmp_path: Path, source: Path, exam: Path) -> None:
    kept, other = tmp_path / "k", tmp_path / "r"
    orders: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"out": kept, "rejected": kept}, ConfigError, "same file"),
        ({"out": source, "overwrite": True}, ConfigError, "replace an input"),
        ({"out": tmp_path}, DataError, "folder"),
        ({"threshold": 7}, ConfigError, "threshold must be"),
        ({"policy": "keep-last"}, ConfigError, "policy: 'keep-last' is not one of"),
        ({"privacy": "hide"}, ConfigError, "privacy: 'hide' is not one of"),
        ({"identifiers": other}, ConfigError, "privacy is off"),
        ({"out": kept, "privacy": "drop", "identifiers": kept}, ConfigError, "same file"),
        ({"privacy": "drop", "identifiers": source}, ConfigError, "replace an input"),
        ({"out": kept, "evaluation": [kept]}, ConfigError, "replace an input"),
        ({"evaluation": [tmp_path / "none.jsonl"]}, DataError, "does not exist"),
        ({"evaluation": [f"{exam}:stem"]}, DataError, "no question"),
    ]
    for arguments, kind, what in orders:
        with pytest.raises(kind, match=what):
            filter(source, **arguments, progress=False)
    assert not kept.exists()
    assert read(source) == ROWS


def test_the_verb_writes_three_files_and_says_what_became_of_the_rows(tmp_path: Path, exam: Path) -> None:
    source, (kept, rejected, listed) = (
        write(tmp_path / "in.jsonl", UNSAFE),
        (tmp_path / name for name in "kri"),
    )
    arguments = (source, "--out", kept, "--rejected", rejected, "--evaluation", exam, "--privacy", "report")
    missing = run(*arguments)
    assert isinstance(missing.exception, ConfigError)
    assert "--identifiers" in str(missing.exception)
    result = run(*arguments, "--identifiers", listed)
    assert result.exit_code == 0, result.output
    for line in (
        "5 rows, compared with 0 known texts and with each other: 2 kept, 2 evaluation-overlap, 1 near-duplicate",
        "overlap with exam.jsonl (1 item): 2 rows",
        "personal identifiers: NAME 2, PHONE 1",
        "rows compared 3/3",
    ):
        assert line in result.output
    assert ids(read(kept)) == ["new", "named"]
    assert ids(read(rejected)) == ["leak", "told", "again"]
    assert len(read(listed)) == 3
    assert run(*arguments, "--privacy", "hide").exit_code == 2
