"""The circuit breaker of a service: pauses that it asks for, and holds while it fails.

A refusal (HTTP 429, or 503 with Retry-After) is either account-wide or concerns one request:

- Its headers say that an allowance is used up: the limit is account-wide. Nothing is sent before the time given.
- Its headers say that allowance is left: the limit concerns this request. It waits, others go on, unless several
  requests in a row are refused.
- It has no rate-limit headers: the service is held. A reply to a request that was sent *after* the refused one shows
  that others are still served, and ends the hold; from then on it takes several refusals in a row to hold the
  service again. A long hold for which a single refusal is the only witness is probed with one *other* request
  after 5 s, 10 s, 20 s and so on. The refused request itself is never sent before its time.

A pause of at most ``patience_s`` is waited out. A longer one ends the run at once; the same command resumes it.

Faults (timeouts, lost connections, HTTP 5xx, invalid replies) open the circuit when several different requests fail
in a row with no answer between them. It lets one request through at a time, at growing distances; an answer closes
it, and too many failed probes end the run, resumably.
"""

import dataclasses
import logging
import math
import random
from collections.abc import Callable
from typing import Literal

from datagen.service.limits import Limits, in_words, utc_in

log = logging.getLogger(__name__)

#: The circuit opens after this many faults in a row, of at least so many different requests.
FAULTS_IN_A_ROW = 10
REQUESTS_IN_A_ROW = 5
#: So many refusals in a row hold a service that is known to refuse single requests.
REFUSALS_IN_A_ROW = 6
#: ... if they are this part of all tries since the first of them, answers still awaited among them. Likewise faults.
MOST = 2 / 3
#: Seconds until the first probe of a hold that only refusals without rate-limit headers justify; doubles.
FIRST_PROBE_S = 5.0
REFUSED_PROBES = 5
LONGEST_BACKOFF_S = 60.0
#: Shorter pauses are not logged, in seconds.
_WORTH_SAYING_S = 5.0
#: Lines about one outage are no nearer to each other than this, unless the next try is as far away; in seconds.
_BETWEEN_LINES_S = 10.0


def backoff_s(first_wait_s: float, failures: int) -> float:
    """Draw an exponential backoff with full jitter, in seconds: uniform between 0 and a doubling, bounded time."""
    return random.uniform(0, min(LONGEST_BACKOFF_S, first_wait_s * 2 ** min(failures - 1, 30)))


@dataclasses.dataclass
class _Hold:
    """A time before which nothing is sent; then one try at a time is sent (a probe), or all of them."""

    kind: Literal["faults", "refusals"]
    until: float
    half_open: bool = True
    probes: int = 0
    probe: int | None = None


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
        self._outage = OutageLog(address, clock)
        #: Why the run must end; "" while it may go on.
        self.ended = ""
        self._pause_until = -math.inf
        self._hold: _Hold | None = None
        # Failed tries, by number, that were sent after the last one that was answered: faults by their request's name,
        # refusals by their time.
        self._faults: dict[int, str] = {}
        self._refusals: dict[int, float] = {}
        self._last_sent = self._last_answered = -1
        # Whether a refusal may concern one request alone.
        self._others_pass = False

    @property
    def undecided(self) -> bool:
        """Whether refusals without figures hold the service, and no other reply has spoken yet."""
        return self._hold is not None and self._hold.kind == "refusals"

    def open_at(self) -> float:
        """Return the time before which nothing may be sent; infinite while a probe is out."""
        if self._hold is None:
            return self._pause_until
        return math.inf if self._hold.probe is not None else max(self._pause_until, self._hold.until)

    def sent(self, number: int) -> None:
        """Note that a try is sent; numbers rise. In a half-open hold it is the probe."""
        self._last_sent = number
        if self._hold is not None and self._hold.half_open:
            self._hold.probe = number
        else:
            self._hold = None

    def withdrawn(self, number: int) -> None:
        """Note that a try ended on this side: it says nothing about the service."""
        if self._is_probe(number):
            assert self._hold is not None
            self._hold.probe = None

    def _is_probe(self, number: int) -> bool:
        return self._hold is not None and self._hold.probe == number

    def answered(self, number: int) -> None:
        """Note an answer; tries that were sent before it no longer count."""
        self._outage.over()
        self._last_answered = max(self._last_answered, number)
        self._others_pass |= any(refused < number for refused in self._refusals)
        self._refusals = {refused: at for refused, at in self._refusals.items() if refused > number}
        self._faults.clear()
        if self._hold and (self._is_probe(number) or self._hold.kind == "faults" or not self._refuses_all()):
            self._hold = None
            self._woken()

    def refused(self, number: int, limits: Limits, tokens: float, words: str) -> bool:
        """Note a refusal.

        Args:
            number: Of the try.
            limits: What came with the refusal.
            tokens: What the try was thought to need.
            words: The refusal, for messages.

        Returns:
            Whether the refusal is (or may be) account-wide, so that it costs the request no try.
        """
        exhausted = limits.exhausted(tokens)
        if exhausted:
            self.withdrawn(number)
            self.pause(limits.wait_s if limits.wait_s is not None else limits.reset_s or 1.0, words)
            return True
        self._others_pass |= exhausted is False
        return self._hold_for_refusals(number, limits.wait_s, words)

    def pause(self, seconds: float, words: str) -> None:
        """Send nothing for the time that the service asks for; ends the run if that exceeds ``patience_s``."""
        until = self._clock() + seconds
        if until <= self._pause_until:
            return
        if seconds > self._patience_s:
            self._end(f"the service asks to wait {in_words(seconds)} (until {utc_in(seconds)}), longer than the "
                      f"patience of {in_words(self._patience_s)}")  # fmt: skip
        elif seconds >= _WORTH_SAYING_S:
            log.warning("paused for %s (until %s): %s", in_words(seconds), utc_in(seconds), words)
        self._pause_until = until

    def _hold_for_refusals(self, number: int, wait_s: float | None, words: str) -> bool:
        """Classify a refusal without rate-limit headers by the outcomes of other requests."""
        now = self._clock()
        since = min(self._refusals.values(), default=now)
        if number > self._last_answered:
            self._refusals[number] = now
        is_probe, is_new = self._is_probe(number), not self.undecided
        if is_probe:
            self._others_pass = False
        elif is_new and not self._refuses_all():
            return False
        hold = self._hold or _Hold("refusals", now, half_open=False)
        hold.kind = "refusals"
        if is_probe:
            hold.probe, hold.probes = None, hold.probes + 1
        asked_s = wait_s if wait_s is not None else backoff_s(self._first_wait_s, hold.probes + 1)
        probe_s = FIRST_PROBE_S * 2**hold.probes
        if now - since > self._patience_s or (asked_s > self._patience_s and hold.probes >= REFUSED_PROBES):
            self._end(f"the service has refused every request for {in_words(now - since)}")
        if is_new:
            level = logging.INFO if min(asked_s, probe_s) >= _WORTH_SAYING_S else logging.DEBUG
            log.log(level, "held for up to %s: %s", in_words(min(asked_s, probe_s)), words)
        until = now + min(asked_s, probe_s)
        hold.until = until if is_probe else max(hold.until, until)
        hold.half_open |= hold.probes > 0 or wait_s is None or asked_s > probe_s
        self._hold = hold
        return True

    def _refuses_all(self) -> bool:
        """Return whether the refusals are account-wide."""
        if not self._others_pass:
            return bool(self._refusals)
        return len(self._refusals) >= REFUSALS_IN_A_ROW and self._are_most(self._refusals)

    def _are_most(self, failed: dict[int, str] | dict[int, float]) -> bool:
        """Return whether most tries since the first failed one failed; tries in flight count as not failed."""
        return len(failed) >= MOST * (self._last_sent - min(failed) + 1)

    def nobody_else(self) -> None:
        """Note that no other request is left that could show whether a refusal is account-wide."""
        if self.undecided:
            self._end(
                f"the service refuses to go on for longer than the patience of {in_words(self._patience_s)}"
            )

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
        self._faults[number] = name
        self._outage.failed()
        answered_once = self._last_answered >= 0
        most_probes = (3 if answered_once else 1) * self._max_tries
        why = "the service cannot be reached" if unreachable else f"{len(self._faults)} tries in a row failed"
        probes = 0
        if self._is_probe(number):
            assert self._hold is not None
            probes = self._hold.probes + 1
            if probes >= most_probes:
                self._end(why)
        elif self._hold:
            return True
        elif not self._fails_all(unreachable):
            return unreachable
        elif unreachable and not answered_once:
            self._end(why)
        wait_s = backoff_s(self._first_wait_s, probes + 1)
        if not self.ended:
            what = "has been unreachable" if unreachable else f"has failed ({words})"
            self._outage.wait(what, wait_s, probes + 1, most_probes)
        self._hold = _Hold("faults", self._clock() + wait_s, probes=probes)
        return True

    def _fails_all(self, unreachable: bool) -> bool:
        """Return whether the faults mean an outage of the service."""
        if unreachable and len(self._faults) >= self._max_tries:
            return True
        many = len(self._faults) >= FAULTS_IN_A_ROW and len(set(self._faults.values())) >= REQUESTS_IN_A_ROW
        return many and self._are_most(self._faults)

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self._woken()


class OutageLog:
    """Logs an outage of one service: a line now and then, and one when it is over.

    Args:
        address: Names the service.
        clock: Tells the time in seconds.
    """

    def __init__(self, address: str, clock: Callable[[], float]) -> None:
        self._address, self._clock = address, clock
        self._since: float | None = None
        self._said_at: float | None = None

    def failed(self) -> None:
        """Note a fault: the first one since the last answer is when an outage began, if it becomes one."""
        self._since = self._clock() if self._since is None else self._since

    def wait(self, words: str, next_s: float, number: int, most: int) -> None:
        """Log that nothing is sent for a while.

        Args:
            words: What is wrong, such as "has been unreachable".
            next_s: Seconds until the next try.
            number: Of the next try.
            most: How many tries there will be.
        """
        now = self._clock()
        if self._said_at is None or max(now - self._said_at, next_s) >= _BETWEEN_LINES_S:
            self._said_at = now
            lasts, next_try = _whole(now - (now if self._since is None else self._since)), _whole(next_s)
            log.warning(
                "%s %s for %s; next try in %s (%d of %d); Ctrl-C keeps everything",
                self._address, words, lasts, next_try, number, most,
            )  # fmt: skip

    def over(self) -> None:
        """Note an answer, and log it if it ends an outage that was logged."""
        if self._said_at is not None and self._since is not None:
            lasted = _whole(self._clock() - self._since)
            log.info("%s answers again, after %s; going on", self._address, lasted)
        self._since = self._said_at = None


def _whole(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else in_words(seconds)
