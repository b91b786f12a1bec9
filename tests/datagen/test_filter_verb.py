"""The verb ``alpacare filter`` as a person runs it: files in, files out, messages and exit status."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from alpacare_jax.cli import filter_verb
from datagen.dedup import rouge_l
from datagen.errors import ConfigError, DataError
from datagen.seeds import load_seeds

ROWS: list[dict[str, Any]] = [
    {"instruction": "Name five causes of chronic cough.", "id": "a", "note": {"kept": [1]}},
    {"instruction": "How is gout treated in old age?", "id": "b"},
    {"instruction": "Name six causes of chronic cough.", "id": "c", "note": {"kept": [2]}},
    {"instruction": "What is a hernia?", "id": "d"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(filter_verb.command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


def test_keeps_the_first_and_says_why_it_drops(tmp_path: Path, source: Path) -> None:
    kept, rejected = tmp_path / "kept.jsonl", tmp_path / "rejected.jsonl"
    result = run(source, "--out", kept, "--rejected", rejected)
    assert result.exit_code == 0, result.output
    assert read(kept) == [ROWS[0], ROWS[1], ROWS[3]]
    score = round(rouge_l(ROWS[0]["instruction"], ROWS[2]["instruction"]), 4)
    reason = {
        "reason": "near-duplicate",
        "nearest": ROWS[0]["instruction"],
        "nearest_at": f"{source}:1",
        "score": score,
    }
    assert read(rejected) == [{**ROWS[2], "rejected": reason}]
    assert "4 rows" in result.output
    assert "3 kept" in result.output
    assert "1 near-duplicate" in result.output


def test_threshold_is_the_users(tmp_path: Path, source: Path) -> None:
    run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", "--threshold", 0.9)
    assert read(tmp_path / "k") == ROWS
    assert read(tmp_path / "r") == []


def test_files_that_are_kept_already_count(tmp_path: Path, source: Path) -> None:
    first = write(tmp_path / "first.jsonl", [{"instruction": "what is a HERNIA"}])
    second = tmp_path / "second.json"
    second.write_text('[\n{"instruction": "How is gout treated in old age"}]', encoding="utf-8")
    run(
        source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", "--against", first, "--against", second
    )
    assert [row["id"] for row in read(tmp_path / "k")] == ["a"]
    places = {row["id"]: row["rejected"]["nearest_at"] for row in read(tmp_path / "r")}
    assert places == {"b": f"{second}:2", "c": f"{source}:1", "d": f"{first}:1"}


def test_both_of_a_pair_vanish_under_the_published_policy(tmp_path: Path, source: Path) -> None:
    result = run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", "--policy", "all-pairs")
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in read(tmp_path / "k")] == ["b", "d"]
    places = {row["id"]: row["rejected"]["nearest_at"] for row in read(tmp_path / "r")}
    assert places == {"a": f"{source}:3", "c": f"{source}:1"}


def test_known_rows_are_not_judged_under_the_published_policy(tmp_path: Path, source: Path) -> None:
    known = write(tmp_path / "known.jsonl", [{"instruction": "what is a HERNIA"}] * 2)
    options = ("--policy", "all-pairs", "--against", known)
    run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", *options)
    assert [row["id"] for row in read(tmp_path / "k")] == ["b"]
    assert {row["id"]: row["rejected"]["nearest_at"] for row in read(tmp_path / "r")}["d"] == f"{known}:1"


def test_new_rows_against_the_kept_ones_end_as_if_all_were_filtered_at_once(tmp_path: Path) -> None:
    chance = random.Random(3)
    words = [
        "causes",
        "signs",
        "of",
        "cough",
        "gout",
        "in",
        "old",
        "young",
        "adults",
        "children",
        "name",
        "list",
        "six",
        "five",
    ]
    rows = [{"instruction": " ".join(chance.choices(words, k=6)), "id": n} for n in range(120)]
    source = write(tmp_path / "all.jsonl", rows)
    run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", "--threshold", 0.6)
    old, new = write(tmp_path / "old.jsonl", rows[:70]), write(tmp_path / "new.jsonl", rows[70:])
    run(old, "--out", tmp_path / "k1", "--rejected", tmp_path / "r1", "--threshold", 0.6)
    options = ("--threshold", 0.6, "--against", tmp_path / "k1")
    run(new, "--out", tmp_path / "k2", "--rejected", tmp_path / "r2", *options)
    assert 10 < len(read(tmp_path / "k")) < 110
    assert read(tmp_path / "k1") + read(tmp_path / "k2") == read(tmp_path / "k")


def test_shipped_seeds_count_on_request(tmp_path: Path) -> None:
    seed = load_seeds()[3]
    source = write(tmp_path / "in.jsonl", [{"instruction": seed.instruction}])
    run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r", "--seeds")
    assert read(tmp_path / "k") == []
    assert read(tmp_path / "r")[0]["rejected"]["nearest_at"] == "seed_tasks.jsonl:4"


def test_a_rejected_row_filtered_again_keeps_its_first_reason(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[2], "rejected": {"reason": "older"}}]
    run(write(tmp_path / "in.jsonl", rows), "--out", tmp_path / "k", "--rejected", tmp_path / "r")
    row = read(tmp_path / "r")[0]
    assert row["rejected"]["reason"] == "near-duplicate"
    assert row["rejected_before"] == {"reason": "older"}


def test_progress_is_shown_as_plain_lines(tmp_path: Path) -> None:
    rows = [{"instruction": f"question {number} {number * 7}"} for number in range(50)]
    result = run(write(tmp_path / "in.jsonl", rows), "--out", tmp_path / "k", "--rejected", tmp_path / "r")
    assert "rows compared 50/50" in result.output


@pytest.mark.parametrize("name", ["kept.jsonl", "rejected.jsonl"])
def test_results_are_not_overwritten_unasked(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / name).write_text("precious\n", encoding="utf-8")
    arguments = (source, "--out", tmp_path / "kept.jsonl", "--rejected", tmp_path / "rejected.jsonl")
    result = run(*arguments)
    assert isinstance(result.exception, DataError)
    assert "--overwrite" in str(result.exception)
    assert (tmp_path / name).read_text(encoding="utf-8") == "precious\n"
    assert run(*arguments, "--overwrite").exit_code == 0
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
    result = run(source, "--out", tmp_path / "k", "--rejected", tmp_path / "r")
    assert isinstance(result.exception, DataError)
    assert what in str(result.exception)
    assert f"{source}:5" in str(result.exception)
    assert not (tmp_path / "k").exists()
    assert not (tmp_path / "r").exists()


def test_impossible_orders_are_refused(tmp_path: Path, source: Path) -> None:
    orders = [
        (("--out", tmp_path / "k", "--rejected", tmp_path / "k"), "same file"),
        (("--out", source, "--rejected", tmp_path / "r", "--overwrite"), "replace an input"),
        (("--out", tmp_path / "k", "--rejected", tmp_path / "r", "--threshold", 7), "out of range"),
    ]
    for options, what in orders:
        result = run(source, *options)
        assert isinstance(result.exception, ConfigError)
        assert what in str(result.exception)
    assert read(source) == ROWS


def test_folder_as_output_is_refused(tmp_path: Path, source: Path) -> None:
    result = run(source, "--out", tmp_path, "--rejected", tmp_path / "r")
    assert isinstance(result.exception, DataError)
    assert "folder" in str(result.exception)
