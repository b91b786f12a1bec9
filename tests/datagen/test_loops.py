"""Loops of a model that does not end, in any script, beside texts that repeat themselves for a reason."""

import json
import time
from pathlib import Path

import pytest

from datagen.loops import is_caught_in_a_loop
from datagen.quality import check_answer, check_task
from datagen.records import SeedTask

GOOD = "Gout is caused by crystals of uric acid, which form in a joint. "


@pytest.mark.parametrize(
    "text",
    [
        "rest " * 8,
        "The treatment is rest " + "rest " * 600 + ".",
        "Take " + "5 mg, " * 400 + "daily.",
        GOOD * 1 + "Drink enough water. " * 6,
        GOOD + "the patient should be referred to the hospital " * 5,
        GOOD + "and so on and so on and so on and so on and so on and so on and so on.",
        "\n".join(f"{n}. Drink water" for n in range(1, 8)),
        "\n".join(f"- Step {n}: Drink water." for n in range(1, 8)),
        "".join(f"Step {n}: Repeat step {n - 1} once. " for n in range(1, 80)),
        "".join(f"{word} and rest, rest or " for word in ["rest", "sleep", "drink"] * 18),
        "a" * 200,
        "ha" * 60,
        "." * 400,
        "=" * 400,
        "x" + "\n" * 60 + "y",
        "pain pain pain pain",
        "疼痛疼痛疼痛疼痛",
        "दर्द दर्द दर्द दर्द",
        "rest and drink rest and drink rest and drink rest",
        "Symptoms: " + " ".join(map(str, range(1, 60))),
        "| " * 400,
        "|  |  |  |\n" * 90,
        "ACGT" * 100,
        "rest. Rest! rest, REST rest; rest: rest rest- rest. rest",
        "哈" * 12,
        "休息" * 20,
        "休息，喝水。" * 8,
        "お大事に。" * 6,
        "ควรพักผ่อน" * 8,
        "отдых " * 8,
        "आराम " * 8,
        (
            GOOD
            + "It hurts most at night, in the big toe, and passes within two weeks, with or without drugs. "
        )
        * 3,
    ],
)
def test_loops_are_found(text: str) -> None:
    assert is_caught_in_a_loop(text)
    assert is_caught_in_a_loop("First, " + GOOD + "\n\n" + text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Push, push, push, push!",
        "ha ha ha ha",
        "It goes on and on and on and on.",
        "100, 93, 86, 79, 72, 65",
        "".join(f"{hour}:00 - measure the blood pressure and write it down\n" for hour in range(8, 18)),
        "".join(f"Day {n}: walk for ten minutes after breakfast.\n" for n in range(1, 8)),
        "Row, row, row your boat. Merrily, merrily, merrily, merrily, life is but a dream.",
        "Ah, ah, ah, ah, stayin' alive, stayin' alive",
        "lub-dub, lub-dub, lub-dub, lub-dub",
        "CAG" * 40,
        "A" * 40,
        "| Yes | Yes | Yes | Yes | Yes | No |",
        "|---|---|---|---|---|---|---|---|---|---|",
        "| BP | | | | | |\n| HR | | | | | |\n" * 2,
        "Name: " + "_" * 80 + "\n" + "=" * 120,
        "120, 120, 120, 120, 120, 120, 118",
        "".join(f"Day {n}: {n} tablets\n" for n in range(1, 15)),
        "".join(f"Day {n}: 5 mg\n" for n in range(1, 15)),
        "".join(f"| Day {n} | {120 + n}/80 | 72 |\n" for n in range(1, 31)),
        "".join(f"| {n}:00 | | | |\n" for n in range(24)),
        "\n".join(f"- Genetic Testing Registry: gene {n}" for n in range(30)),
        "Aspirin 100 mg tablet, heparin 5000 IU vial, warfarin 5 mg tablet, digoxin 0.25 mg tablet",
        "0 1 0 1 1 0 " * 20,
    ],
)
def test_repeats_of_good_texts_are_none(text: str) -> None:
    assert not is_caught_in_a_loop(text)


@pytest.mark.parametrize("heading", ["**{}**", "## {}", "{}:"])
def test_sections_under_headings_of_their_own_may_repeat(heading: str) -> None:
    meal = "\n- Breakfast: oats with berries\n- Lunch: lentil salad\n- Dinner: fish with greens\n"
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Day 5", "Day 6", "Day 7"]
    assert check_answer("".join(heading.format(day) + meal for day in days), "stop") is None
    assert check_answer("".join(f"## Step {n}\nRest.\n" for n in range(60)), "stop") == "repeats-itself"


@pytest.mark.parametrize(
    "numbers", ["1 2 3 4 5 6 7 8", "1\n2\n3\n4\n5\n6", "2, 4, 6, 8, 10, 12", "| 1 | 2 | 3 | 4 | 5 | 6 |"]
)
def test_numbers_that_rise_are_no_answer(numbers: str) -> None:
    assert check_answer(numbers, "stop") == "repeats-itself"
    assert check_answer(f"Count with me: {numbers}.", "stop") is None


def test_tasks_and_answers_in_loops_are_rejected() -> None:
    assert check_answer("Rest " + "and rest " * 30 + "now.", "stop") == "repeats-itself"
    assert check_task(SeedTask("Explain gout " + "gout " * 20)) == "repeats-itself"
    assert (
        check_task(SeedTask("Shorten the note.", "He has pain. " + "pain, " * 40 + "pain."))
        == "repeats-itself"
    )
    assert check_answer("\n".join(f"{n}. Drink water" for n in range(1, 5)), "stop") == "repeats-itself"


@pytest.mark.parametrize("unit", ["a", "rest ", "a b ", "1. a\n", " \n", "-", "word1 word2 ", "痛"])
def test_long_texts_take_time_in_proportion(unit: str) -> None:
    start = time.perf_counter()
    is_caught_in_a_loop(unit * (200_000 // len(unit)))
    assert time.perf_counter() - start < 3


def test_real_texts_are_caught_in_no_loop(real_data: Path) -> None:
    """Of 1,296 texts of models and 500 of NIH none is flagged."""
    rows = [json.loads(line) for line in (real_data / "medquad_valid.jsonl").read_text().splitlines()]
    texts = [row["output"] for row in rows]
    for name in ("medinstruct_test.jsonl", "gpt-4_medsi_output.jsonl"):
        for line in (real_data / name).read_text().splitlines():
            texts += [value for value in json.loads(line).values() if isinstance(value, str)]
    for name in ("alpacare_7b_medinstruct_seed_0.json", "alpacare_7b_icliniq_seed_0_first100.json"):
        texts += [row["response"] for row in json.loads((real_data / name).read_text())]
    assert [text for text in texts if is_caught_in_a_loop(text)] == []
