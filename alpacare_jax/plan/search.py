"""The most rows a device can take, found with few compilations.

Memory grows almost in a line with the rows, so two compilations tell about where it ends; further ones confirm that
the last size that fits has a neighbour that does not. Where the compiler starts to save memory of its own accord, the
line bends, and the search goes on upwards until something is refused. Where layer inputs lie in the host's memory,
that memory is a second line, and the one that ends first counts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.outcome import Compiled, Outcome, outcome_values
from alpacare_jax.plan.program import Program


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search found.

    Args:
        largest: The most rows per device that fit; 0 if not even the fewest do.
        step: Rows per device go in steps of this: one for each microbatch.
        probes: Every size that was tried, in that order: rows per device, and what the compiler said.
        confirmed: Whether the next size was refused, rather than the search ended by its bound on compilations.
    """

    largest: int
    step: int
    probes: tuple[tuple[int, Outcome], ...]
    confirmed: bool

    @property
    def best(self) -> Outcome | None:
        """What the compiler said of the largest that fits."""
        return dict(self.probes).get(self.largest)

    def to_dict(self) -> dict[str, Any]:
        """Return the search as plain JSON values."""
        probes = [{"rows_per_device": rows} | outcome_values(outcome) for rows, outcome in self.probes]
        return {
            "rows_per_device": self.largest,
            "step": self.step,
            "confirmed": self.confirmed,
            "probes": [{key: value for key, value in probe.items() if key != "costs"} for probe in probes],
        }


def search_rows(compiler: Compiler, program: Program, *, most: int = 10) -> Search:
    """Find the most rows per device that fit.

    Args:
        compiler: The compiler.
        program: The training step; its rows are where the search starts.
        most: Most compilations; a search that they end gives the largest found so far.
    """
    step, shards = program.microbatches, program.shards

    def attempt(steps: int) -> Outcome:
        rows = steps * step
        return compiler.compile(program.replace(rows=rows * shards), f"{rows} rows per device")

    largest, probes, confirmed = bisect(attempt, max(1, program.rows // (shards * step)), most)
    found = tuple((steps * step, outcome) for steps, outcome in probes)
    return Search(largest * step, step, found, confirmed)


def bisect(
    attempt: Callable[[int], Outcome], start: int, most: int
) -> tuple[int, list[tuple[int, Outcome]], bool]:
    """Find the largest size that fits, with few attempts.

    Args:
        attempt: Tries a size.
        start: The first size to try.
        most: Most attempts.

    Returns:
        The largest size that fits, 0 if none does; every attempt; whether the next size is known not to fit.
    """
    fitting: dict[int, Compiled] = {}
    probes: list[tuple[int, Outcome]] = []
    refused: int | None = None
    size = start
    while len(probes) < most:
        outcome = attempt(size)
        probes.append((size, outcome))
        if isinstance(outcome, Compiled) and outcome.fits:
            fitting[size] = outcome
        else:
            refused = min(size, refused or size)
        low = max(fitting, default=0)
        if refused is not None and refused - low == 1:
            return low, probes, True
        size = next_size(fitting, refused)
    return max(fitting, default=0), probes, False


def next_size(fitting: dict[int, Compiled], refused: int | None) -> int:
    """Choose the next size to try: where memory should end, within what is not known yet.

    Example:
        One size of 8 rows that leaves room for as much again gives 16; two sizes give a line; a refused size bounds
        it, and between a size that fits and one that does not the middle is tried where the line says nothing.
    """
    if not fitting:
        assert refused is not None
        return max(1, refused // 2)
    low, guess = max(fitting), predict(fitting)
    if refused is None:
        return max(low + 1, guess)
    if low < guess < refused:
        return guess
    # The line says that the end is at one of the two known sizes: the neighbour settles it most often.
    return low + 1 if guess <= low else refused - 1 if refused - low <= 3 else (low + refused) // 2


def predict(fitting: dict[int, Compiled]) -> int:
    """Return the largest size that should fit, by the lines through the two largest that do, device's and host's."""
    *rest, high = sorted(fitting)
    top, below, apart = fitting[high], fitting[rest[-1]] if rest else None, high - (rest[-1] if rest else 0)
    grown, on_host = (
        (top.needed - below.needed, top.host - below.host) if below else (top.temporaries, top.host)
    )
    end = high + math.floor(top.headroom * apart / grown) if grown > 0 else 2 * high
    # What does not grow ends nowhere: if nothing lies with the host, its memory bounds nothing.
    if top.host_limit is not None and on_host > 0:
        end = min(end, high + math.floor((top.host_limit - top.host) * apart / on_host))
    return end
