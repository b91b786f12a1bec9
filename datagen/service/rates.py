"""How fast requests may be sent: even spending under a limit a minute, and a rate learned where none is named.

A reply with status 429 and no figures says "slower", not how slow. So the pace is found out like the capacity of a
network (additive increase, multiplicative decrease): when the service answers again after refusals, the pace becomes
what it really answered since the last time, the time of its refusals included, and at most 0.8 of the pace before;
every answer then raises it by 1/100 of that. In the long run one request in twenty-five or fewer is refused.

Some services refuse now and then whatever the pace; slowing down for these would have no end. So the last tries are
parted into those of a slower and those of a faster pace. The pace is to blame, and lowered, as far as the faster ones
were refused more often than chance explains. An absolute least increase leads out of a pace that fell too low.
"""

import logging
import math
from collections import deque
from collections.abc import Collection

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

#: What is left of the pace after a refusal.
DECREASE = 0.8
#: What an answer adds, as a part of the pace after the last refusal.
INCREASE = 1 / 100
#: What it adds at least, in requests a minute.
LEAST_INCREASE = 0.4
#: From fewer answers nothing is concluded, unless they took a minute.
FEWEST_ANSWERS = 10
#: So many of the last tries are compared, slower with faster ones, and no fewer than the second number.
COMPARED = 300
FEWEST_COMPARED = 40
#: A difference of so many standard errors is put down to the pace wholly, a smaller one in proportion.
SURE = 1.5


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
        """The current limit a minute; None if there is none."""
        known = [each for each in (self._bound, self._said) if each is not None]
        return min(known, default=None)

    def observe(self, allowance: Allowance, now: float) -> None:
        """Update the limit from a reply's headers."""
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
        """Forget spending of more than a minute ago."""
        while self._spent and self._spent[0][0] <= now - MINUTE_S:
            self._spent_sum -= self._spent.popleft()[1]
        if not self._spent:
            self._spent_sum = 0.0

    def spend(self, amount: float, now: float) -> None:
        """Count an amount as spent now."""
        rate = self._rate(now)
        if rate is not None:
            # Lateness is made up for at a bounded pace, but not at the start.
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
        """Return the rate in units per second; None if unlimited."""
        if self.per_minute is None:
            return None
        scarcity = self._scarcity if now < self._scarce_until else 1.0
        return SHARE * scarcity * self.per_minute / MINUTE_S


class LearnedRate:
    """The number of requests a minute that a service is found to take; none until it has refused.

    Example:
        >>> rate = LearnedRate()
        >>> for number in range(30):
        ...     rate.answered(number, next_number=number + 1, now=0.4 * number)
        >>> rate.refused(30, now=12.0)
        >>> rate.answered(31, next_number=32, now=60.0)  # thirty were answered within a minute
        >>> round(rate.per_minute)
        30
    """

    def __init__(self) -> None:
        self.per_minute = math.inf
        self._step = 0.0
        self._since: float | None = None
        self._answers = 0
        self._refused: int | None = None
        self._heeded_before = 0
        self._tries: deque[tuple[float, bool]] = deque(maxlen=COMPARED)
        self._ready_at = -math.inf

    def ready_at(self, now: float) -> float:
        """Return when the next try is due."""
        return max(now, self._ready_at)

    def sent(self, now: float) -> None:
        """Note that a try is sent; lateness is not made up for."""
        self._ready_at = now + MINUTE_S / self.per_minute

    def refused(self, number: int, now: float) -> None:
        """Note that a try was refused; those that were sent before the pace was last lowered say nothing new."""
        self._since = now if self._since is None else self._since
        if number >= self._heeded_before and self._refused is None:
            self._refused = number
            self._note(refused=True)

    def answered(self, number: int, next_number: int, now: float) -> None:
        """Note an answer.

        Args:
            number: Of the try; numbers rise in the order of sending.
            next_number: Of the try that will be sent next.
            now: The time in seconds.
        """
        if self._since is None:
            self._since = now
        elapsed_s = now - self._since
        if self._refused is None or number < self._refused:
            self._answers += 1
            if number >= self._heeded_before:
                self._note(refused=False)
            self.per_minute += self._step
            return
        if self._answers >= FEWEST_ANSWERS or elapsed_s >= MINUTE_S:
            answered_a_minute = max(1, self._answers) * MINUTE_S / max(elapsed_s, 0.001)
            self.per_minute = max(1.0, self._lowered(answered_a_minute))
            self._step = max(LEAST_INCREASE, INCREASE * self.per_minute)
            self._since, self._answers = now, 0
            self._heeded_before = next_number
        self._answers += 1
        self._refused = None

    def _note(self, *, refused: bool) -> None:
        if self.per_minute < math.inf:
            self._tries.append((self.per_minute, refused))

    def _lowered(self, answered_a_minute: float) -> float:
        """Return the pace after a refusal, lowered as far as the pace is to blame."""
        lowest = min(DECREASE * self.per_minute, answered_a_minute)
        blame = to_blame(self._tries)
        return lowest if blame == 1 else lowest + (1 - blame) * (self.per_minute - lowest)


def to_blame(tries: Collection[tuple[float, bool]]) -> float:
    """Return how far the pace explains the refusals, from 0 to 1.

    Args:
        tries: Pace at the time, and whether it was refused; of too few, all is put down to the pace.

    Example:
        >>> slow = [(60.0, number % 10 == 0) for number in range(50)]
        >>> fast = [(90.0, number % 3 == 0) for number in range(50)]
        >>> to_blame(slow + fast), to_blame(slow + slow)
        (1.0, 0.0)
    """
    if len(tries) < FEWEST_COMPARED:
        return 1.0
    outcomes = [refused for _, refused in sorted(tries, key=lambda each: each[0])]
    half = len(outcomes) // 2
    slower, faster = sum(outcomes[:half]), sum(outcomes[-half:])
    error = math.sqrt(slower + faster)
    return min(1.0, max(0.0, (faster - slower) / (SURE * error))) if error else 0.0
