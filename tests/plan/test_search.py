"""The search for the largest batch: the right answer with few attempts, whatever memory does."""

import dataclasses

import pytest

from alpacare_jax.plan.costs import StepCosts
from alpacare_jax.plan.outcome import Compiled, TooLarge
from alpacare_jax.plan.search import bisect

GIB = 1 << 30
LIMIT = 16 * GIB


def compiled(needed: float, fixed: float) -> Compiled | TooLarge:
    if needed > LIMIT:
        return TooLarge(int(needed), LIMIT, 1.0)
    return Compiled(int(fixed), int(needed - fixed), 0, 0, 0, LIMIT, 0, 1.0, StepCosts.of({}))


def line(per_row: float, fixed: float = 4.0, base: float = 0.3):
    return lambda rows: compiled((fixed + base + per_row * rows) * GIB, fixed * GIB)


@pytest.mark.parametrize("per_row", [0.05, 0.3, 0.51, 1.0, 3.0, 11.0])
@pytest.mark.parametrize("start", [1, 8, 64])
def test_it_finds_the_largest_that_fits_on_a_line(per_row, start):
    tried: list[int] = []
    attempt = line(per_row)

    def counted(rows: int):
        tried.append(rows)
        return attempt(rows)

    largest, probes, confirmed = bisect(counted, start, most=20)
    assert attempt(largest).fits
    assert not attempt(largest + 1).fits
    assert confirmed
    assert len(tried) == len(set(tried)) == len(probes)
    assert len(tried) <= 11


def test_from_a_size_that_fits_four_attempts_are_enough_on_a_line():
    largest, probes, _ = bisect(line(0.4), 8, most=20)
    assert largest == 29
    assert len(probes) <= 5


def test_memory_that_bends_near_the_limit_is_followed_upwards():
    # The compiler recomputes what would not fit, up to a point: 30 rows by the line, 35 in truth.
    def bending(rows: int):
        return compiled(min((4.3 + 0.39 * rows) * GIB, 15.9 * GIB) if rows <= 35 else 20 * GIB, 4 * GIB)

    largest, _, confirmed = bisect(bending, 8, most=20)
    assert (largest, confirmed) == (35, True)


@pytest.mark.parametrize(("host_per_row", "largest"), [(0.25, 172), (0.1, 201), (3.0, 14)])
def test_the_memory_that_ends_first_bounds_the_rows(host_per_row, largest):
    """The chip's memory ends after 201 rows; 43 GiB of the host's after 172 at a quarter of a GiB each."""

    def attempt(rows: int):
        found = line(0.058)(rows)
        if isinstance(found, TooLarge):
            return found
        return dataclasses.replace(found, host=int(host_per_row * rows * GIB), host_limit=43 * GIB)

    found, probes, confirmed = bisect(attempt, 8, most=20)
    assert (found, confirmed) == (largest, True)
    assert len(probes) <= 8
    over = [outcome for rows, outcome in probes if rows > found]
    assert all(not outcome.fits for outcome in over)


@pytest.mark.parametrize("host", [0, 5 * GIB])
def test_a_hosts_memory_that_rows_do_not_take_bounds_nothing(host):
    """The chip's memory ends after 117 rows; with the host lies nothing, or the same whatever the rows."""

    def attempt(rows: int):
        found = line(0.1024, base=0.0)(rows)
        return (
            found if isinstance(found, TooLarge) else dataclasses.replace(found, host=host, host_limit=LIMIT)
        )

    found, probes, confirmed = bisect(attempt, 1, most=20)
    assert (found, confirmed) == (117, True)
    tried = [rows for rows, _ in probes]
    assert tried[0] == 1
    assert tried[-2:] == [117, 118]
    # What lies there at one size says nothing of how it grows; a second size does.
    assert len(tried) <= (3 if host == 0 else 4)


def test_nothing_fits():
    largest, probes, confirmed = bisect(lambda rows: TooLarge(20 * GIB, LIMIT, 1.0), 8, most=20)
    assert (largest, confirmed) == (0, True)
    assert [rows for rows, _ in probes] == [8, 4, 2, 1]


def test_attempts_are_bounded():
    largest, probes, confirmed = bisect(line(0.01), 1, most=2)
    assert len(probes) == 2
    assert not confirmed
    assert largest >= 1
