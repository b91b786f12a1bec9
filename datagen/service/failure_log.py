"""What the log says of errors: the first of each kind in full, then counts now and then.

Ten thousand requests meet thousands of passing errors; a line for each would bury what matters. The ledger has
every request that failed, with its reason.
"""

import asyncio
import logging
from collections import Counter

from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

_SECONDS_BETWEEN = 30.0
_AGAIN, _FAILED = "asked again after", "more requests failed:"


class FailureLog:
    """Says what goes wrong in one stage.

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
        now = asyncio.get_running_loop().time()
        if not any(self._counts.values()):
            self._said_at = now
        self._counts[what][code] += 1
        if now - self._said_at >= _SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        """Say what was counted."""
        for what, counts in self._counts.items():
            if counts:
                listed = ", ".join(f"{many} {code}" for code, many in counts.most_common())
                log.info("%s: %s %s", self._stage, what, listed)
                counts.clear()
