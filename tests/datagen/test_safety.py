"""A run whose teacher writes identifiers and test questions: what is dropped, masked, reported, and never paid for."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer, asks_for_tasks, text_of

from datagen.client import Service
from datagen.errors import ConfigError, DataError
from datagen.records import Instruction, SeedTask, read_objects, read_records, write_records
from datagen.settings import Settings, read_settings
from datagen.synthesize import Funnel, status, synthesize
from datagen.work.plan import plan

LEAKED = (
    "A 29-year-old potter has numb fingertips after glazing dishes with an unknown powder for two years; "
    "which metal is the likely cause?"
)
NAMED = "Write a letter of discharge for Mr. Okonkwo, born on 3 May 1961."
PLAIN = "Explain how vaccines work to a school class."
TALKS = "Describe a typical day in a diabetes clinic."
RECALLS = "Give one practice question on poisoning."
TASKS = (LEAKED, NAMED, PLAIN, TALKS, RECALLS)


def teach(body: dict[str, Any], tried: int = 1) -> str:
    if asks_for_tasks(body):
        return "###\n".join(
            f"{number}. Type: Open Q&A\nTopic: Medicine\nView: Nurse\nDifficulty: 2\n"
            f"Instruction: {task}\nInput: <noinput>\n"
            for number, task in enumerate(TASKS, start=4)
        )
    if TALKS in text_of(body):
        return "It starts early. Dr. Amara Singh sees twenty people. Call 212-555-0143 to join."
    if RECALLS in text_of(body):
        return f"Here it is. {LEAKED} It is lead."
    return "A short and complete answer."


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    seeds = tmp_path / "seeds.jsonl"
    write_records(seeds, [SeedTask(f"Seed {word}?", "", "Open Q&A") for word in ("one", "two", "three")])
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"id": "e7", "question": LEAKED}) + "\n")
    service = Service("http://127.0.0.1:1/v1", "scripted")
    return Settings(
        service, service, seeds, target=5, tasks_per_request=5, max_requests=1, evaluation_files=(str(exam),)
    )


def run(settings: Settings, work: Path) -> tuple[Funnel, list[str]]:
    with ScriptedServer(teach) as server:
        service = Service(server.base_url, "scripted", timeout_s=5, concurrency=2)
        funnel = synthesize(dataclasses.replace(settings, teacher=service, answerer=service), work)
        asked = [text_of(body) for body in server.bodies if not asks_for_tasks(body)]
    check_sums(funnel, work)
    return funnel, asked


def check_sums(funnel: Funnel, work: Path) -> None:
    assert funnel.tasks_found == funnel.tasks_kept + sum(funnel.tasks_rejected.values())
    assert funnel.answer_replies == funnel.instructions + sum(funnel.answers_rejected.values())
    rejected = (work / "rejected.jsonl").read_text().splitlines()
    assert len(rejected) == sum(
        sum(getattr(funnel, key).values()) for key in ("tasks_rejected", "answers_rejected")
    )


def test_a_test_question_is_neither_answered_nor_published(settings: Settings, tmp_path: Path) -> None:
    funnel, asked = run(settings, tmp_path / "work")
    assert funnel.tasks_rejected == {"evaluation-overlap": 1}
    assert funnel.answers_rejected == {"evaluation-overlap": 1}
    assert not any("potter" in text for text in asked)
    assert funnel.evaluation_overlaps == {"exam.jsonl": 2}
    rows = [row for _, row in read_objects(tmp_path / "work" / "rejected.jsonl")]
    assert [(row["evaluation_item"], row["overlap"], row["overlap_in"]) for row in rows] == [
        ("e7", "ngram", "instruction"),
        ("e7", "ngram", "answer"),
    ]
    report = json.loads((tmp_path / "work" / "contamination.json").read_text())
    assert report["files"][0]["tasks_rejected"] == report["files"][0]["answers_rejected"] == 1
    assert len(report["files"][0]["sha256"]) == 64
    assert [each["evaluation_item"] for each in report["overlaps"]] == ["e7", "e7"]
    assert "potter" not in json.dumps(report)
    assert all("potter" in row["overlap_text"] for row in rows)
    published = (tmp_path / "work" / "instructions.jsonl").read_text()
    assert "potter" not in published


def test_files_without_an_overlap_are_reported_too(settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("question\nHow long does a bruise stay blue?\n")
    both = dataclasses.replace(settings, evaluation_files=(*settings.evaluation_files, str(other)))
    funnel, _ = run(both, tmp_path / "work")
    assert funnel.evaluation_overlaps == {"exam.jsonl": 2, "other.csv": 0}
    files = json.loads((tmp_path / "work" / "contamination.json").read_text())["files"]
    assert [
        (file["file"], file["items"], file["tasks_rejected"], file["answers_rejected"]) for file in files
    ] == [
        ("exam.jsonl", 1, 1, 1),
        ("other.csv", 1, 0, 0),
    ]


def test_a_seed_out_of_an_evaluation_file_is_named(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.seeds is not None
    with settings.seeds.open("a") as file:
        file.write(json.dumps({"instruction": LEAKED}) + "\n")
    run(settings, tmp_path / "work")
    assert "overlaps with item e7 of exam.jsonl (ngram)" in caplog.text
    assert any("item e7" in each for each in plan(settings, tmp_path / "new").odd_labels)


def test_the_same_ledger_gives_the_same_reports(settings: Settings, tmp_path: Path) -> None:
    masked = dataclasses.replace(settings, privacy="mask")
    work = tmp_path / "work"
    names = ("privacy.jsonl", "contamination.json", "instructions.jsonl", "rejected.jsonl")
    run(masked, work)
    before = [(work / name).read_bytes() for name in names]
    _, asked = run(masked, work)
    assert asked == []
    assert [(work / name).read_bytes() for name in names] == before
    assert status(work).funnel.tasks_rejected == {"evaluation-overlap": 1}


def test_the_command_takes_files_and_a_policy(settings: Settings, tmp_path: Path) -> None:
    with ScriptedServer(teach) as server:
        flags = ["--base-url", server.base_url, "--model", "scripted", "--target", "5", "--max-requests", "1"]
        safety = ["--privacy", "drop", "--evaluation", settings.evaluation_files[0]]
        command = [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(tmp_path / "work")]
        run = subprocess.run(
            [*command, "--seeds", str(settings.seeds), "--tasks-per-request", "5", *flags, *safety],
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 1, run.stderr
    for line in (
        r"evaluation-overlap +1\n",
        r"personal-identifier +1\n",
        r"personal identifiers: NAME 2, DATE 1, PHONE 1; places in privacy.jsonl\n",
        r"overlap with exam.jsonl: 2 tasks and answers rejected; see contamination.json\n",
    ):
        assert re.search(line, run.stdout), run.stdout


def test_identifiers_are_reported_by_kind_and_place(settings: Settings, tmp_path: Path) -> None:
    funnel, _ = run(settings, tmp_path / "work")
    assert funnel.identifiers == {"NAME": 2, "DATE": 1, "PHONE": 1}
    texts = {each.id: each for each in read_records(tmp_path / "work" / "instructions.jsonl", Instruction)}
    found = []
    for _, row in read_objects(tmp_path / "work" / "privacy.jsonl"):
        assert row["action"] == "reported"
        found.append((row["kind"], getattr(texts[row["id"]], row["field"])[row["start"] : row["end"]]))
    assert found == [
        ("NAME", "Okonkwo"),
        ("DATE", "3 May 1961"),
        ("NAME", "Amara Singh"),
        ("PHONE", "212-555-0143"),
    ]
    assert "Okonkwo" not in (tmp_path / "work" / "privacy.jsonl").read_text()


def test_identifiers_are_dropped_before_they_are_paid_for(settings: Settings, tmp_path: Path) -> None:
    funnel, asked = run(dataclasses.replace(settings, privacy="drop"), tmp_path / "work")
    assert funnel.tasks_rejected == {"evaluation-overlap": 1, "personal-identifier": 1}
    assert funnel.answers_rejected == {"evaluation-overlap": 1, "personal-identifier": 1}
    assert not any("Okonkwo" in text for text in asked)
    rows = [row for _, row in read_objects(tmp_path / "work" / "rejected.jsonl")]
    assert [each["kind"] for row in rows for each in row.get("identifiers", [])] == [
        "NAME",
        "DATE",
        "NAME",
        "PHONE",
    ]
    actions = [row["action"] for _, row in read_objects(tmp_path / "work" / "privacy.jsonl")]
    assert actions == ["dropped"] * 4


def test_identifiers_are_masked_before_the_task_is_answered(settings: Settings, tmp_path: Path) -> None:
    funnel, asked = run(dataclasses.replace(settings, privacy="mask"), tmp_path / "work")
    assert funnel.tasks_rejected == {"evaluation-overlap": 1}
    assert not any("Okonkwo" in text for text in asked)
    assert any("Mr. [NAME], born on [DATE]." in text for text in asked)
    published = (tmp_path / "work" / "instructions.jsonl").read_text()
    assert "Dr. [NAME] sees twenty people. Call [PHONE] to join." in published
    rows = [row for _, row in read_objects(tmp_path / "work" / "privacy.jsonl")]
    assert [(row["kind"], row["action"]) for row in rows] == [
        (kind, "masked") for kind in ("NAME", "DATE", "NAME", "PHONE")
    ]


@pytest.mark.parametrize("policy", ["report", "drop", "mask"])
def test_a_missing_model_stops_the_run_before_it_costs_anything(
    settings: Settings, tmp_path: Path, policy: str
) -> None:
    with ScriptedServer(teach) as server:
        service = Service(server.base_url, "scripted")
        wrong = dataclasses.replace(
            settings, teacher=service, answerer=service, privacy=policy, privacy_model="en_core_web_nothing"
        )
        with pytest.raises(ConfigError, match="not installed"):
            synthesize(wrong, tmp_path / "work")
        assert server.count == 0


def test_nothing_is_looked_for_when_off(settings: Settings, tmp_path: Path) -> None:
    plain = dataclasses.replace(settings, privacy="off", evaluation_files=())
    funnel, _ = run(plain, tmp_path / "work")
    assert funnel.instructions == 5
    assert not (tmp_path / "work" / "privacy.jsonl").exists()
    assert not (tmp_path / "work" / "contamination.json").exists()


def test_the_work_folder_is_pinned_to_what_the_evaluation_files_hold(
    settings: Settings, tmp_path: Path
) -> None:
    work, exam = tmp_path / "work", Path(settings.evaluation_files[0])
    run(settings, work)
    moved = tmp_path / "elsewhere" / "exam.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(exam.read_bytes())
    same = dataclasses.replace(settings, evaluation_files=(str(moved),))
    run(same, work)
    moved.write_text(json.dumps({"question": PLAIN}) + "\n")
    with pytest.raises(DataError, match="another configuration") as caught:
        run(same, work)
    assert "evaluation_files: ['exam.jsonl " in str(caught.value)
    moved.unlink()
    with pytest.raises(DataError, match="evaluation file does not exist"):
        run(same, work)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privacy", "hide"),
        ("contamination_ngram", 2),
        ("contamination_rouge_l", 1.5),
        ("evaluation_files", "x"),
    ],
)
def test_impossible_settings_are_refused(key: str, value: object) -> None:
    service = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(ConfigError, match=key):
        read_settings([("file", {"teacher": service, key: value})])
