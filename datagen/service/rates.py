"""Even spending under a limit per minute, of requests or tokens; used by :mod:`datagen.service.limiter`."""

import logging
import math
from collections import deque

from datagen.service.limits import Allowance

log = logging.getLogger(__name__)

#: The part of a limit that is used.
SHARE = 0.97
#: Lateness that is made up for, in seconds; more is lost.
CATCH_UP_S = 10.0
#: How much faster than even the pace may get to make up for lateness.
HURRY = 1.25
#: How late a timer comes at best, in seconds: not worth being counted as hurrying.
_TICK_S = 0.02
#: Below this part of its limit, a remaining allowance slows the pace in proportion.
SCARCE = 0.04
#: A limit from a header that is so many times smaller than the one before is worth a warning.
FAR_LESS = 10
#: What to do about a limit in a header that cannot be meant.
REMEDY = (
    "if the header is wrong, set heed_headers: false for this service in the config, and limits of your own"
)
MINUTE_S = 60.0


class RateLimit:
    """Spreads spending evenly under one limit a minute.

    Args:
        bound: Upper bound a minute from the settings; None leaves the limit to the headers.
        name: What is spent, for messages.

    Example:
        >>> meter = RateLimit(bound=600)
        >>> meter.spend(1, now=0.0)
        >>> round(meter.ready_at(now=0.0), 3)
        0.103
    """

    def __init__(self, bound: float | None, name: str = "requests") -> None:
        self._bound, self.name = bound, name
        self._said: float | None = None
        self._told = False
        self._scarcity = 1.0
        self._scarce_until = 0.0
        # The times from which on the limit, and the bound on hurrying, allow the next spending.
        self._even_at = -math.inf
        self._hurried_at = -math.inf
        # What was spent in the last minute: times and amounts.
        self._spent: deque[tuple[float, float]] = deque()
        self._spent_sum = 0.0

    @property
    def per_minute(self) -> float | None:
        """The limit that counts now, a minute; None where there is none."""
        known = [each for each in (self._bound, self._said) if each is not None]
        return min(known, default=None)

    def hear(self, allowance: Allowance, now: float) -> None:
        """Take in what a reply says about this limit."""
        limit, remaining, reset_s = allowance.limit, allowance.remaining, allowance.reset_s
        if limit is not None:
            # Some providers give a limit a day in the same header; its reset gives it away.
            before = self.per_minute
            self._said = limit if reset_s is None or reset_s <= 1.05 * MINUTE_S else None
            if self.per_minute != before and self.per_minute is not None:
                log.info("the service allows %s %s a minute", f"{limit:,.0f}", self.name)
                if before is not None and self.per_minute * FAR_LESS <= before and not self._told:
                    self._told = True
                    log.warning(
                        "that is %s times less than the %s a minute before; %s",
                        f"{before / self.per_minute:,.0f}",
                        f"{before:,.0f}",
                        REMEDY,
                    )
        if limit is not None and remaining is not None:
            self._scarcity = min(1.0, max(0.02, remaining / (SCARCE * limit)))
            self._scarce_until = now + min(reset_s if reset_s is not None else 1.0, MINUTE_S)

    def ready_at(self, now: float) -> float:
        """Return when the next spending is due."""
        if self.per_minute is None:
            return now
        due = max(now, self._even_at, self._hurried_at)
        self._forget(now)
        over = self._spent_sum - SHARE * self.per_minute
        for at, amount in self._spent:
            if over <= 0:
                break
            over -= amount
            due = max(due, at + MINUTE_S)
        return due

    def _forget(self, now: float) -> None:
        """Let go of what was spent more than a minute ago."""
        while self._spent and self._spent[0][0] <= now - MINUTE_S:
            self._spent_sum -= self._spent.popleft()[1]
        if not self._spent:
            self._spent_sum = 0.0

    def spend(self, amount: float, now: float) -> None:
        """Count an amount as spent now."""
        rate = self._rate(now)
        if rate is not None:
            # Some lateness is made up for, at a bounded pace; there is none to make up for at the start.
            late_s = min(now - self._even_at, CATCH_UP_S) if self._even_at > -math.inf else 0.0
            self._even_at = max(self._even_at, now - max(late_s, 0.0)) + amount / rate
            self._hurried_at = max(self._hurried_at, now - _TICK_S) + amount / (rate * HURRY)
            self._note(amount, now)

    def _note(self, amount: float, now: float) -> None:
        self._forget(now)
        self._spent.append((now, amount))
        self._spent_sum += amount

    def correct(self, amount: float, now: float) -> None:
        """Count an amount more (or, below 0, less) for something that was spent before."""
        rate = self._rate(now)
        if rate is not None:
            self._even_at = max(self._even_at + amount / rate, min(self._even_at, now))
            self._hurried_at = max(self._hurried_at + amount / (rate * HURRY), min(self._hurried_at, now))
            self._note(amount, now)

    def _rate(self, now: float) -> float | None:
        """Return what may be spent a second; None for any amount."""
        if self.per_minute is None:
            return None
        scarcity = self._scarcity if now < self._scarce_until else 1.0
        return SHARE * scarcity * self.per_minute / MINUTE_S
