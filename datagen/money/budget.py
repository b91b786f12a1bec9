"""A spending cap that holds across restarts and kills.

Before a request is sent its worst case is reserved and written into the ledger: no more prompt tokens than its
body has bytes, and as many output tokens as it allows. What the service then counts replaces the reservation.
A try whose bill is unknown (a timeout, a connection lost after sending, a killed process) stays spent at its
worst case. So what is spent and what is reserved never exceed the cap, whatever happens to the process.

This assumes that the service bills no more output than the request allows. Some bill reasoning beyond it, so a new
service is on trial: until 20 of its bills are in, what is left must cover many times the worst case of everything in
flight. After a bill beyond the worst case nothing is sent until everything in flight is billed, and from then on more
is reserved.
"""

import asyncio
import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Ledger, Outcome, Try
from datagen.money.account import Account, Bill
from datagen.money.bounds import most_completion_tokens, most_prompt_tokens
from datagen.money.dollars import usd
from datagen.money.prices import Prices

log = logging.getLogger(__name__)

# Sums of floating-point amounts are trusted to this part of the cap.
_ROUNDING = 1e-9
#: Bills of a stage that must lie within their worst case before the service is trusted to keep to it.
_TRIAL = 20
#: How many times their worst case tries in flight together may cost on trial, and once a bill was beyond it.
_ON_TRIAL, _OVERBILLED = 32, 2


class BudgetReached(ServiceError):
    """The next request could cost more than what is left of the budget; everything answered is kept."""


class Budget(Account):
    """Tracks what a ledger's requests cost, and enforces a cap.

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
        self._waiting: list[asyncio.Future[None]] = []
        self._set_aside: dict[str, float] = {}
        #: Tries that ended in this process, for a rate.
        self.tries_ended = 0
        self._take_over()
        super().__init__(ledger.spending())
        for each in ledger.open_tries():
            self.hold(dataclasses.replace(each, reserved_usd=self._worst_of(each)))
        # How far a service's own count of tokens has gone beyond what was thought to be the most.
        excess = (self._excess_of(each, each.cost_usd) for each in ledger.tries_beyond_bounds())
        self._excess = max([1.0, *excess])
        # The newest try that was in flight when a bill went beyond its worst case.
        self._drained_after = 0

    def _take_over(self) -> None:
        """Close tries that earlier processes left open, and price those that had no price then."""
        with self.ledger.transaction():
            for each in self.ledger.open_tries():
                if not each.batch:
                    self.ledger.close_try(each.number, "unknown", cost_usd=self._worst_of(each))
            unpriced = set()
            for each in self.ledger.unpriced_tries():
                cost = self._cost_of(each) if each.outcome == "settled" else self._worst_of(each)
                if cost is None:
                    unpriced.add(each.model)
                else:
                    self.ledger.price_try(each.number, cost)
            if self.budget_usd is not None:
                self.prices.require(*unpriced)

    def _cost_of(self, each: Try) -> float | None:
        tokens = each.prompt_tokens or 0, each.completion_tokens or 0
        return self.prices.cost(each.model, *tokens, batch=each.batch)

    def _worst_of(self, each: Try) -> float | None:
        return self._worst_at_prices(each) if each.reserved_usd is None else each.reserved_usd

    def _worst_at_prices(self, each: Try) -> float | None:
        bounds = each.most_prompt_tokens, each.most_completion_tokens
        return self.prices.cost(each.model, *bounds, batch=each.batch)

    def _excess_of(self, each: Try, cost_usd: float | None) -> float:
        """Return how many times its worst case a try cost; 0 where that is not known."""
        worst = self._worst_at_prices(each)
        return cost_usd / worst if cost_usd and worst else 0.0

    def set_aside(self, stage: str, amount_usd: float) -> None:
        """Keep an amount in US dollars for one stage: tries of other stages must leave it, until it is set anew."""
        self._set_aside[stage] = amount_usd
        self._wake()

    def worst_usd(self, service_model: str, body: Mapping[str, Any], *, batch: bool = False) -> float:
        """Return the most that one try can cost, in US dollars; 0 where there is no price."""
        return self._worst(service_model, body, batch=batch)[2] or 0.0

    async def reserve(
        self, service_model: str, body: Mapping[str, Any], *, stage: str = "", id: str = ""
    ) -> Try:
        """Reserve the worst case of one try; wait while tries in flight may still cost less than reserved.

        Args:
            service_model: The model's name at the service.
            body: The request's body, which bounds its tokens.
            stage: The ledger's stage of the request.
            id: Its id.

        Raises:
            BudgetReached: Nothing is in flight, and the rest of the budget is too small.
            ConfigError: There is a cap, and the model has no price or the body no ``max_tokens``.
        """
        while True:
            held = self.try_reserve(service_model, body, stage=stage, id=id)
            if held is not None:
                return held
            if all(each.batch for each in self.open):
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
    ) -> Try | None:
        """Reserve the worst case of one try; None if it does not fit into the budget.

        Args:
            service_model: The model's name at the service.
            body: The request's body, which bounds its tokens.
            stage: The ledger's stage of the request.
            id: Its id.
            batch: Take batch prices.
            leave_usd: Amount to leave for others, in US dollars, beside their reservations.
        """
        prompt, completion, worst = self._worst(service_model, body, batch=batch)
        if self.budget_usd is not None and worst:
            kept = math.fsum(usd for name, usd in self._set_aside.items() if name != stage)
            left = self.budget_usd * (1 - _ROUNDING) - self.spent_usd - kept - leave_usd
            if self._is_draining() or self._at_risk(stage, worst, batch=batch) > left:
                return None
        return self._open_try(Try(0, stage, id, service_model, prompt, completion, worst, batch))

    def _open_try(self, each: Try) -> Try:
        """Write a try down; return it with its number."""
        held = self.ledger.open_try(each)
        self.hold(held)
        return held

    def _at_risk(self, stage: str, worst_usd: float, *, batch: bool) -> float:
        """Return what everything in flight and one more try may cost together, in US dollars."""
        at_risk = self.held_usd + worst_usd
        if self._excess > 1:
            return _OVERBILLED * at_risk
        on_trial = not batch and self.open and self.fewest_settled(stage) < _TRIAL
        return _ON_TRIAL * at_risk if on_trial else at_risk

    def _is_draining(self) -> bool:
        """Return whether tries are in flight whose worst case was estimated before a bill exceeded it."""
        before = (each for each in self.open if each.number <= self._drained_after and not each.batch)
        if self._drained_after and not any(before):
            self._drained_after = 0
        return bool(self._drained_after)

    def _worst(self, model: str, body: Mapping[str, Any], *, batch: bool) -> tuple[int, int, float | None]:
        """Return the most tokens in and out of one try, and what they cost."""
        prompt, completion = most_prompt_tokens(body), most_completion_tokens(body)
        if self.budget_usd is not None:
            self.prices.require(model)
            if completion is None:
                raise ConfigError(
                    "a budget needs max_tokens, which bounds the cost of a reply", expected="max_tokens"
                )
        cost = self.prices.cost(model, prompt, completion or 0, batch=batch)
        return prompt, completion or 0, None if cost is None else cost * self._excess

    def reached(self, worst_usd: float) -> BudgetReached:
        """Return the error for a request that could cost more than the budget has left."""
        assert self.budget_usd is not None
        kept = math.fsum(self._set_aside.values())
        aside = f"; {usd(kept)} is set aside for answers" if kept else ""
        beyond = ""
        if self._excess > 1:
            worst_usd *= _OVERBILLED
            beyond = f", for the service has billed up to {self._excess:.1f} times what a request allows"
        unknown = (
            f", {usd(self.unknown_usd)} of it for tries whose bill is unknown" if self.unknown_usd else ""
        )
        return BudgetReached(
            "the budget is reached",
            found=f"{usd(self.spent_usd)} of {usd(self.budget_usd)} spent{unknown}; "
            f"the next request could cost {usd(worst_usd)}{beyond}{aside}",
            remedy="raise `budget_usd` and run the same command again; what was answered is kept",
        )

    def pay(self, held: Try, bill: Bill, prompt_tokens: int = 0, completion_tokens: int = 0) -> float | None:
        """Close a try by its bill.

        Returns:
            The cost in US dollars where the service counted tokens and there is a price, else None.
        """
        if bill == "counted":
            return self.settle(held, prompt_tokens, completion_tokens)
        if bill == "none":
            self.release(held)
        else:
            self.forfeit(held)
        return None

    def settle(self, held: Try, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Replace the reservation of a try by the cost of the tokens that the service counted.

        A service that does not say how many tokens the prompt had leaves the bill unknown: the worst case
        stays spent.

        Returns:
            The cost in US dollars, for the ledger's row of the request; None where it is not known.
        """
        if prompt_tokens <= 0:
            self.forfeit(held)
            return None
        ended = dataclasses.replace(held, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        cost = self._cost_of(ended)
        self._note_excess(ended, cost)
        self._close(ended, "settled", cost)
        return cost

    def _note_excess(self, each: Try, cost_usd: float | None) -> None:
        """Raise the worst case of later tries where a service counts more than a request should allow."""
        excess = self._excess_of(each, cost_usd)
        if excess <= self._excess:
            return
        self._excess = excess
        self._drained_after = max(each.number for each in self.open)
        log.warning(
            "%s %s: the service billed %s, more than the %s that the request allows; as much is set aside from now on",
            each.stage,
            each.id,
            usd(cost_usd or 0.0),
            usd(self._worst_at_prices(each) or 0.0),
        )

    def release(self, held: Try) -> None:
        """Release the reservation of a try that was certainly not billed (refused, or never sent)."""
        self._close(held, "free", 0.0)

    def forfeit(self, held: Try) -> float | None:
        """Count the worst case of a try as spent, because its bill is unknown; return it in US dollars."""
        self._close(held, "unknown", held.reserved_usd)
        return held.reserved_usd

    def forfeit_copy(self, held: Try) -> None:
        """Count a try that was sent a second time by mistake as spent, at its worst case, beside the first one."""
        self.forfeit(self._open_try(held))

    def _close(self, each: Try, outcome: Outcome, cost_usd: float | None) -> None:
        self.count(each, outcome, cost_usd)
        self.tries_ended += 1
        self.ledger.close_try(
            each.number,
            outcome,
            cost_usd=cost_usd,
            prompt_tokens=each.prompt_tokens,
            completion_tokens=each.completion_tokens,
        )
        self._wake()

    def _wake(self) -> None:
        """Let every waiting :meth:`reserve` try again."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def close(self) -> None:
        """Forfeit the tries in flight, such as cancelled requests; batches stay open."""
        for each in [each for each in self.open if not each.batch]:
            self.forfeit(each)

    def open_batch(self, stage: str) -> dict[str, Try]:
        """Return the tries of requests that are in a batch, by id, also those of an earlier process."""
        return {each.id: each for each in self.open if each.batch and each.stage == stage}
