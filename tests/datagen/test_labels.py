"""Labels: the spellings that clinicians and models use become one, and unknown ones are kept and counted."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.labels import (
    FIELDS,
    OTHER,
    group,
    is_known,
    nearest_known,
    normalise,
    normalise_difficulty,
)
from datagen.records import SeedTask, read_records
from datagen.seeds import load_seeds


@pytest.mark.parametrize(
    ("one", "spellings"),
    [
        (
            "Rewriting",
            "Rewrite|Rewrites|REWRITING|rewriting task|Rewrite Tasks|re-writing|Type: Rewrite|*Rewrites*",
        ),
        (
            "Open Q&A",
            "Open QA|Open-ended Q&A|open q & a|Open-Ended Question Answering|Open Questions|Q&A|Open Q and A.",
        ),
        (
            "Multiple-choice Q&A",
            "MCQ|MCQs|Multiple choice question|Multiple-Choice Questions|multiple choice|Multiple Choice Q&A"
            "|Multiple-choice Question Answering|Multiple-Choice Q&A (single best answer)",
        ),
        ("USMLE-style Q&A", "USMLE style Q&A|USMLE Style Q&A|usmle|USMLE-style question|USMLE Questions"),
        (
            "Multi-hop reasoning",
            "Multiple-hop Reasoning|Multi-Hop reasoning|multihop reasoning|Multi-step reasoning",
        ),
        ("Summarization", "Summarisation|Summaries|summarize|Text summarisations|Summarizing"),
        ("Classification", "Classifications|Classification Task|categorisation"),
        ("Text generation", "Text Generations|generation|Creative writing|Letter writing"),
        ("Chat", "chats|Dialogue|Conversations"),
    ],
)
def test_spellings_of_a_type_become_one(one: str, spellings: str) -> None:
    assert {spelling: normalise("type", spelling) for spelling in spellings.split("|")} == dict.fromkeys(
        spellings.split("|"), one
    )


@pytest.mark.parametrize(
    ("one", "spellings"),
    [
        (
            "Patient",
            "patient|Patients|Patient's view|Patient’s Perspective|View: Patient|the patients' perspective",
        ),
        (
            "Medical student",
            "Medical Students|Medical student's view|Student (Medicine)|USMLE Student|Med student",
        ),
        (
            "Expert",
            "Experts|Expert View|Medical Expert|Expert Clinician|Specialist Doctor|Medical Expert View",
        ),
        ("Dietitian", "Dietician|dietitians|Nutritionist"),
        ("Genetic counselor", "Genetic Counsellor|genetic counselors"),
        ("Intensive care nurse", "Intensive Care Unit (ICU) Nurse|ICU nurses|Critical-care nurse"),
        ("Physician", "Doctor|MD|Medical Practitioner|physicians"),
    ],
)
def test_spellings_of_a_view_become_one(one: str, spellings: str) -> None:
    assert {spelling: normalise("view", spelling) for spelling in spellings.split("|")} == dict.fromkeys(
        spellings.split("|"), one
    )


@pytest.mark.parametrize(
    ("spelling", "one"),
    [
        ("Diagnoses", "Diagnosis"),
        ("Clinical Diagnoses", "Diagnosis"),
        ("Genetic", "Genetics"),
        ("Treatments", "Treatment"),
        ("Disease", "Diseases"),
        ("Haematology", "Hematology"),
        ("Paediatrics", "Pediatrics"),
        ("GENERAL MEDICINE", "General medicine"),
        ("Topic: medical education", "Medical education"),
        ("Snake Bites", "Snake bite"),
        ("HIV & AIDS", "HIV & AIDS"),
        ("mRNA Vaccines", "mRNA vaccine"),
        ("Non-Hodgkin Lymphoma", "Non-Hodgkin lymphoma"),
        ("", ""),
    ],
)
def test_topics(spelling: str, one: str) -> None:
    assert normalise("topic", spelling) == one


@pytest.mark.parametrize(
    ("spelling", "level"),
    [
        ("3", "3"),
        (" 3. ", "3"),
        ("Difficulty: 3/5", "3"),
        ("**Difficulty level: 4**", "4"),
        ("Level 2 (easy)", "2"),
        ("5 out of 5", "5"),
        ("1 - very easy", "1"),
        ("4.0", "4"),
        ("３", "3"),
        ("★★★☆☆", "3"),
        ("Very Hard", "5"),
        ("moderate", "3"),
        ("two", "2"),
        ("7/10", "7/10"),
        ("3-4", "3-4"),
        ("3.5", "3.5"),
        ("3 or 4", "3 or 4"),
        ("12", "12"),
        ("0", "0"),
        ("unsure", "Unsure"),
        ("", ""),
    ],
)
def test_difficulties(spelling: str, level: str) -> None:
    assert normalise_difficulty(spelling) == level


@pytest.mark.parametrize(
    ("field", "label", "expected"),
    [
        ("view", "Dialysis nurses", "Nursing"),
        ("view", "Nursing student", "Student or trainee"),
        ("view", "Psychotherapist", "Allied health"),
        ("view", "Patient’s spouse", "Patient or public"),
        ("view", "Snake charmer", OTHER),
        ("topic", "Pediatric cardiology", "Mother and child"),
        ("topic", "Hyperkalaemia", "Kidney and electrolytes"),
        ("topic", "Gardening", OTHER),
        ("topic", "", ""),
        ("type", "MCQs", "Multiple-choice Q&A"),
        ("difficulty", "3/5", "3"),
    ],
)
def test_groups(field: str, label: str, expected: str) -> None:
    assert group(field, label) == expected


def counts_of(field: str, labels: Iterable[str]) -> Counter[str]:
    return Counter(normalise(field, label) for label in labels)


def test_unknown_labels_are_kept_in_tidy_form() -> None:
    counted = counts_of(
        "type", ["Haiku Writing Contest", "haiku  writing contests", "Rewrites", "MCQ", "mcq"]
    )
    assert counted == {"Haiku writing contest": 2, "Rewriting": 1, "Multiple-choice Q&A": 2}
    assert not is_known("type", "haiku  writing contests")
    assert nearest_known("type", "Sumarizaton") == "Summarization"
    assert nearest_known("view", "Pateint") == "Patient"
    assert nearest_known("difficulty", "7/10") is None
    assert not is_known("difficulty", "7/10")
    assert is_known("topic", "Rare diseases of the kidney")


def test_every_shipped_seed_carries_labels_in_their_one_spelling() -> None:
    labels = {(field, getattr(seed, field)) for seed in load_seeds() for field in FIELDS}
    assert all(is_known(field, label) for field, label in labels)
    others = {label: normalise(field, label) for field, label in labels if normalise(field, label) != label}
    assert others == {
        "Specialist": "Expert",
        "Clinical teacher": "Educator",
        "Medical training": "Medical student",
    }


def test_clinicians_labels_fall_together(real_data: Path) -> None:
    seeds = read_records(real_data / "med_seed.json", SeedTask)
    counted = {field: counts_of(field, (getattr(seed, field) for seed in seeds)) for field in FIELDS}
    assert counted["type"] == {
        "Open Q&A": 25,
        "Text generation": 24,
        "Classification": 19,
        "Chat": 18,
        "Multiple-choice Q&A": 16,
        "Summarization": 16,
        "Rewriting": 15,
        "Single-hop reasoning": 13,
        "USMLE-style Q&A": 11,
        "Multi-hop reasoning": 10,
    }
    assert counted["difficulty"] == {"1": 24, "2": 41, "3": 51, "4": 37, "5": 14}
    assert len(counted["view"]) <= 50 < len({seed.view for seed in seeds})
    assert len(counted["topic"]) <= 55 < len({seed.topic for seed in seeds})
    assert all(is_known(field, getattr(seed, field)) for seed in seeds for field in FIELDS)
    assert Counter(group("view", seed.view) for seed in seeds)[OTHER] == 0


def test_the_machine_spelt_labels_of_real_questions_are_kept_apart(real_data: Path) -> None:
    """MedQuAD's topics and types were never seen here: each keeps its words, and none is lost."""
    rows = [json.loads(line) for line in (real_data / "medquad_valid.jsonl").read_text("utf-8").splitlines()]
    topics = [str(row.get("topic", "")) for row in rows]
    counted = counts_of("topic", topics)
    assert counted.total() == len(topics)
    assert len(counted) >= 0.9 * len(set(topics))


@given(st.sampled_from(FIELDS), st.text(max_size=40))
def test_normalising_twice_changes_nothing(field: str, label: str) -> None:
    once = normalise(field, label)
    assert normalise(field, once) == once
    assert isinstance(group(field, label), str)


@given(
    st.sampled_from(("type", "topic", "view")), st.sampled_from(["nurse", "gout", "Haiku", "ICU chaplain"])
)
def test_case_of_plain_words_does_not_matter(field: str, label: str) -> None:
    assert normalise(field, label.lower()).lower() == normalise(field, label.upper()).lower()
