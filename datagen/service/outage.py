"""What a person who waits is told of a service that fails or is gone: since when, until when, and of its return."""

import logging
from collections.abc import Callable

from datagen.service.limits import in_words

log = logging.getLogger(__name__)

#: Lines are no nearer to each other than this, unless the next try is as far away; in seconds.
_SECONDS_BETWEEN = 10.0


class Outage:
    """Says that one service does not answer, in a line now and then, and in one more when it does again.

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
        if self._since is None:
            self._since = self._clock()

    def wait(self, words: str, next_s: float, number: int, most: int) -> None:
        """Say that nothing is sent for a while.

        Args:
            words: What is wrong, such as "has been unreachable".
            next_s: Seconds until the next try.
            number: Of the next try.
            most: How many tries there will be.
        """
        now = self._clock()
        if self._said_at is not None and now - self._said_at < _SECONDS_BETWEEN and next_s < _SECONDS_BETWEEN:
            return
        self._said_at = now
        log.warning(
            "%s %s for %s; next try in %s (%d of %d); Ctrl-C keeps everything",
            self._address,
            words,
            _whole(now - (now if self._since is None else self._since)),
            _whole(next_s),
            number,
            most,
        )

    def over(self) -> None:
        """Note an answer, and say so where it ends an outage that was spoken of."""
        if self._said_at is not None:
            assert self._since is not None
            log.info(
                "%s answers again, after %s; going on", self._address, _whole(self._clock() - self._since)
            )
        self._since = self._said_at = None


def _whole(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else in_words(seconds)
