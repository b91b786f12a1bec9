"""Finding out how many requests a minute a service takes that names no limits and refuses what is too much.

A reply with status 429 and no figures says "slower", not how slow. So the pace is found out like the capacity of a
network (additive increase, multiplicative decrease): when the service answers again after refusals, the pace becomes
what it really answered since the last time, the time of its refusals included, and at most 0.8 of the pace before;
every answer then raises it by 1/100 of that. In the long run one request in twenty-five or fewer is refused.

Some services refuse now and then whatever the pace; slowing down for these would have no end. So the last tries are
parted into those of a slower and those of a faster pace. The pace is to blame, and lowered, as far as the faster ones
were refused more often than chance explains. An absolute least increase leads out of a pace that fell too low.
"""

import math
from collections import deque
from collections.abc import Collection

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
MINUTE_S = 60.0


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
        """Note that a try is sent; what is late is not made up for."""
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
    """Tell how far the pace explains refusals, from 0 to 1.

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
