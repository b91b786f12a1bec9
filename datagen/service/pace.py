"""When the next request may be sent: limits of requests and tokens a minute, and how many are in flight.

Requests are spread evenly: at 6,000 a minute one leaves every 10 ms, from the first one on. A little is left unused
(3%), because requests do not arrive exactly as they left. After a stall of the machine the pace is up to a quarter
faster until the time is made up for, and never so fast that any 60 s would hold more than 97% of the limit. Tokens
are counted in the same way, before sending, from an estimate that is corrected as soon as the service has counted.
The estimate is the worst case (every byte a token, ``max_tokens`` in the reply) until replies have taught what
requests really take.

The limits are those of the settings, or where these are silent those of the ``x-ratelimit-*`` headers. Figures
in the settings are upper bounds: headers tighten them and loosen them again, never beyond. A service that says
nothing about limits, such as a local one, gets additive increase and multiplicative decrease of the number of
requests in flight: one more after a round without trouble, half as many after an overload (429, 503, timeout). One
that is elsewhere and refuses (429) without any figure has a rate limit, which is found out in the same manner; see
:mod:`datagen.service.learned_rate`.
"""

import asyncio
import dataclasses
import heapq
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from datagen.service.breaker import Breaker
from datagen.service.learned_rate import LearnedRate
from datagen.service.limits import Allowance, Limits

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
MINUTE_S = 60.0
#: Requests in flight at the start, where the number in flight is found out: elsewhere the first reply may tell limits.
_FIRST_IN_FLIGHT_HERE = 8
_FIRST_IN_FLIGHT_ELSEWHERE = 1
#: Replies over which the tokens of a request are averaged.
_REMEMBERED = 200


class Pacing(Protocol):
    """What a pace needs to know of a service; see :class:`datagen.service.wire.Service`."""

    @property
    def concurrency(self) -> int: ...  # noqa: D102
    @property
    def requests_per_minute(self) -> int | None: ...  # noqa: D102
    @property
    def tokens_per_minute(self) -> int | None: ...  # noqa: D102
    def is_loopback(self) -> bool: ...  # noqa: D102


class Meter:
    """Spreads spending evenly under one limit a minute.

    Args:
        bound: Upper bound a minute from the settings; None leaves the limit to the headers.
        name: What is spent, for messages.

    Example:
        >>> meter = Meter(bound=600)
        >>> meter.spend(1, now=0.0)
        >>> round(meter.ready_at(now=0.0), 3)
        0.103
    """

    def __init__(self, bound: float | None, name: str = "requests") -> None:
        self._bound, self._name = bound, name
        self._said: float | None = None
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
                log.info("the service allows %s %s a minute", f"{limit:,.0f}", self._name)
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


class InFlight:
    """How many requests may be in flight, found out by additive increase and multiplicative decrease.

    Args:
        most: Upper bound, and the start where ``limits_known``.
        first: The start elsewhere.
        limits_known: Other limits are known. Then a single overload says nothing about the number in flight; only
            one that concerns the whole service counts.
    """

    def __init__(self, most: int, *, first: int, limits_known: bool) -> None:
        self._most = most
        self._limits_known = limits_known
        self._limit = float(most if limits_known else min(most, first))
        self._doubling = True
        self._decreased_before = 0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def limits_are_known(self) -> None:
        """Rely on other limits from now on."""
        if not self._limits_known:
            self._limits_known, self._limit = True, float(self._most)

    def answered(self, in_flight: int) -> None:
        """Allow more, where what is allowed is in use: twice as many a round at first, later one more."""
        if in_flight + 1 >= self.limit:
            self._limit = min(float(self._most), self._limit + (1.0 if self._doubling else 1.0 / self._limit))

    def overloaded(self, number: int, next_number: int, *, whole: bool) -> None:
        """Halve, once for all that was in flight together.

        Args:
            number: Of the try that met the overload.
            next_number: Of the try that will be sent next.
            whole: Whether the service as a whole seems overloaded.
        """
        if number >= self._decreased_before and (whole or not self._limits_known):
            self._limit = max(1.0, self._limit / 2)
            self._doubling = False
            self._decreased_before = next_number


class Appetite:
    """Learns how many tokens requests take.

    Example:
        >>> appetite = Appetite()
        >>> appetite.of(400, 1000)  # nothing is known yet: every byte a token, and the longest reply
        1400.0
        >>> appetite.learn(400, 100, 200)
        >>> round(appetite.of(800, 1000))
        420
    """

    def __init__(self) -> None:
        self._seen = 0
        self._tokens_per_byte = 0.0
        self._completion_tokens = 0.0

    def of(self, prompt_bytes: int, max_tokens: int) -> float:
        """Return what a request with a prompt of so many bytes is thought to take, in tokens."""
        worst = float(prompt_bytes + max_tokens)
        if not self._seen:
            return worst
        return min(worst, 1.05 * (prompt_bytes * self._tokens_per_byte + self._completion_tokens))

    def learn(self, prompt_bytes: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Take in what a request took."""
        self._seen += 1
        part = max(1 / self._seen, 1 / _REMEMBERED)
        self._tokens_per_byte += part * (prompt_tokens / max(prompt_bytes, 1) - self._tokens_per_byte)
        self._completion_tokens += part * (completion_tokens - self._completion_tokens)


@dataclasses.dataclass
class Ticket:
    """The permission to send one try; numbers rise in the order of sending."""

    number: int
    tokens: float


class Pace:
    """Lets tries go when limits, the number in flight and the breaker allow, the earliest request first.

    Args:
        service: Its bounds.
        breaker: Says when the service is left alone.
        clock: Tells the time in seconds.
    """

    def __init__(self, service: Pacing, breaker: Breaker, clock: Callable[[], float]) -> None:
        self.requests = Meter(service.requests_per_minute, "requests")
        self.tokens = Meter(service.tokens_per_minute, "tokens")
        known = service.requests_per_minute is not None or service.tokens_per_minute is not None
        first = _FIRST_IN_FLIGHT_HERE if service.is_loopback() else _FIRST_IN_FLIGHT_ELSEWHERE
        self.in_flight_limit = InFlight(service.concurrency, first=first, limits_known=known)
        #: Found out where nobody says a limit; a server on this machine is limited by its slots alone.
        self.learned: LearnedRate | None = None if known or service.is_loopback() else LearnedRate()
        self.breaker = breaker
        self.in_flight = 0
        self._clock = clock
        self._next_number = 0
        self._waiting: list[tuple[int, int, float, asyncio.Future[Ticket]]] = []
        self._arrivals = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many tries wait for their turn."""
        return len(self._waiting)

    async def admit(self, order: int, tokens: float) -> Ticket:
        """Wait until one try may be sent, and count it.

        Args:
            order: Place of the request; lower ones go first.
            tokens: What the try is thought to take.

        Returns:
            The permission, to be handed to :meth:`leave` when the try has ended.
        """
        turn: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (order, self._arrivals, tokens, turn))
        self.pump()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.breaker.withdrawn(turn.result().number)
                self.leave(turn.result())
            raise

    def leave(self, ticket: Ticket) -> None:
        """End a try, so that another may be in flight."""
        self.in_flight -= 1
        self.pump()

    def take_back(self, ticket: Ticket) -> None:
        """Undo a permission that was not used."""
        now = self._clock()
        self.requests.correct(-1, now)
        self.tokens.correct(-ticket.tokens, now)
        self.breaker.withdrawn(ticket.number)
        self.leave(ticket)

    def hear(self, limits: Limits) -> None:
        """Take in what a reply says about the limits."""
        if limits.said:
            now = self._clock()
            self.learned = None
            self.in_flight_limit.limits_are_known()
            self.requests.hear(limits.requests, now)
            self.tokens.hear(limits.tokens, now)
            if limits.reset_s:
                self.breaker.pause(min(limits.reset_s, MINUTE_S), "nothing is left of its limit")

    def counted(self, ticket: Ticket, tokens: float) -> None:
        """Replace the estimate of a try by what it took."""
        self.tokens.correct(tokens - ticket.tokens, self._clock())
        ticket.tokens = tokens

    def answered(self, ticket: Ticket) -> None:
        """Note a reply, for the number in flight and a rate that is being found out."""
        self.in_flight_limit.answered(self.in_flight)
        if self.learned is None:
            return
        unknown = self.learned.per_minute == math.inf
        self.learned.answered(ticket.number, self._next_number, self._clock())
        if unknown and self.learned.per_minute < math.inf:
            self.in_flight_limit.limits_are_known()
            log.info(
                "the service refuses what is too much without naming a limit; going on with about %.0f requests a "
                "minute, and finding out how many it takes",
                self.learned.per_minute,
            )

    def overloaded(self, ticket: Ticket, *, whole: bool, unexplained: bool = False) -> None:
        """Note a sign of overload.

        Args:
            ticket: Of the try that met it.
            whole: Whether the whole service is overloaded, as far as one can tell.
            unexplained: Whether it is a refusal without figures: then the rate may have been too high.
        """
        if unexplained and self.learned is not None:
            self.learned.refused(ticket.number, self._clock())
            if self.learned.per_minute < math.inf:
                return
        self.in_flight_limit.overloaded(ticket.number, self._next_number, whole=whole)

    def close(self) -> None:
        """Let nothing go any more."""
        self._closed = True

    def pump(self) -> None:
        """Let go whatever may go, and come back when more may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self._closed and self.in_flight < self.in_flight_limit.limit:
            _, _, tokens, turn = self._waiting[0]
            if turn.done():
                heapq.heappop(self._waiting)
                continue
            now = self._clock()
            due = max(self.breaker.open_at(), self.requests.ready_at(now), self.tokens.ready_at(now))
            if self.learned is not None:
                due = max(due, self.learned.ready_at(now))
            if due > now:
                if due != float("inf"):
                    self._timer = asyncio.get_running_loop().call_later(due - now, self.pump)
                return
            heapq.heappop(self._waiting)
            turn.set_result(self._grant(tokens, now))

    def _grant(self, tokens: float, now: float) -> Ticket:
        self.requests.spend(1, now)
        self.tokens.spend(tokens, now)
        if self.learned is not None:
            self.learned.sent(now)
        ticket = Ticket(self._next_number, tokens)
        self._next_number += 1
        self.in_flight += 1
        self.breaker.sent(ticket.number)
        return ticket
