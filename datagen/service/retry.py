"""The retry policy for failed requests, shared by single requests and calls of the batch API."""

import logging
import time
from collections import Counter

from datagen.service.circuit import backoff_s
from datagen.service.endpoint import Service
from datagen.service.stop import AT_ONCE, Stop, stop_for
from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_COUNTS = 30.0
_AGAIN, _FAILED = "asked again after", "more requests failed:"
#: After so many requests in a row are rejected as invalid, with none answered, all of them count as invalid.
REFUSED_IN_A_ROW = 5
#: Once the service has answered, so many refusals of the key or the model in a row, without an answer in between, are
#: final; fewer may come from a proxy. So many web pages in a row, before the first answer, mean a wrong address.
STRAYS_IN_A_ROW = 3
#: How many billed but unusable replies one request may cost.
PAID_TWICE = 2
#: The run ends after a request is refused so often because a daily quota is used up.
TOLD_DAILY = 3
#: How many rate-limit refusals of one request count as one failed try.
REFUSALS_PER_TRY = 3


class RetryPolicy:
    """Decides which errors concern every request of a service, and how long to wait before a retry.

    Args:
        service: The service.
        stage: The stage of its requests, for remedies.
        batch: Whether the requests are calls of its batch API.
    """

    def __init__(self, service: Service, stage: str, *, batch: bool = False) -> None:
        self._service, self._stage, self._batch = service, stage, batch
        self._strays_in_a_row = 0
        #: How often the service has answered.
        self.answers = 0

    def answered(self) -> None:
        """Record a valid answer of the service."""
        self.answers += 1
        self._strays_in_a_row = 0

    def concerns_all(self, error: RequestError) -> bool:
        """Return whether the error affects every request: a single refusal after answers may come from a proxy."""
        # A field that all requests share, unless others were taken with it: several services may share one address.
        if error.kind == "final" and error.what and not self.answers:
            return True
        no_api = error.page and not self.answers and error.code in ("bad-reply", "bad-request")
        if error.kind != "fatal" and not no_api:
            return False
        self._strays_in_a_row += 1
        if error.kind == "fatal" and (not self.answers or error.code not in AT_ONCE):
            return True
        return self._strays_in_a_row >= STRAYS_IN_A_ROW

    def asks_too_much(self, wait_s: float | None) -> bool:
        """Return whether a wait exceeds ``patience_s``."""
        return wait_s is not None and wait_s > self._service.patience_s

    def wait_s(self, failures: int, asked_s: float | None) -> float:
        """Return the wait before the next try, in seconds: never earlier than asked, and a little later each time."""
        if asked_s is None:
            return backoff_s(self._service.first_wait_s, failures)
        return asked_s + backoff_s(self._service.first_wait_s / 4, failures)

    def stop(self, what: str, error: RequestError | None = None, *, remedy: str = "") -> Stop:
        """Return the error that ends the run; the same command resumes it."""
        return stop_for(self._service, self._stage, what, error, remedy=remedy, batch=self._batch)


class FailureLog:
    """Logs the errors of one stage: the first of each kind in full, then counts every 30 s.

    Ten thousand requests meet thousands of transient errors; one line each would bury the rest. The ledger keeps
    every request that failed, with the reason.

    Args:
        stage: Its name.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._known: set[tuple[str, str]] = set()
        self._counts: dict[str, Counter[str]] = {_AGAIN: Counter(), _FAILED: Counter()}
        self._said_at = 0.0

    def again(self, id: str, error: RequestError) -> None:
        """Count an error after which the request is retried."""
        self._add(_AGAIN, error.code, logging.INFO, f"{id}: {error}; asking again")

    def give_up(self, id: str, code: str, words: str) -> None:
        """Count a request that failed for good."""
        self._add(_FAILED, code, logging.WARNING, f"{id} failed: {words}")

    def _add(self, what: str, code: str, level: int, line: str) -> None:
        is_new = (what, code) not in self._known
        self._known.add((what, code))
        log.log(level if is_new else logging.DEBUG, "%s %s", self._stage, line)
        if is_new:
            return
        now = time.monotonic()
        if not any(self._counts.values()):
            self._said_at = now
        self._counts[what][code] += 1
        if now - self._said_at >= _SECONDS_BETWEEN_COUNTS:
            self.flush()

    def flush(self) -> None:
        """Log the counts."""
        for what, counts in self._counts.items():
            if counts:
                listed = ", ".join(f"{many} {code}" for code, many in counts.most_common())
                log.info("%s: %s %s", self._stage, what, listed)
                counts.clear()
