"""Seed files: the shipped one is broad and sound in form; broken ones are named by file and line."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from datagen.dedup import RougeFilter, rouge_l
from datagen.errors import DataError
from datagen.quality import check_task
from datagen.records import SeedTask
from datagen.seeds import load_seeds, odd_labels


@pytest.fixture(scope="module")
def seeds() -> list[SeedTask]:
    return load_seeds()


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_shipped_seeds_are_many_and_complete(seeds: list[SeedTask]) -> None:
    assert len(seeds) >= 60
    for seed in seeds:
        assert all([seed.instruction, seed.input, seed.type, seed.topic, seed.view, seed.difficulty]), seed
        assert not seed.extra


def test_shipped_seeds_cover_types_views_topics_and_difficulties(seeds: list[SeedTask]) -> None:
    types = Counter(seed.type for seed in seeds)
    assert {
        "Open Q&A",
        "Chat",
        "Text generation",
        "Rewriting",
        "Summarization",
        "Classification",
        "Multiple-choice Q&A",
        "USMLE-style Q&A",
        "Single-hop reasoning",
        "Multi-hop reasoning",
        "Information extraction",
        "Plain-language translation",
        "Calculation",
    } == set(types)
    assert min(types.values()) >= 3
    assert len({seed.topic for seed in seeds}) >= 60
    views = {seed.view for seed in seeds}
    assert len(views) >= 40
    assert {"Patient", "Caregiver", "Nurse", "Physician", "Student", "Pharmacist", "Researcher"} <= views
    levels = Counter(seed.difficulty for seed in seeds)
    assert set(levels) == set("12345")
    assert min(levels.values()) >= 10


def test_about_a_third_of_the_shipped_seeds_has_no_input(seeds: list[SeedTask]) -> None:
    share = sum(seed.normal_input() == "" for seed in seeds) / len(seeds)
    assert 0.25 <= share <= 0.42


def test_shipped_seeds_are_no_near_duplicates_of_each_other(seeds: list[SeedTask]) -> None:
    assert max(rouge_l(a.instruction, b.instruction) for a, b in combinations(seeds, 2)) < 0.7


def test_shipped_seeds_are_not_those_of_alpacare(seeds: list[SeedTask], real_data: Path) -> None:
    theirs = load_seeds(real_data / "med_seed.json")
    assert len(theirs) == 167
    assert max(rouge_l(a.instruction, b.instruction) for a in seeds for b in theirs) < 0.7
    inputs = RougeFilter((seed.normal_input() for seed in theirs), 0.5)
    assert all(inputs.nearest(seed.normal_input()) is None for seed in seeds)


def test_shipped_seeds_pass_the_checks_that_new_tasks_must_pass(seeds: list[SeedTask]) -> None:
    assert [(seed.instruction, check_task(seed)) for seed in seeds if check_task(seed)] == []


def test_long_questions_where_the_method_wants_them(seeds: list[SeedTask]) -> None:
    for seed in seeds:
        if seed.type == "USMLE-style Q&A":
            assert len(seed.input.split()) > 50
            assert all(f"\n{letter}. " in seed.input for letter in "ABCD")


def test_shipped_seeds_hold_no_personal_data(seeds: list[SeedTask]) -> None:
    """No titles with names, dates finer than a year, telephone numbers, addresses of mail or web."""
    personal = re.compile(
        r"\b(?:Mrs?|Ms|Dr)\.? [A-Z][a-z]+"
        r"|\b\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|@\w+\.|https?:|\b\d{3}[- ]\d{3,4}[- ]\d{4}\b"
    )
    assert [seed for seed in seeds if personal.search(f"{seed.instruction} {seed.input}")] == []


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "a b c"}\n{"instruction": \n', encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON") as caught:
        load_seeds(path)
    assert f"{path}:2" in str(caught.value)


def test_empty_instructions_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.jsonl", [{"instruction": " "}, {"instruction": "a"}, {"instruction": ""}])
    with pytest.raises(DataError, match="empty instruction") as caught:
        load_seeds(path)
    assert f"{path}:1, {path}:3" in str(caught.value)


def test_repeated_tasks_are_named_with_their_first_place(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Classify the lesion.", "input": "red"},
        {"instruction": "Classify the lesion.", "input": "blue"},
        {"instruction": "classify  the lesion", "input": "Red."},
        {"instruction": "What is gout?", "input": "<noinput>"},
        {"instruction": "What is gout?"},
    ]
    path = write(tmp_path / "seeds.jsonl", rows)
    with pytest.raises(DataError, match="repeats a task") as caught:
        load_seeds(path)
    message = str(caught.value)
    assert f"{path}:3 (as {path}:1), {path}:5 (as {path}:4)" in message
    assert f"{path}:2" not in message


@pytest.mark.parametrize(("text", "what"), [("", "empty"), ("[]", "contains no tasks")])
def test_files_without_a_task_are_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "seeds.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=what):
        load_seeds(path)


def test_missing_field_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.jsonl", [{"instruction": "a b"}, {"input": "a"}])
    with pytest.raises(DataError, match="'instruction' is missing") as caught:
        load_seeds(path)
    assert f"{path}:2" in str(caught.value)


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.jsonl", [{"instruction": "a b", "author": "x"}])
    assert load_seeds(path)[0].extra == {"author": "x"}


def test_unknown_and_missing_labels_are_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    known = {
        "type": "Rewrites",
        "topic": "Rare kidney stones",
        "view": "Dialysis nurses",
        "difficulty": "3/5",
    }
    rows = [
        {"instruction": "a", **known},
        {"instruction": "b", **known, "type": "Sumarisation"},
        {"instruction": "c", **known, "difficulty": "7/10", "view": "Snake charmer"},
        {"instruction": "d", **known, "type": "sumarisation", "topic": ""},
        *({"instruction": f"e{n}", **known, "type": "Haiku"} for n in range(7)),
    ]
    path = write(tmp_path / "seeds.jsonl", rows)
    assert len(load_seeds(path)) == len(rows)
    assert odd_labels(path) == [
        f"{path}:2: type 'Sumarisation' is not known; did you mean 'Summarization'?",
        f"{path}:3: view 'Snake charmer' is not known; it is kept as it is",
        f"{path}:3: difficulty '7/10' is not known; expected 1 to 5",
        f"{path}:4: type 'sumarisation' is not known; did you mean 'Summarization'?",
        f"{path}:4: no topic is given",
        ", ".join(f"{path}:{n}" for n in range(5, 10))
        + " and 2 more: type 'Haiku' is not known; it is kept as it is",
    ]


def test_the_shipped_and_the_clinicians_seeds_have_no_odd_label(real_data: Path) -> None:
    assert odd_labels() == odd_labels(real_data / "med_seed.json") == []
