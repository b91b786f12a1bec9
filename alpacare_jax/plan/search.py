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
from alpacare_jax.plan.programs import Compiled, Outcome, Program, outcome_to_dict


@dataclasses.dataclass(frozen=True)
class Probe:
    """One size that was tried: rows on each device, and what the compiler said."""

    rows_per_device: int
    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search found.

    Args:
        largest: The most rows per device that fit; 0 where not even the fewest do.
        step: Rows per device go in steps of this: one for each microbatch.
        probes: Every size that was tried, in that order.
        confirmed: Whether the next size was refused, rather than the search ended by its bound on compilations.
    """

    largest: int
    step: int
    probes: tuple[Probe, ...]
    confirmed: bool

    @property
    def best(self) -> Compiled | None:
        """What the compiler said of the largest that fits."""
        for probe in self.probes:
            if probe.rows_per_device == self.largest and isinstance(probe.outcome, Compiled):
                return probe.outcome
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the search as plain JSON values."""
        probes = [
            {"rows_per_device": probe.rows_per_device} | outcome_to_dict(probe.outcome)
            for probe in self.probes
        ]
        for probe in probes:
            probe.pop("costs", None)
        return {
            "rows_per_device": self.largest,
            "step": self.step,
            "confirmed": self.confirmed,
            "probes": probes,
        }


def search_rows(compiler: Compiler, program: Program, shards: int, *, most: int = 10) -> Search:
    """Find the most rows per device that fit.

    Args:
        compiler: The compiler.
        program: The training step; its rows are where the search starts.
        shards: Over how many devices a batch's rows are split.
        most: Most compilations; a search that they end gives the largest found so far.
    """
    step = program.config.train.microbatches

    def attempt(steps: int) -> Outcome:
        rows = steps * step * shards
        return compiler.compile(program.replace(rows=rows), f"{steps * step} rows per device")

    start = max(1, program.rows // (shards * step))
    largest, probes, confirmed = bisect(attempt, start, most)
    found = tuple(Probe(steps * step, outcome) for steps, outcome in probes)
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
        The largest size that fits, 0 where none does; every attempt; whether the next size is known not to fit.
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
            refused = size if refused is None else min(refused, size)
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
    low = max(fitting)
    guess = predict(fitting)
    if refused is None:
        return max(low + 1, guess)
    if low < guess < refused:
        return guess
    # The line says that the end is at one of the two known sizes: the neighbour settles it most often.
    return low + 1 if guess <= low else refused - 1 if refused - low <= 3 else (low + refused) // 2


def predict(fitting: dict[int, Compiled]) -> int:
    """Return the largest size that should fit, by the lines through the two largest that do, device's and host's."""
    *_, high = sizes = sorted(fitting)
    top, below = fitting[high], fitting[sizes[-2]] if len(sizes) > 1 else None
    apart = high - sizes[-2] if below else high
    ends = [
        _end(high, top.headroom, top.needed - below.needed if below else top.temporaries, apart),
    ]
    on_host = top.host - (below.host if below else 0)
    # What does not grow ends nowhere: where nothing lies with the host, its memory bounds nothing.
    if top.host_limit is not None and on_host > 0:
        ends.append(_end(high, top.host_limit - top.host, on_host, apart))
    return min(ends)


def _end(size: int, room: int, grown: int, apart: int) -> int:
    """Return where a line ends: ``room`` is left at ``size``, and ``apart`` sizes before it was ``grown`` less."""
    return size + math.floor(room * apart / grown) if grown > 0 else size * 2
