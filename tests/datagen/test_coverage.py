"""Which seeds are shown: even where the labels lean, different within a request, and a function of seed and number."""

import hashlib
import math
import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from datagen.coverage import (
    DRAW_VERSION,
    LEAST,
    MOST,
    draw_examples,
    draw_uniform,
    weights,
)
from datagen.labels import FIELDS, group
from datagen.records import SeedTask
from datagen.seeds import load_seeds

_BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "coverage.py"))
evenness, measure = _BENCHMARK["evenness"], _BENCHMARK["measure"]
# Changed together with DRAW_VERSION only.
PINNED = [["5", "6", "13"], ["18", "7", "2"], ["17", "0", "4"], ["11", "12", "1"]]
PINNED_HASH = "9fa321c8d39824b1"
PINNED_SHIPPED = "12ee53b06d4ede28"


def draws(seeds: list[SeedTask], how: str, count: int = 1000) -> list[list[SeedTask]]:
    return [draw_examples(seeds, 3, 0, number, how) for number in range(count)]


def check_evened_out(seeds: list[SeedTask]) -> None:
    even, plain = (measure(seeds, draws(seeds, how)) for how in ("even", "uniform"))
    for field in FIELDS:
        # At least half of what plain draws lack in view and topic is made up for, and something everywhere.
        share = 0.5 if field in ("view", "topic") else 0.25
        assert 1 - even[f"evenness.{field}"] <= (1 - share) * (1 - plain[f"evenness.{field}"]), field
        assert even[f"different.{field}"] == 1 > plain[f"different.{field}"]
    assert even["seeds_shown"] == 1
    assert even["most_shown"] <= 1.1 * MOST


def test_shipped_seeds_are_shown_more_evenly_than_by_plain_draws() -> None:
    check_evened_out(load_seeds())


def test_clinicians_seeds_are_shown_more_evenly_than_by_plain_draws(real_data: Path) -> None:
    check_evened_out(load_seeds(real_data / "med_seed.json"))


def test_a_request_s_examples_do_not_depend_on_the_requests_before_it() -> None:
    seeds = load_seeds()
    forward = [draw_examples(seeds, 3, 7, number, "even") for number in range(600)]
    backward = [draw_examples(seeds, 3, 7, number, "even") for number in reversed(range(0, 600, 97))]
    assert backward[::-1] == forward[::97]
    assert draw_examples(seeds, 3, 8, 0, "even") != forward[0]
    rounds = [[id(task) for draw in forward[at : at + 256] for task in draw] for at in (0, 256)]
    assert rounds[0] != rounds[1]


def test_the_draws_are_the_same_on_every_machine() -> None:
    """Ledgers hold prompts made from these draws; another version of them is refused by name."""
    assert DRAW_VERSION == "1"
    seeds = [
        SeedTask(f"{n}", type=f"t{n % 3}", view=f"v{n % 5}", topic=f"x{n % 7}", difficulty=f"{n % 2}")
        for n in range(20)
    ]
    drawn = [[task.instruction for task in draw] for draw in draws(seeds, "even", 520)]
    assert drawn[:4] == PINNED
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == PINNED_HASH
    of_shipped = [[task.instruction for task in draw] for draw in draws(load_seeds(), "even", 300)]
    # The lists of labels.yaml have their part in this one.
    assert hashlib.sha256(repr(of_shipped).encode()).hexdigest()[:16] == PINNED_SHIPPED
    shown = [task.instruction for number in range(4) for task in draw_uniform(seeds[:10], 3, f"7:{number}")]
    assert "".join(shown) == "748941952049"


def test_uniform_draws_show_all_tasks_alike_often() -> None:
    tasks = [SeedTask(f"task {number}") for number in range(10)]
    shown = Counter(
        task.instruction for number in range(3000) for task in draw_examples(tasks, 3, 0, number, "uniform")
    )
    assert all(800 < shown[task.instruction] < 1000 for task in tasks)


@pytest.mark.parametrize("count", [1, 5, 6])
def test_tasks_that_all_carry_the_same_labels_are_shown_alike_often(count: int) -> None:
    tasks = [SeedTask(f"task {number}", type="Chat") for number in range(6)]
    drawn = [draw_examples(tasks, count, 0, number, "even") for number in range(256)]
    assert all(len({task.instruction for task in draw}) == count for draw in drawn)
    shown = Counter(task.instruction for draw in drawn for task in draw)
    assert max(shown.values()) - min(shown.values()) <= 4
    assert len({tuple(task.instruction for task in draw) for draw in drawn}) >= min(
        6, math.perm(6, count) // 4
    )


def test_labels_in_other_spellings_count_as_one() -> None:
    tasks = [SeedTask("a", type="Rewrite"), SeedTask("b", type="Rewrites"), SeedTask("c", type="Chat")]
    shown = Counter(draw_examples(tasks, 1, 0, number, "even")[0].instruction for number in range(256))
    assert 120 <= shown["c"] <= 136


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.sampled_from("xy")),
        min_size=1,
        max_size=40,
    )
)
def test_weights_stay_in_their_bounds_and_average_one(rows: list[tuple[str, str, str]]) -> None:
    found = weights(tuple(rows))
    assert math.isclose(sum(found), len(rows))
    # The last scaling to an average of one may lift a weight a little over its bound.
    assert all(0.6 * LEAST <= weight <= 1.6 * MOST for weight in found)


def test_weights_even_out_two_fields_at_once_where_that_is_possible() -> None:
    rows = [("a", "1")] * 4 + [("a", "2")] * 3 + [("b", "1")] * 2 + [("b", "2")] * 3
    for column in range(2):
        totals: Counter[str] = Counter()
        for weight, row in zip(weights(tuple(rows)), rows, strict=True):
            totals[row[column]] += weight  # type: ignore[assignment]
        assert max(totals.values()) - min(totals.values()) < 0.01


def test_evenness_of_nothing_and_of_one() -> None:
    assert evenness([]) == evenness(["a"]) == 1
    assert group("view", "") == ""
