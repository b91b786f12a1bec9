"""When a whole service must be left alone: pauses it asks for, and the circuit that opens when it fails.

A refusal (HTTP 429, or 503 with Retry-After) can mean the account or one request. What it means is decided so:

- The figures that came with it say that an allowance is used up: the account is meant. Nothing is sent before
  the time given.
- The figures say that there is room left: the request alone is meant. It waits its own time, others go on, until
  several refusals in a row say otherwise.
- No figures came with it: the service is held. A reply to a request that was sent *after* the refused one shows
  that others are still served, and ends the hold; from then on it takes several refusals in a row to hold the
  service again. A long hold for which a single refusal is the only witness is probed with one *other* request
  after 5 s, 10 s, 20 s and so on. The refused request itself is never sent before its time.

A pause that ends within the patience is waited out, however long. A longer one ends the run at once, resumably.

Faults (timeouts, lost connections, HTTP 5xx, replies that are none) open the circuit when several different
requests fail in a row with no answer between them. It lets one request through at a time, at growing
distances; an answer closes it, and too many failed probes end the run, resumably.
"""

import logging
import random
from collections.abc import Callable

from datagen.service.limits import Limits, in_words, utc_in
from datagen.service.outage import Outage

log = logging.getLogger(__name__)

#: The circuit opens after this many faults in a row, of at least so many different requests.
FAULTS_IN_A_ROW = 10
REQUESTS_IN_A_ROW = 5
#: So many refusals in a row hold a service that is known to refuse single requests.
REFUSALS_IN_A_ROW = 6
#: ... if they are this part of all tries since the first of them, answers still awaited among them. Likewise faults.
MOST = 2 / 3
#: The first probe of a hold that only refusals without figures speak for; doubles.
FIRST_PROBE_S = 5.0
REFUSED_PROBES = 5
LONGEST_BACKOFF_S = 60.0
#: Pauses from this length on are worth a line in the log.
_WORTH_SAYING_S = 5.0


def backoff_s(first_wait_s: float, failures: int) -> float:
    """Draw an exponential backoff with full jitter, in seconds: uniform between 0 and a doubling, bounded time."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, first_wait_s * 2 ** min(failures - 1, 30)))


class Circuit:
    """Holds and releases one service.

    Args:
        patience_s: Longest pause that is waited out, in seconds.
        first_wait_s: Longest wait before the first probe of a failing service, in seconds.
        max_tries: Failed probes that a service gets that has not answered yet; three times as many otherwise.
        clock: Tells the time in seconds.
        woken: Called when a hold may have ended.
        address: Names the service in messages.
    """

    def __init__(
        self,
        *,
        patience_s: float,
        first_wait_s: float,
        max_tries: int,
        clock: Callable[[], float],
        woken: Callable[[], None] = lambda: None,
        address: str = "the service",
    ) -> None:
        self._patience_s, self._first_wait_s, self._max_tries = patience_s, first_wait_s, max_tries
        self._clock, self._woken = clock, woken
        self._outage = Outage(address, clock)
        self.ended = ""
        self.answered_once = False
        self._pause_until = 0.0
        # A hold ends with one request let through (half open), or for all at once.
        self._hold = ""
        self._hold_until = 0.0
        self._half_open = False
        self._probe: int | None = None
        self._probes = 0
        self._faulty: list[tuple[int, str]] = []
        self._refused: list[int] = []
        self._refused_since = 0.0
        self._last_sent = self._last_answered = -1
        self._others_pass = False
        self._words = ""

    @property
    def held(self) -> bool:
        """Whether the service is left alone, or only probed."""
        return bool(self._hold) or self._clock() < self._pause_until

    @property
    def undecided(self) -> bool:
        """Whether refusals without figures hold the service, and no other reply has spoken yet."""
        return self._hold == "refusals"

    def open_at(self) -> float:
        """Return the time before which nothing may be sent; infinite while a probe is out."""
        if self._probe is not None:
            return float("inf")
        return max(self._pause_until, self._hold_until if self._hold else 0.0)

    def sent(self, number: int) -> None:
        """Note that a try is sent; numbers rise. In a half-open hold it is the probe."""
        self._last_sent = number
        if self._hold and self._half_open:
            self._probe = number
        elif self._hold:
            self._hold, self._probes = "", 0

    def withdrawn(self, number: int) -> None:
        """Note that a try came to nothing on our side: it says nothing about the service."""
        if self._probe == number:
            self._probe = None

    def answered(self, number: int) -> None:
        """Note that the service did its work on a try."""
        self.answered_once = True
        self._faulty.clear()
        self._outage.over()
        self._last_answered = max(self._last_answered, number)
        # What was sent after a refused try, and answered, shows that the refusal did not concern all.
        later = [refused for refused in self._refused if refused > number]
        self._others_pass |= len(later) < len(self._refused)
        self._refused = later
        if self._probe == number or self._hold == "faults" or (self._hold and not self._refusals_are_run()):
            self._release()

    def _release(self) -> None:
        self._hold, self._probe, self._probes, self._half_open = "", None, 0, False
        self._woken()

    def refused(self, number: int, limits: Limits, tokens: float, words: str) -> bool:
        """Note a refusal.

        Args:
            number: Of the try.
            limits: What came with the refusal.
            tokens: What the try was thought to need.
            words: The refusal, for messages.

        Returns:
            Whether the service as a whole is meant (or may be), so that the request is not to blame.
        """
        exhausted = limits.exhausted(tokens)
        if exhausted:
            self.withdrawn(number)
            self.pause(limits.wait_s if limits.wait_s is not None else limits.reset_s or 1.0, words)
            return True
        self._others_pass |= exhausted is False
        return self._suspect(number, limits.wait_s, words)

    def pause(self, seconds: float, words: str) -> None:
        """Leave the service alone for a time that it named; ends the run if that is beyond the patience."""
        until = self._clock() + seconds
        if until <= self._pause_until:
            return
        if seconds > self._patience_s:
            self._end(f"the service asks to wait {in_words(seconds)} (until {utc_in(seconds)}), longer than the "
                      f"patience of {in_words(self._patience_s)}")  # fmt: skip
        elif seconds >= _WORTH_SAYING_S:
            log.warning("paused for %s (until %s): %s", in_words(seconds), utc_in(seconds), words)
        self._pause_until = until

    def _suspect(self, number: int, wait_s: float | None, words: str) -> bool:
        """Judge a refusal without figures by what became of others."""
        now = self._clock()
        self._words = words
        is_probe = self._probe == number
        if not self._refused:
            self._refused_since = now
        if number > self._last_answered:
            self._refused.append(number)
        if is_probe:
            self._probe = None
            self._probes += 1
            self._others_pass = False
        elif self._hold != "refusals" and not self._refusals_are_run():
            return False
        asked_s = wait_s if wait_s is not None else backoff_s(self._first_wait_s, self._probes + 1)
        probe_s = FIRST_PROBE_S * 2**self._probes
        since_s = now - self._refused_since
        if since_s > self._patience_s or (asked_s > self._patience_s and self._probes >= REFUSED_PROBES):
            self._end(f"the service has refused every request for {in_words(since_s)}")
        if self._hold != "refusals":
            level = logging.INFO if min(asked_s, probe_s) >= _WORTH_SAYING_S else logging.DEBUG
            log.log(level, "held for up to %s: %s", in_words(min(asked_s, probe_s)), words)
        joins = self._hold == "refusals" and not is_probe
        until = now + min(asked_s, probe_s)
        self._hold_until = max(self._hold_until, until) if joins else until
        half_open = self._probes > 0 or wait_s is None or asked_s > probe_s
        self._half_open = half_open or (joins and self._half_open)
        self._hold = "refusals"
        return True

    def _refusals_are_run(self) -> bool:
        """Tell whether refusals hold the service: those of tries later than any that was answered."""
        if not self._refused:
            return False
        if not self._others_pass:
            return True
        return len(self._refused) >= REFUSALS_IN_A_ROW and self._most_since(
            self._refused[0], len(self._refused)
        )

    def _most_since(self, number: int, many: int) -> bool:
        """Tell whether so many are most of the tries since one: slow ones that may yet be answered count too."""
        return many >= MOST * (self._last_sent - number + 1)

    def nobody_else(self) -> None:
        """Say that no other request is left to try: then a refusal stands as it is."""
        if self.undecided:
            self._end("the service refuses to go on for longer than the patience "
                      f"of {in_words(self._patience_s)}")  # fmt: skip

    def failed(self, number: int, name: str, *, unreachable: bool, words: str = "") -> bool:
        """Note a fault of a try.

        Args:
            number: Of the try.
            name: Names the request.
            unreachable: The service is not there at all.
            words: The fault, for messages.

        Returns:
            Whether the service as a whole is to blame, so that it costs the request no try.
        """
        self._faulty.append((number, name))
        self._outage.failed()
        if self._probe == number:
            self._probe = None
            self._probes += 1
            if self._probes >= self._most_probes:
                self._end(self._failing(unreachable))
        elif self._hold:
            return True
        elif not self._is_run(unreachable):
            return unreachable
        elif unreachable and not self.answered_once:
            self._end(self._failing(unreachable))
        wait_s = backoff_s(self._first_wait_s, self._probes + 1)
        if not self.ended:
            what = "has been unreachable" if unreachable else f"has failed ({words})"
            self._outage.wait(what, wait_s, self._probes + 1, self._most_probes)
        self._hold, self._half_open, self._hold_until = "faults", True, self._clock() + wait_s
        return True

    @property
    def _most_probes(self) -> int:
        return (3 if self.answered_once else 1) * self._max_tries

    def _is_run(self, unreachable: bool) -> bool:
        many = len(self._faulty)
        if unreachable and many >= self._max_tries:
            return True
        if many < FAULTS_IN_A_ROW or len({name for _, name in self._faulty}) < REQUESTS_IN_A_ROW:
            return False
        return self._most_since(min(number for number, _ in self._faulty), many)

    def _failing(self, unreachable: bool) -> str:
        if unreachable:
            return "the service cannot be reached"
        return f"{len(self._faulty)} tries in a row failed"

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self._woken()
