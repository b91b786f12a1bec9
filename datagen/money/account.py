"""Running sums, by stage, of what tries have cost and may still cost."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Literal

from datagen.ledger import Outcome, StageSpending, Try

#: The bill of a try: certainly free, by the tokens that the service counted, or unknown.
Bill = Literal["none", "counted", "unknown"]


class Account:
    """Running sums of what is spent and reserved, which save reading the ledger.

    Args:
        spending: What earlier processes spent, as :meth:`datagen.ledger.Ledger.spending` returns it.
    """

    def __init__(self, spending: Mapping[str, StageSpending]) -> None:
        self._sums = {stage: dataclasses.replace(sums, held_usd=0.0) for stage, sums in spending.items()}
        self._open: dict[int, Try] = {}

    def hold(self, each: Try) -> None:
        """Count the worst case of a try as reserved."""
        self._open[each.number] = each
        self._of_stage(each.stage).held_usd += each.reserved_usd or 0.0

    def count(self, each: Try, outcome: Outcome, cost_usd: float | None) -> None:
        """Count a cost in US dollars as spent in place of what was reserved; None where there is no price."""
        del self._open[each.number]
        sums = self._of_stage(each.stage)
        sums.held_usd -= each.reserved_usd or 0.0
        if cost_usd is None:
            sums.unpriced += 1
        elif outcome == "unknown":
            sums.unknown_usd += cost_usd
        else:
            sums.spent_usd += cost_usd
            sums.settled += outcome == "settled"
        if not self._open:  # whatever rounding left behind
            for sums in self._sums.values():
                sums.held_usd = 0.0

    @property
    def open(self) -> Collection[Try]:
        """The tries without an outcome."""
        return self._open.values()

    def fewest_settled(self, stage: str) -> int:
        """Return how many tries the service has counted, in a stage or in one with tries in flight: the fewest."""
        in_flight = [sums.settled for sums in self._sums.values() if sums.held_usd]
        return min([self._of_stage(stage).settled, *in_flight])

    @property
    def spent_usd(self) -> float:
        """What is spent, in US dollars, with the worst case of every try whose bill is unknown."""
        return math.fsum(each.spent_usd + each.unknown_usd for each in self._sums.values())

    @property
    def unknown_usd(self) -> float:
        """The part of ``spent_usd`` that is the worst case of tries whose bill is unknown."""
        return math.fsum(each.unknown_usd for each in self._sums.values())

    @property
    def held_usd(self) -> float:
        """What is reserved for tries without an outcome, in US dollars."""
        return math.fsum(each.held_usd for each in self._sums.values())

    def spending(self) -> Mapping[str, StageSpending]:
        """Return what :meth:`datagen.ledger.Ledger.spending` would return now, without asking the file."""
        return self._sums

    def _of_stage(self, stage: str) -> StageSpending:
        return self._sums.setdefault(stage, StageSpending())
