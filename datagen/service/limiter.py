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
from collections.abc import Callable

from datagen.service.circuit import Circuit
from datagen.service.endpoint import Service
from datagen.service.in_flight import InFlight
from datagen.service.learned_rate import LearnedRate
from datagen.service.limits import Limits, in_words
from datagen.service.rates import MINUTE_S, REMEDY, RateLimit

log = logging.getLogger(__name__)

#: Requests in flight at the start, where the number in flight is found out: elsewhere the first reply may tell limits.
_FIRST_IN_FLIGHT_HERE = 8
_FIRST_IN_FLIGHT_ELSEWHERE = 1
#: A wait for a limit that is worth a warning.
LONG_WAIT_S = 600.0


@dataclasses.dataclass
class Ticket:
    """The permission to send one try; numbers rise in the order of sending."""

    number: int
    tokens: float


class Limiter:
    """Lets tries go when limits, the number in flight and the breaker allow, the earliest request first.

    Args:
        service: Its bounds.
        breaker: Says when the service is left alone.
        clock: Tells the time in seconds.
    """

    def __init__(self, service: Service, breaker: Circuit, clock: Callable[[], float]) -> None:
        self.requests = RateLimit(service.requests_per_minute, "requests")
        self.tokens = RateLimit(service.tokens_per_minute, "tokens")
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
        self._heed_headers = service.heed_headers
        self._long_wait_told = False

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
        if limits.said and self._heed_headers:
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
                self._tell_of_a_long_wait(tokens, now)
                if due != float("inf"):
                    self._timer = asyncio.get_running_loop().call_later(due - now, self.pump)
                return
            heapq.heappop(self._waiting)
            turn.set_result(self._grant(tokens, now))

    def _tell_of_a_long_wait(self, tokens: float, now: float) -> None:
        """Warn once where a limit, and no pause that was told of already, makes the next try wait very long."""
        for meter, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            wait_s = meter.ready_at(now) - now
            if wait_s > LONG_WAIT_S and not self._long_wait_told:
                self._long_wait_told = True
                log.warning(
                    "the next request waits %s, for it takes about %s of the %s %s a minute that are allowed; %s",
                    in_words(wait_s),
                    f"{amount:,.0f}",
                    f"{meter.per_minute or 0:,.0f}",
                    meter.name,
                    REMEDY,
                )

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
