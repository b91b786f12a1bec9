"""Decides when the next request may be sent: requests and tokens per minute, and requests in flight.

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
:mod:`datagen.service.rates`.
"""

import asyncio
import dataclasses
import heapq
import logging
import math
from collections.abc import Callable

from datagen.service.circuit import Circuit
from datagen.service.endpoint import Service
from datagen.service.limits import Limits, in_words
from datagen.service.rates import MINUTE_S, REMEDY, LearnedRate, RateLimit

log = logging.getLogger(__name__)

#: Requests in flight at the start, where the number in flight is found out: elsewhere the first reply may tell limits.
_FIRST_IN_FLIGHT_HERE = 8
_FIRST_IN_FLIGHT_ELSEWHERE = 1
#: A wait for a limit that is worth a warning.
LONG_WAIT_S = 600.0
#: Replies over which the tokens of a request are averaged.
_REMEMBERED = 200


@dataclasses.dataclass
class Ticket:
    """The permission to send one try; numbers rise in the order of sending."""

    number: int
    tokens: float


class Limiter:
    """Admits tries when rate limits, concurrency and the circuit breaker allow, the earliest request first.

    Args:
        service: The service, with its bounds.
        circuit: The circuit breaker of the service.
        clock: Tells the time in seconds.
    """

    def __init__(self, service: Service, circuit: Circuit, clock: Callable[[], float]) -> None:
        self.requests = RateLimit(service.requests_per_minute, "requests")
        self.tokens = RateLimit(service.tokens_per_minute, "tokens")
        known = service.requests_per_minute is not None or service.tokens_per_minute is not None
        first = _FIRST_IN_FLIGHT_HERE if service.is_loopback() else _FIRST_IN_FLIGHT_ELSEWHERE
        self._concurrency = ConcurrencyLimit(service.concurrency, first=first, limits_known=known)
        #: Found out where nobody says a limit; a server on this machine is limited by its slots alone.
        self.learned: LearnedRate | None = None if known or service.is_loopback() else LearnedRate()
        self._circuit = circuit
        self.in_flight = 0
        self._clock = clock
        self._next_number = 0
        self._waiting: list[tuple[int, int, float, asyncio.Future[Ticket]]] = []
        self._arrivals = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._heed_headers = service.heed_headers
        self._warned = False

    async def admit(self, order: int, tokens: float) -> Ticket:
        """Wait until one try may be sent, and count it.

        Args:
            order: Place of the request; lower ones go first.
            tokens: The estimated tokens of the try.

        Returns:
            The permission, to be returned with :meth:`leave` when the try has ended.
        """
        turn: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (order, self._arrivals, tokens, turn))
        self.pump()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._circuit.withdrawn(turn.result().number)
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
        self._circuit.withdrawn(ticket.number)
        self.leave(ticket)

    def observe(self, limits: Limits) -> None:
        """Update the limits from a reply's headers."""
        if limits.said and self._heed_headers:
            now = self._clock()
            self.learned = None
            self._concurrency.limits_are_known()
            self.requests.observe(limits.requests, now)
            self.tokens.observe(limits.tokens, now)
            if limits.reset_s:
                self._circuit.pause(min(limits.reset_s, MINUTE_S), "nothing is left of its limit")

    def counted(self, ticket: Ticket, tokens: float) -> None:
        """Replace the estimated tokens of a try by the counted ones."""
        self.tokens.correct(tokens - ticket.tokens, self._clock())
        ticket.tokens = tokens

    def answered(self, ticket: Ticket) -> None:
        """Note a reply, for the concurrency and the learned rate."""
        self._concurrency.answered(self.in_flight)
        if self.learned is None:
            return
        unknown = self.learned.per_minute == math.inf
        self.learned.answered(ticket.number, self._next_number, self._clock())
        if unknown and self.learned.per_minute < math.inf:
            self._concurrency.limits_are_known()
            log.info(
                "the service limits the rate without rate-limit headers; continuing at about %.0f requests a "
                "minute and adapting",
                self.learned.per_minute,
            )

    def overloaded(self, ticket: Ticket, *, whole: bool, unexplained: bool = False) -> None:
        """Note a sign of overload.

        Args:
            ticket: Of the try that met it.
            whole: Whether the whole service seems overloaded.
            unexplained: Whether it is a refusal without rate-limit headers: then the rate may have been too high.
        """
        if unexplained and self.learned is not None:
            self.learned.refused(ticket.number, self._clock())
            if self.learned.per_minute < math.inf:
                return
        self._concurrency.overloaded(ticket.number, self._next_number, whole=whole)

    def close(self) -> None:
        """Admit no more tries."""
        self._closed = True

    def pump(self) -> None:
        """Admit the tries that may be sent now, and schedule the next check."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self._closed and self.in_flight < self._concurrency.limit:
            _, _, tokens, turn = self._waiting[0]
            now = self._clock()
            due = now if turn.done() else self._due(now)
            if due > now:
                self._warn_of_a_long_wait(tokens, now)
                if due != math.inf:
                    self._timer = asyncio.get_running_loop().call_later(due - now, self.pump)
                return
            heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(self._grant(tokens, now))

    def _due(self, now: float) -> float:
        learned_s = now if self.learned is None else self.learned.ready_at(now)
        return max(self._circuit.open_at(), self.requests.ready_at(now), self.tokens.ready_at(now), learned_s)

    def _grant(self, tokens: float, now: float) -> Ticket:
        self.requests.spend(1, now)
        self.tokens.spend(tokens, now)
        if self.learned is not None:
            self.learned.sent(now)
        ticket = Ticket(self._next_number, tokens)
        self._next_number += 1
        self.in_flight += 1
        self._circuit.sent(ticket.number)
        return ticket

    def _warn_of_a_long_wait(self, tokens: float, now: float) -> None:
        """Warn once if a rate limit (not a pause, which is logged elsewhere) delays the next try very long."""
        for limit, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            wait_s = limit.ready_at(now) - now
            if wait_s > LONG_WAIT_S and not self._warned:
                self._warned = True
                log.warning(
                    "the next request waits %s: it needs about %s of the %s %s allowed per minute; %s",
                    in_words(wait_s), f"{amount:,.0f}", f"{limit.per_minute or 0:,.0f}", limit.name, REMEDY,
                )  # fmt: skip


class ConcurrencyLimit:
    """The number of requests in flight, adapted by additive increase and multiplicative decrease.

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
        """Raise the limit if it is used up: it doubles each round at first, later it grows by one."""
        if in_flight + 1 >= self.limit:
            self._limit = min(float(self._most), self._limit + (1.0 if self._doubling else 1.0 / self._limit))

    def overloaded(self, number: int, next_number: int, *, whole: bool) -> None:
        """Halve the limit, once for all tries in flight together.

        Args:
            number: Of the try that met the overload.
            next_number: Of the try that will be sent next.
            whole: Whether the service as a whole seems overloaded.
        """
        if number >= self._decreased_before and (whole or not self._limits_known):
            self._limit = max(1.0, self._limit / 2)
            self._doubling = False
            self._decreased_before = next_number


class TokenEstimator:
    """Estimates the tokens of requests from those before.

    Example:
        >>> estimator = TokenEstimator()
        >>> estimator.of(400, 1000)  # nothing is known yet: every byte a token, and the longest reply
        1400.0
        >>> estimator.learn(400, 100, 200)
        >>> round(estimator.of(800, 1000))
        420
    """

    def __init__(self) -> None:
        self._seen = 0
        self._tokens_per_byte = 0.0
        self._completion_tokens = 0.0

    def of(self, prompt_bytes: int, max_tokens: int) -> float:
        """Return the estimated tokens of a request with a prompt of so many bytes."""
        worst = float(prompt_bytes + max_tokens)
        if not self._seen:
            return worst
        return min(worst, 1.05 * (prompt_bytes * self._tokens_per_byte + self._completion_tokens))

    def learn(self, prompt_bytes: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Update the estimate with the counted tokens of a request."""
        self._seen += 1
        part = max(1 / self._seen, 1 / _REMEMBERED)
        self._tokens_per_byte += part * (prompt_tokens / max(prompt_bytes, 1) - self._tokens_per_byte)
        self._completion_tokens += part * (completion_tokens - self._completion_tokens)
