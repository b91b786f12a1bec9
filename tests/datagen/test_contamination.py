"""Planted leaks of evaluation items are caught wherever they hide; unrelated questions pass."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.contamination import Benchmarks

VIGNETTE = (
    "A 34-year-old carpenter comes to the clinic because of three weeks of burning pain in his left heel worst with "
    "the first steps in the morning. Which structure is most likely inflamed?"
)
SHORT = "Which nerve is injured in wrist drop?"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def exam(tmp_path: Path) -> Benchmarks:
    choices = {"A": "Plantar fascia", "B": "Achilles tendon"}
    rows = [{"id": "q1", "question": VIGNETTE, "options": choices}, {"id": "q2", "question": SHORT}]
    return Benchmarks([write(tmp_path / "exam.jsonl", rows)])


def test_a_verbatim_question_is_caught_in_any_field(exam: Benchmarks) -> None:
    for instruction, given, field in (
        (VIGNETTE, "", "instruction"),
        ("Answer the question.", f"Note the case:\n{VIGNETTE} A. Achilles tendon B. Plantar fascia", "input"),
    ):
        leak = exam.check_task(instruction, given)
        assert leak is not None
        assert (leak.file, leak.item, leak.kind, leak.field) == ("exam.jsonl", "q1", "ngram", field)
        assert len(leak.evidence.split()) == 13
    answer = exam.check_answer(f"Here is an example. {VIGNETTE} It is the plantar fascia.")
    assert answer is not None
    assert answer.field == "answer"


def test_other_questions_pass(exam: Benchmarks) -> None:
    assert exam.check_task("Which nerve is injured in foot drop?") is None
    assert exam.check_task("A 34-year-old teacher has pain in her heel. What is the diagnosis?") is None
    assert exam.check_answer("The radial nerve is injured in wrist drop.") is None
