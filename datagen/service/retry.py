"""What follows when a request of a service fails, for single requests and for calls of its batch interface alike."""

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
#: This many requests that are refused for what they say, and none answered, mean that all of them are wrong.
REFUSED_IN_A_ROW = 5
#: Once the service has answered, so many refusals of the key or the model in a row, without an answer in between, mean
#: it; fewer are a proxy's whim. So many web pages in a row, before the first answer, mean a wrong address.
STRAYS_IN_A_ROW = 3
#: So many replies that are billed and cannot be used are taken for one request.
PAID_TWICE = 2
#: A request that is told so often that a quota of a day is used up need not be asked again today.
TOLD_DAILY = 3
#: A request may be told "later" so many times as often as it may fail.
REFUSALS_PER_TRY = 3


class RetryPolicy:
    """Tells which errors concern every request of a service, and how long to wait after the others.

    Args:
        service: The service.
        stage: The stage of its requests, for remedies.
        batch: Whether its batch interface is spoken to.
    """

    def __init__(self, service: Service, stage: str, *, batch: bool = False) -> None:
        self._service, self._stage, self._batch = service, stage, batch
        self._strays_in_a_row = 0
        #: How often the service has answered.
        self.answers = 0

    def answered(self) -> None:
        """Note that the service answered as it should."""
        self.answers += 1
        self._strays_in_a_row = 0

    def concerns_all(self, error: RequestError) -> bool:
        """Tell whether no request will be answered: a lone refusal after answers may be a proxy's, and passes."""
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
        """Tell whether a wait is beyond the patience."""
        return wait_s is not None and wait_s > self._service.patience_s

    def wait_s(self, failures: int, asked_s: float | None) -> float:
        """Return the wait before the next try, in seconds: never earlier than asked, and a little later each time."""
        if asked_s is None:
            return backoff_s(self._service.first_wait_s, failures)
        return asked_s + backoff_s(self._service.first_wait_s / 4, failures)

    def stop(self, what: str, error: RequestError | None = None, *, remedy: str = "") -> Stop:
        """Return the error that ends the run resumably."""
        return stop_for(self._service, self._stage, what, error, remedy=remedy, batch=self._batch)


class FailureLog:
    """Says what goes wrong in one stage: the first error of each kind in full, then counts now and then.

    Ten thousand requests meet thousands of passing errors; a line for each would bury what matters. The ledger has
    every request that failed, with its reason.

    Args:
        stage: Its name.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._known: set[tuple[str, str]] = set()
        self._counts: dict[str, Counter[str]] = {_AGAIN: Counter(), _FAILED: Counter()}
        self._said_at = 0.0

    def again(self, id: str, error: RequestError) -> None:
        """Count an error after which the request is asked again."""
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
        """Say what was counted."""
        for what, counts in self._counts.items():
            if counts:
                listed = ", ".join(f"{many} {code}" for code, many in counts.most_common())
                log.info("%s: %s %s", self._stage, what, listed)
                counts.clear()
