"""What the log says of troubles: the first of each kind in full, then counts now and then.

Ten thousand requests meet thousands of passing troubles; a line for each would bury what matters. The ledger has
every request that failed, with its reason.
"""

import asyncio
import logging
from collections import Counter

from datagen.service.wire import RequestError

log = logging.getLogger(__name__)

_SECONDS_BETWEEN = 30.0


class FailureLog:
    """Says what goes wrong in one stage.

    Args:
        stage: Its name.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._known: set[str] = set()
        self._again: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._said_at = 0.0

    def add(self, id: str, trouble: RequestError) -> None:
        """Count a trouble after which the request is asked again."""
        if self._is_new(trouble.code):
            log.info("%s %s: %s; asking again", self._stage, id, trouble)
            return
        log.debug("%s %s: %s; asking again", self._stage, id, trouble)
        self._again[trouble.code] += 1
        self._say_now_and_then()

    def give_up(self, id: str, code: str, words: str) -> None:
        """Count a request that failed for good."""
        if self._is_new(f"failed {code}"):
            log.warning("%s %s failed: %s", self._stage, id, words)
            return
        log.debug("%s %s failed: %s", self._stage, id, words)
        self._failed[code] += 1
        self._say_now_and_then()

    def _is_new(self, kind: str) -> bool:
        is_new = kind not in self._known
        self._known.add(kind)
        return is_new

    def _say_now_and_then(self) -> None:
        now = asyncio.get_running_loop().time()
        if sum(self._again.values()) + sum(self._failed.values()) == 1:
            self._said_at = now
        if now - self._said_at >= _SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        """Say what was counted."""
        for counts, what in ((self._again, "asked again after"), (self._failed, "more requests failed:")):
            if counts:
                listed = ", ".join(f"{many} {code}" for code, many in counts.most_common())
                log.info("%s: %s %s", self._stage, what, listed)
                counts.clear()
