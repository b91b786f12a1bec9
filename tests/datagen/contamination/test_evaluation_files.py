"""Evaluation sets as their authors publish them are read; others are refused with the way to name their fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.contamination.evaluation_files import absolute, content_hash, read_evaluation, split_fields
from datagen.errors import DataError


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("alpaca.json", [{"instruction": "Sort.", "input": "c, a"}], ("Sort.", "c, a", (), ())),
        ("alpaca2.json", [{"instruction": "Say hello.", "input": "<noinput>"}], ("Say hello.", "", (), ())),
        (
            "medqa.jsonl",
            '{"question": "Which?", "options": {"A": "Lead", "B": "Tin"}, "answer": "B", "meta_info": "step1"}\n',
            ("Which?", "", (), ("Lead", "Tin")),
        ),
        (
            "ori_pqal.json",
            {"123": {"QUESTION": "Does it?", "CONTEXTS": ["One.", "Two."], "LONG_ANSWER": "Yes."}},
            ("Does it?", "", ("One.", "Two."), ()),
        ),
        (
            "medmcqa.json",
            '{"question": "Which?", "opa": "Lead", "opb": "Tin", "cop": 1}\n{"question": "Who?", "opa": "I"}\n',
            ("Which?", "", (), ("Lead", "Tin")),
        ),
        (
            "headqa.json",
            {"version": 1, "data": [{"qtext": "Which?", "answers": [{"aid": 1, "atext": "Lead"}]}]},
            ("Which?", "", (), ("Lead",)),
        ),
        (
            "mmlu.csv",
            'question,A,B,answer\n"Which, then?",Lead,Tin,B\n',
            ("Which, then?", "", (), ("Lead", "Tin")),
        ),
        ("mine.tsv", "id\tquery\nq1\tWhich?\n", ("Which?", "", (), ())),
    ],
)
def test_the_usual_sets_are_read(tmp_path: Path, name: str, content: object, expected: Any) -> None:
    item = read_evaluation(save(tmp_path / name, content)).items[0]
    assert (item.question, item.input, item.passages, item.choices) == expected


def test_items_carry_their_ids_or_places(tmp_path: Path) -> None:
    path = save(tmp_path / "set.jsonl", '{"question": "a?", "id": 7}\n\n{"question": "b?"}\n')
    read = read_evaluation(path)
    assert [(item.id, item.where) for item in read.items] == [("7", f"{path}:1"), ("", f"{path}:3")]
    assert (read.name, read.fields, len(read.sha256)) == ("set.jsonl", ("question",), 64)
    assert read.sha256 == content_hash(path)


def test_fields_can_be_named(tmp_path: Path) -> None:
    path = save(tmp_path / "exam.jsonl", '{"riddle": "Which?", "lure": ["Lead", "Tin"], "key": 1}\n')
    with pytest.raises(DataError) as caught:
        read_evaluation(path)
    words = str(caught.value)
    assert "fields 'riddle', 'lure', 'key'" in words
    assert f"{path}:FIELD,FIELD" in words
    assert f"{path}:1" in words
    item = read_evaluation(f"{path}:riddle,lure").items[0]
    assert (item.question, item.passages) == ("Which?", ("Lead", "Tin"))
    assert split_fields(f"{path}:riddle,lure") == (path, ("riddle", "lure"))
    assert absolute(f"{path}:riddle,lure") == f"{path}:riddle,lure"
    with pytest.raises(DataError, match="no question"):
        read_evaluation(f"{path}:title")
    with pytest.raises(DataError, match="no row of the evaluation file has the named field") as missing:
        read_evaluation(f"{path}:riddle,lures")
    assert "'lures'" in str(missing.value)
    odd = save(tmp_path / "odd:name", '{"question": "Which?"}\n')
    assert read_evaluation(odd).items[0].question == "Which?"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("set.parquet", "PAR1 and more", "unknown format"),
        ("set.txt", "What is gout?\n", "unknown format"),
        ("set.jsonl", "", "unknown format"),
        ("set.jsonl", '{"question": "a?"}\n{"question": \n', "not valid JSON"),
        ("set.jsonl", '{"question": "a?"}\n{"question": "  "}\n', "no question"),
        ("set.json", '{"a": 1}', "no question"),
        ("set.csv", "question,A\n", "no item"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: str, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_evaluation(save(tmp_path / name, content))
    assert name in str(caught.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_evaluation(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        content_hash(tmp_path)


def test_real_sets_are_read_as_they_are(real_data: Path) -> None:
    sizes = {
        "medinstruct_test.jsonl": (216, ("instruction",)),
        "medqa_usmle_4opt_test.jsonl": (1273, ("question", "options")),
        "pubmedqa_test.jsonl": (500, ("question", "contexts")),
        "med_seed.json": (167, ("instruction", "input")),
    }
    for name, expected in sizes.items():
        read = read_evaluation(real_data / name)
        assert (len(read.items), read.fields) == expected
