"""Whole runs of the verb against two loopback services: what is cut, leaked or unfit is named and not published."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_server import WORDS, Scripted, ScriptedServer, text_of
from typer.testing import CliRunner, Result

from alpacare_jax.cli import app
from datagen.ledger import Ledger
from datagen.records import SeedTask, read_objects, write_records

Answer = Callable[[str], Scripted | str]
WRITER_KEY, ANSWER_KEY = "sk-writer-0123456789abcdef", "sk-answer-fedcba9876543210"


def alpacare(*arguments: object) -> Result:
    run = CliRunner().invoke(app, [str(each) for each in arguments])
    assert run.exit_code in (0, 1), f"{run.output}\n{run.exception}"
    return run


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_objects(path)]


def as_json(tasks: Sequence[SeedTask]) -> str:
    return json.dumps({"tasks": [{**task.to_dict(), "difficulty": int(task.difficulty)} for task in tasks]})


def task(instruction: str, given: str = "<noinput>", kind: str = "Open Q&A") -> SeedTask:
    return SeedTask(instruction, given, kind, "Medicine", "Nurse", "3")


class Teachers:
    """A task writer held to a schema and an answerer elsewhere; each takes its own model and key alone.

    ``write`` gives the reply to the n-th request for tasks; ``answer`` the one to an answer's request.
    """

    def __init__(self, write: Callable[[int], Scripted | str], answer: Answer) -> None:
        self._write, self._answer = write, answer
        self.writer = ScriptedServer(self._write_tasks)
        self.answerer = ScriptedServer(self._answer_task)

    def _write_tasks(self, body: dict[str, Any], tried: int) -> Scripted | str:
        if body["model"] != "writer" or body["response_format"]["type"] != "json_schema":
            return Scripted("no such model, or no schema", 404)
        return self._write(self.writer.count - 1)

    def _answer_task(self, body: dict[str, Any], tried: int) -> Scripted | str:
        if body["model"] != "answerer" or "response_format" in body:
            return Scripted("no such model, or a schema", 404)
        return self._answer(body["messages"][-1]["content"])

    def run(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> tuple[Path, Result]:
        monkeypatch.setenv("WRITER_KEY", WRITER_KEY)
        monkeypatch.setenv("ANSWER_KEY", ANSWER_KEY)
        seeds, work = folder / "seeds.jsonl", folder / "work"
        write_records(
            seeds,
            [
                task(f"Seed task {word}?", kind=kind)
                for word, kind in zip("abc", ("Chat", "Rewriting", "Open Q&A"), strict=True)
            ],
        )
        with self.writer, self.answerer:
            run = alpacare(
                *("synthesize", "--work", work, "--seeds", seeds, "--format", "json_schema"),
                *("--base-url", self.writer.base_url, "--model", "writer", "--api-key-env", "WRITER_KEY"),
                *("--answer-base-url", self.answerer.base_url, "--answer-model", "answerer"),
                *("--answer-api-key-env", "ANSWER_KEY", *options),
            )
        assert set(self.writer.authorizations) == {f"Bearer {WRITER_KEY}"}
        assert set(self.answerer.authorizations) <= {f"Bearer {ANSWER_KEY}"}
        for path in work.rglob("*"):
            content = path.read_bytes()
            assert WRITER_KEY.encode() not in content
            assert ANSWER_KEY.encode() not in content
        return work, run


def test_cut_tasks_and_cut_answers_of_two_teachers_are_marked_and_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(number: int) -> Scripted:
        draw = random.Random(number)
        tasks = [task(f"Compare {' '.join(draw.sample(WORDS, 6))} briefly.") for _ in range(3)]
        if number == 1:
            return Scripted(as_json(tasks)[:-70], finish_reason="length")
        return Scripted(as_json(tasks))

    answered: list[str] = []

    def answer(question: str) -> Scripted:
        answered.append(question)
        cut = len(answered) in (2, 5)
        return Scripted("A whole sentence in any case.", finish_reason="length" if cut else "stop")

    teachers = Teachers(write, answer)
    options = ("--target", 8, "--tasks-per-request", 3, "--concurrency", 1)
    work, _ = teachers.run(tmp_path, monkeypatch, *options)
    cut = [answered[1], answered[4]]
    funnel = json.loads((work / "funnel.json").read_text())
    assert (funnel["tasks_kept"], funnel["instructions"]) == (8, 6)
    assert funnel["tasks_rejected"]["truncated"] == 1
    assert funnel["answers_rejected"] == {"unfinished": 2}
    marked = [row for row in rows(work / "rejected.jsonl") if row.get("finish_reason") == "length"]
    assert len(marked) == 2
    assert all(any(row["instruction"] in question for question in cut) for row in marked)
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        reasons = Counter((entry.id[:1], entry.finish_reason) for entry in ledger.entries("answers"))
        assert sorted(reasons.values()) == [2, 6]
    out = tmp_path / "published"
    alpacare("publish", work, "--out", out)
    published = [row["instruction"] for row in rows(out / "instructions.jsonl")]
    assert len(published) == 6
    assert not any(instruction in question for instruction in published for question in cut)


def reworded(text: str, way: int) -> SeedTask:
    """Hide a test item as a careless teacher would, at least thirteen of its words in a row left as they are."""
    words = text.split()
    middle = len(words) // 2
    if way == 0:
        return task(f"Please read on and reply as a nurse would: {text}")
    if way == 1:
        return task(" ".join(["Kindly,", "then,", *words[2:]]))
    if way == 2:
        return task("Reply to this message of a patient.", f"She wrote today. {text} Thank you in advance!")
    if way == 3:
        return task(text.upper().replace(",", " -").replace(".", " ..."))
    half = words[:middle] if middle >= 14 else words[:-2]
    return task(" ".join([*half, "and", "so", "on?"]))


def test_items_of_a_real_test_set_that_a_teacher_emits_are_all_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path
) -> None:
    exam = real_data / "medinstruct_test.jsonl"
    long = [row["instruction"] for row in rows(exam) if 24 <= len(row["instruction"].split()) <= 90]
    leaks = [reworded(text, way) for way, text in enumerate(random.Random(7).sample(long, 5))]
    recalled = random.Random(8).choice(long)
    fresh = [task(f"Compare {a}, {b} and fever.") for a, b in zip(WORDS[:4], WORDS[4:8], strict=True)]

    def answer(question: str) -> str:
        return f"A patient once asked me this: {recalled} It was gout." if WORDS[0] in question else "Rest."

    teachers = Teachers(lambda number: as_json([*leaks, *fresh]), answer)
    options = ("--target", 9, "--tasks-per-request", 9, "--max-requests", 1, "--evaluation", exam)
    work, run = teachers.run(tmp_path, monkeypatch, *options)
    rejected = [row for row in rows(work / "rejected.jsonl") if row["reason"] == "evaluation-overlap"]
    assert {row["instruction"] for row in rejected} == {each.instruction for each in (*leaks, fresh[0])}
    assert "overlap with medinstruct_test.jsonl: 6 tasks and answers rejected" in run.output
    asked = "\n".join(text_of(body) for body in teachers.answerer.bodies)
    assert not any(leak.instruction in asked for leak in leaks if leak.normal_input() == "")
    kept = {row["instruction"] for row in rows(work / "instructions.jsonl")}
    assert kept == {each.instruction for each in fresh[1:]}
    (file,) = json.loads((work / "contamination.json").read_text())["files"]
    assert (file["tasks_rejected"], file["answers_rejected"]) == (5, 1)


UNFIT = {
    "empty-instruction": task("?!"),
    "wrong-language": task("¿Cuáles son los síntomas de la gota y cómo se trata?"),
    "instruction-too-short": task("Gout?"),
    "instruction-too-long": task("Explain gout " + "and its many causes " * 40),
    "input-too-long": task("Sum up the note.", "He was seen again. " * 200),
    "refusal": task("I'm sorry, but I cannot write this task."),
    "asks-for-media": task("Describe what the attached image shows."),
    "no-choices": task("Choose the right answer.", "Which vaccine is live?", "Multiple-choice Q&A"),
    "unfinished": task("Explain the difference between gout and"),
    "input-missing": task("Summarize the following note."),
    "input-is-placeholder": task("Shorten the letter.", "[insert the letter here]"),
    "input-echoes-instruction": task("What are the signs of lupus?", "What are the signs of lupus?"),
}
ANSWERS = {
    "anemia": ("empty", "--"),
    "asthma": ("unfinished", "It comes from many things, such as dust, pollen and"),
    "gout": ("answer-too-long", "word " * 2001 + "end."),
    "sepsis": ("refusal", "I'm sorry, but I can't help with that."),
    "stroke": ("asks-for-media", "Of course. Please upload the image of the scan."),
    "eczema": ("wrong-language", "El eccema es una enfermedad de la piel que se debe a una inflamación."),
    "malaria": ("repeats-itself", "Rest. " + "Drink water. " * 9),
    "measles": ("", "It is caused by a virus."),
}


def test_every_reason_of_quality_is_given_once_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {
        word: task(f"What causes {word} in {place}?")
        for word, place in zip(ANSWERS, WORDS[20:], strict=False)
    }

    def answer(question: str) -> str:
        return next(text for word, (_, text) in ANSWERS.items() if f"causes {word}" in question)

    all_of_them = [*UNFIT.values(), *fit.values()]
    many = len(all_of_them)
    teachers = Teachers(lambda number: as_json(all_of_them), answer)
    options = ("--target", many, "--tasks-per-request", many, "--max-requests", 1)
    work, _ = teachers.run(tmp_path, monkeypatch, *options)
    funnel = json.loads((work / "funnel.json").read_text())
    assert funnel["tasks_rejected"] == dict.fromkeys(UNFIT, 1)
    assert funnel["answers_rejected"] == {reason: 1 for reason, _ in ANSWERS.values() if reason}
    found = {row["instruction"].strip(): row["reason"] for row in rows(work / "rejected.jsonl")}
    wanted = {each.instruction.strip(): reason for reason, each in UNFIT.items()}
    wanted |= {fit[word].instruction: reason for word, (reason, _) in ANSWERS.items() if reason}
    assert found == wanted
    assert [row["instruction"] for row in rows(work / "instructions.jsonl")] == [fit["measles"].instruction]
