"""Money: a purse that keeps a spending cap over restarts and kills.

Before a request is sent its worst case is reserved and written into the ledger: no more prompt tokens than its
body has bytes, and as many output tokens as it allows. What the service then counts replaces the reservation.
A try whose bill is unknown (a timeout, a connection lost after sending, a killed process) stays spent at its
worst case. So what is spent and what is reserved never exceed the cap, whatever happens to the process.
"""

import asyncio
import dataclasses
import json
import logging
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Ledger, Outcome, Try
from datagen.money.prices import Price, Prices

__all__ = [
    "BudgetReached",
    "Price",
    "Prices",
    "Purse",
    "Reservation",
    "most_completion_tokens",
    "most_prompt_tokens",
    "usd",
]

log = logging.getLogger(__name__)

# What a service's chat template may add to the words of a request, in tokens: per message, and once.
_TEMPLATE_TOKENS_PER_MESSAGE = 16
_TEMPLATE_TOKENS = 64
# Sums of floating-point amounts are trusted to this part of the cap.
_ROUNDING = 1e-9


class BudgetReached(ServiceError):
    """The next request could cost more than what is left of the budget; everything answered is kept."""


def most_prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return a number of prompt tokens that a request cannot exceed.

    No tokeniser makes more tokens than a text has bytes; what the body holds beside the messages (a schema of the
    reply, names, numbers) counts too, and a service's chat template gets an allowance.

    Example:
        >>> most_prompt_tokens({"messages": [{"role": "user", "content": "Hi"}]})
        129
    """
    text = json.dumps(body, ensure_ascii=False)
    size = len(text.encode("utf-8", "replace"))
    if not text.isascii():  # tokenisers that normalise may write a character out in more bytes
        size = max(size, len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")))
    return size + _TEMPLATE_TOKENS_PER_MESSAGE * len(body.get("messages", ())) + _TEMPLATE_TOKENS


def most_completion_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the number of output tokens that a request allows; None where it sets no bound."""
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    return None if most is None else int(most) * int(body.get("n") or 1)


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


class Purse:
    """Watches over what a ledger's requests cost, and keeps a cap.

    Args:
        ledger: Where every try is written down; open for writing. Tries that an earlier process left open are
            counted as spent at their worst case, except those of a batch, whose outcome will still be known.
        prices: Prices of the models.
        budget_usd: The cap in US dollars over everything the ledger ever spent; None for no cap.

    Raises:
        ConfigError: There is a cap, and something was spent on a model without a price.
    """

    def __init__(self, ledger: Ledger, prices: Prices | None = None, budget_usd: float | None = None) -> None:
        self.ledger = ledger
        self.prices = prices or Prices()
        self.budget_usd = budget_usd
        self._open: dict[int, Reservation] = {}
        # What they hold, by stage: kept up with every one, because a batch opens 50,000 in a row.
        self._held_usd: dict[str, float] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._set_aside: dict[str, float] = {}
        # How far a service's own count of tokens has gone beyond what was thought to be the most.
        self._excess = 1.0
        self._spending: dict[str, dict[str, float]] = {}
        #: Tries that ended in this process, for a rate.
        self.tries_ended = 0
        self._take_over()

    def _take_over(self) -> None:
        """Count what earlier processes spent: close what they left open, and price what had no price then."""
        with self.ledger.transaction():
            for each in self.ledger.open_tries():
                if each.batch:
                    self._hold(_reservation(each, self._worst_of(each)))
                else:
                    self.ledger.close_try(each.number, "unknown", cost_usd=self._worst_of(each))
            missing = {each.model for each in self.ledger.unpriced_tries() if not self._price(each)}
            if self.budget_usd is not None:
                self.prices.require(*missing)
        self._spending = self.ledger.spending()
        for each in self.ledger.tries_beyond_bounds():
            bounds = each.most_prompt_tokens, each.most_completion_tokens
            worst = self.prices.cost(each.model, *bounds, batch=each.batch)
            if worst and each.cost_usd:
                self._excess = max(self._excess, each.cost_usd / worst)

    def _price(self, each: Try) -> bool:
        """Give a try that ended the price that it lacked; tell whether there is one."""
        if each.outcome == "settled":
            tokens = each.prompt_tokens or 0, each.completion_tokens or 0
            cost = self.prices.cost(each.model, *tokens, batch=each.batch)
        else:
            cost = self._worst_of(each)
        if cost is not None:
            self.ledger.price_try(each.number, cost)
        return cost is not None

    def _hold(self, reservation: Reservation) -> None:
        self._open[reservation.number] = reservation
        held = self._held_usd.get(reservation.stage, 0.0)
        self._held_usd[reservation.stage] = held + (reservation.worst_usd or 0.0)

    def _worst_of(self, each: Try) -> float | None:
        if each.reserved_usd is not None:
            return each.reserved_usd
        tokens = each.most_prompt_tokens, each.most_completion_tokens
        return self.prices.cost(each.model, *tokens, batch=each.batch)

    @property
    def spent_usd(self) -> float:
        """What is spent, in US dollars, with the worst case of every try whose bill is unknown."""
        return math.fsum(each["spent_usd"] + each["unknown_usd"] for each in self._spending.values())

    @property
    def unknown_usd(self) -> float:
        """The part of ``spent_usd`` that is the worst case of tries whose bill is unknown."""
        return math.fsum(each["unknown_usd"] for each in self._spending.values())

    def spending(self) -> dict[str, dict[str, float]]:
        """Return what :meth:`Ledger.spending` returns, without asking the file."""
        for stage in self._held_usd:
            self._stage(stage)
        return {
            stage: sums | {"held_usd": self._held_usd.get(stage, 0.0)}
            for stage, sums in self._spending.items()
        }

    def _stage(self, stage: str) -> dict[str, float]:
        nothing = {"spent_usd": 0.0, "unknown_usd": 0.0, "held_usd": 0.0, "unpriced": 0, "settled": 0}
        return self._spending.setdefault(stage, nothing)

    @property
    def held_usd(self) -> float:
        """What is reserved for tries in flight, in US dollars."""
        return math.fsum(self._held_usd.values())

    @property
    def left_usd(self) -> float:
        """What may still be reserved, in US dollars; infinite without a cap."""
        if self.budget_usd is None:
            return math.inf
        return self.budget_usd - self.spent_usd - self.held_usd

    def set_aside(self, stage: str, amount_usd: float) -> None:
        """Keep an amount in US dollars for one stage: tries of other stages must leave it, until it is set anew."""
        self._set_aside[stage] = amount_usd
        self._wake()

    def worst_usd(self, service_model: str, body: Mapping[str, Any], *, batch: bool = False) -> float:
        """Return the most that one try can cost, in US dollars; 0 where there is no price."""
        return self._worst(service_model, body, batch=batch)[2] or 0.0

    async def reserve(
        self, service_model: str, body: Mapping[str, Any], *, stage: str = "", id: str = ""
    ) -> Reservation:
        """Set the worst case of one try aside, and wait for it while tries in flight may still cost less.

        Args:
            service_model: The model's name at the service.
            body: The request's body, which bounds its tokens.
            stage: The ledger's stage of the request.
            id: Its id.

        Raises:
            BudgetReached: Nothing is in flight any more and what is left is too little.
            ConfigError: There is a cap, and the model has no price or the body no ``max_tokens``.
        """
        while True:
            reservation = self.try_reserve(service_model, body, stage=stage, id=id)
            if reservation is not None:
                return reservation
            if not any(not each.batch for each in self._open.values()):
                raise self.reached(self.worst_usd(service_model, body))
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def try_reserve(
        self,
        service_model: str,
        body: Mapping[str, Any],
        *,
        stage: str = "",
        id: str = "",
        batch: bool = False,
        leave_usd: float = 0.0,
    ) -> Reservation | None:
        """Set the worst case of one try aside if it fits; None if it does not.

        Args:
            service_model: The model's name at the service.
            body: The request's body, which bounds its tokens.
            stage: The ledger's stage of the request.
            id: Its id.
            batch: Take batch prices.
            leave_usd: What must be left for others, in US dollars, beside what is set aside for them.
        """
        prompt, completion, worst = self._worst(service_model, body, batch=batch)
        if self.budget_usd is not None and worst:
            kept = math.fsum(usd for name, usd in self._set_aside.items() if name != stage)
            if worst > self.left_usd - kept - leave_usd - _ROUNDING * self.budget_usd:
                return None
        number = self.ledger.open_try(
            stage,
            id,
            model=service_model,
            most_prompt_tokens=prompt,
            most_completion_tokens=completion,
            reserved_usd=worst,
            batch=batch,
        )
        reservation = Reservation(number, service_model, stage, id, prompt, completion, worst, batch)
        self._hold(reservation)
        return reservation

    def _worst(self, model: str, body: Mapping[str, Any], *, batch: bool) -> tuple[int, int, float | None]:
        """Return the most tokens in and out of one try, and what they cost."""
        prompt, completion = most_prompt_tokens(body), most_completion_tokens(body)
        if self.budget_usd is not None:
            self.prices.require(model)
            if completion is None:
                raise ConfigError("a budget needs a bound of every reply", expected="max_tokens")
        cost = self.prices.cost(model, prompt, completion or 0, batch=batch)
        return prompt, completion or 0, None if cost is None else cost * self._excess

    def reached(self, worst_usd: float) -> BudgetReached:
        """Return the error that says that the budget is reached before a request that could cost so many dollars."""
        assert self.budget_usd is not None
        kept = math.fsum(self._set_aside.values())
        aside = f"; {usd(kept)} is set aside for answers" if kept else ""
        unknown = (
            f", {usd(self.unknown_usd)} of it for tries whose bill is unknown" if self.unknown_usd else ""
        )
        return BudgetReached(
            "the budget is reached",
            found=f"{usd(self.spent_usd)} of {usd(self.budget_usd)} spent{unknown}; "
            f"the next request could cost {usd(worst_usd)}{aside}",
            remedy="raise --budget-usd and run the same command again; what was answered is kept",
        )

    def settle(self, reservation: Reservation, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Replace a reservation by what the service counted.

        A service that does not say how many tokens the prompt had leaves the bill unknown: the worst case
        stays spent.

        Returns:
            The cost in US dollars, for the ledger's row of the request; None where it is not known.
        """
        if prompt_tokens <= 0:
            self.forfeit(reservation)
            return None
        cost = self.prices.cost(reservation.model, prompt_tokens, completion_tokens, batch=reservation.batch)
        self._note_excess(reservation, cost)
        self._close(reservation, "settled", cost, prompt_tokens, completion_tokens)
        return cost

    def _note_excess(self, reservation: Reservation, cost: float | None) -> None:
        """Raise the worst case of later tries where a service counts more than a request should allow."""
        if not cost or not reservation.worst_usd or cost <= reservation.worst_usd:
            return
        ratio = cost / reservation.worst_usd
        log.warning(
            "%s %s: the service counted tokens for %s, more than the %s that the request allows",
            reservation.stage,
            reservation.id,
            usd(cost),
            usd(reservation.worst_usd),
        )
        self._excess = max(self._excess, self._excess * ratio)

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back: the try was surely not billed (refused, or never sent)."""
        self._close(reservation, "free", 0.0)

    def forfeit(self, reservation: Reservation) -> float | None:
        """Count the worst case of a try as spent, because its bill is unknown; return it in US dollars."""
        self._close(reservation, "unknown", reservation.worst_usd)
        return reservation.worst_usd

    def forfeit_copy(self, reservation: Reservation) -> None:
        """Count a try that was sent a second time by mistake as spent, at its worst case, beside the first one."""
        number = self.ledger.open_try(
            reservation.stage,
            reservation.id,
            model=reservation.model,
            most_prompt_tokens=reservation.most_prompt_tokens,
            most_completion_tokens=reservation.most_completion_tokens,
            reserved_usd=reservation.worst_usd,
            batch=reservation.batch,
        )
        copy = dataclasses.replace(reservation, number=number)
        self._hold(copy)
        self.forfeit(copy)

    def _close(
        self,
        reservation: Reservation,
        outcome: Outcome,
        cost_usd: float | None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        del self._open[reservation.number]
        self._held_usd[reservation.stage] -= reservation.worst_usd or 0.0
        if not self._open:  # whatever rounding left behind
            self._held_usd.clear()
        self.tries_ended += 1
        sums = self._stage(reservation.stage)
        if cost_usd is None:
            sums["unpriced"] += 1
        else:
            sums["unknown_usd" if outcome == "unknown" else "spent_usd"] += cost_usd
            sums["settled"] += outcome == "settled"
        self.ledger.close_try(
            reservation.number,
            outcome,
            cost_usd=cost_usd,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )
        self._wake()

    def _wake(self) -> None:
        """Let everyone who waits for money look again."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def close(self) -> None:
        """Forfeit what is still in flight, such as requests that were cancelled; batches stay open."""
        for each in [each for each in self._open.values() if not each.batch]:
            self.forfeit(each)

    def open_batch(self, stage: str) -> dict[str, Reservation]:
        """Return the reservations of requests that are in a batch, by id, also those of an earlier process."""
        return {each.id: each for each in self._open.values() if each.batch and each.stage == stage}


def _reservation(each: Try, worst_usd: float | None) -> Reservation:
    bounds = each.most_prompt_tokens, each.most_completion_tokens
    return Reservation(each.number, each.model, each.stage, each.id, *bounds, worst_usd, each.batch)


def usd(amount: float) -> str:
    """Write an amount as a person reads it: to the cent, or with the three digits that matter below a dollar.

    Example:
        >>> [usd(amount) for amount in (1234.5, 0.5, 0.0421, 0.00012, 0.0)]
        ['$1,234.50', '$0.50', '$0.0421', '$0.00012', '$0.00']
    """
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    digits = min(2 - math.floor(math.log10(abs(amount))), 9)
    whole, _, part = f"{amount:.{digits}f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"
