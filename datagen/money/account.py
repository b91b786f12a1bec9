"""What tries have cost and may still cost, in sums by stage that are kept up with every one of them."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Self

from datagen.ledger import Outcome, Try

#: What is known of a try's bill: surely none, the service counted the tokens, or nothing.
Bill = Literal["none", "counted", "unknown"]


@dataclasses.dataclass(frozen=True)
class Reservation:
    """One try that may cost money: its number in the ledger, its model, its bounds in tokens and US dollars.

    ``worst_usd`` is None where the model has no price (and so there is no cap).
    """

    number: int
    model: str
    stage: str
    id: str
    most_prompt_tokens: int
    most_completion_tokens: int
    worst_usd: float | None
    batch: bool = False

    @classmethod
    def of(cls, each: Try, worst_usd: float | None) -> Self:
        """Return the reservation of a try that the ledger holds."""
        bounds = each.most_prompt_tokens, each.most_completion_tokens
        return cls(each.number, each.model, each.stage, each.id, *bounds, worst_usd, each.batch)


class Account:
    """Sums of what is spent and of what is reserved, so that nobody has to ask the file for them.

    Args:
        spending: What earlier processes spent, as :meth:`datagen.ledger.Ledger.spending` returns it.
        held: What they left reserved: the requests of batches.
    """

    def __init__(self, spending: Mapping[str, Mapping[str, float]], held: Iterable[Reservation] = ()) -> None:
        self._sums = {stage: dict(sums) for stage, sums in spending.items()}
        self._open: dict[int, Reservation] = {}
        # What they hold, by stage: kept up with every one, because a batch opens 50,000 in a row.
        self._held_usd: dict[str, float] = {}
        for each in held:
            self.hold(each)

    def hold(self, reservation: Reservation) -> None:
        """Count a worst case as reserved."""
        self._open[reservation.number] = reservation
        held = self._held_usd.get(reservation.stage, 0.0)
        self._held_usd[reservation.stage] = held + (reservation.worst_usd or 0.0)

    def close(self, reservation: Reservation, outcome: Outcome, cost_usd: float | None) -> None:
        """Count a cost in US dollars as spent in place of what was reserved; None where there is no price."""
        del self._open[reservation.number]
        self._held_usd[reservation.stage] -= reservation.worst_usd or 0.0
        if not self._open:  # whatever rounding left behind
            self._held_usd.clear()
        sums = self._of_stage(reservation.stage)
        if cost_usd is None:
            sums["unpriced"] += 1
        else:
            sums["unknown_usd" if outcome == "unknown" else "spent_usd"] += cost_usd
            sums["settled"] += outcome == "settled"

    @property
    def open(self) -> Collection[Reservation]:
        """The reservations of tries without an outcome."""
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
        """Return what :meth:`datagen.ledger.Ledger.spending` would return now."""
        for stage in self._held_usd:
            self._of_stage(stage)
        return {
            stage: sums | {"held_usd": self._held_usd.get(stage, 0.0)} for stage, sums in self._sums.items()
        }

    def _of_stage(self, stage: str) -> dict[str, float]:
        nothing = {"spent_usd": 0.0, "unknown_usd": 0.0, "held_usd": 0.0, "unpriced": 0, "settled": 0}
        return self._sums.setdefault(stage, nothing)
