"""What tries have cost and may still cost, in sums by stage that are kept up with every one of them."""

import math
from collections.abc import Collection, Mapping
from typing import Literal

from datagen.ledger import Outcome, Try

#: What is known of a try's bill: surely none, the service counted the tokens, or nothing.
Bill = Literal["none", "counted", "unknown"]


class Account:
    """Sums of what is spent and of what is reserved, so that nobody has to ask the file for them.

    Args:
        spending: What earlier processes spent, as :meth:`datagen.ledger.Ledger.spending` returns it.
    """

    def __init__(self, spending: Mapping[str, Mapping[str, float]]) -> None:
        self._sums = {stage: dict(sums) for stage, sums in spending.items()}
        self._open: dict[int, Try] = {}
        # What they hold, by stage: kept up with every one, because a batch opens 50,000 in a row.
        self._held_usd: dict[str, float] = {}

    def hold(self, each: Try) -> None:
        """Count the worst case of a try as reserved."""
        self._open[each.number] = each
        self._held_usd[each.stage] = self._held_usd.get(each.stage, 0.0) + (each.reserved_usd or 0.0)

    def count(self, each: Try, outcome: Outcome, cost_usd: float | None) -> None:
        """Count a cost in US dollars as spent in place of what was reserved; None where there is no price."""
        del self._open[each.number]
        self._held_usd[each.stage] -= each.reserved_usd or 0.0
        if not self._open:  # whatever rounding left behind
            self._held_usd.clear()
        sums = self._of_stage(each.stage)
        if cost_usd is None:
            sums["unpriced"] += 1
        else:
            sums["unknown_usd" if outcome == "unknown" else "spent_usd"] += cost_usd
            sums["settled"] += outcome == "settled"

    @property
    def open(self) -> Collection[Try]:
        """The tries without an outcome."""
        return self._open.values()

    def fewest_settled(self, stage: str) -> float:
        """Return how many tries the service has counted, in a stage or in one with tries in flight: the fewest."""
        return min(self._of_stage(name)["settled"] for name in (stage, *self._held_usd))

    @property
    def spent_usd(self) -> float:
        """What is spent, in US dollars, with the worst case of every try whose bill is unknown."""
        return math.fsum(each["spent_usd"] + each["unknown_usd"] for each in self._sums.values())

    @property
    def unknown_usd(self) -> float:
        """The part of ``spent_usd`` that is the worst case of tries whose bill is unknown."""
        return math.fsum(each["unknown_usd"] for each in self._sums.values())

    @property
    def held_usd(self) -> float:
        """What is reserved for tries without an outcome, in US dollars."""
        return math.fsum(self._held_usd.values())

    def spending(self) -> dict[str, dict[str, float]]:
        """Return what :meth:`datagen.ledger.Ledger.spending` would return now, without asking the file."""
        for stage in self._held_usd:
            self._of_stage(stage)
        return {
            stage: sums | {"held_usd": self._held_usd.get(stage, 0.0)} for stage, sums in self._sums.items()
        }

    def _of_stage(self, stage: str) -> dict[str, float]:
        nothing = {"spent_usd": 0.0, "unknown_usd": 0.0, "held_usd": 0.0, "unpriced": 0, "settled": 0}
        return self._sums.setdefault(stage, nothing)
