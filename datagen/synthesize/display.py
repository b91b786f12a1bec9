"""Progress display of a running synthesis: live bars in a terminal, periodic lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datagen.synthesize import Progress, Watch

_RATE_WINDOW_S = 60.0
_SECONDS_FOR_A_RATE = 3.0


class Rate:
    """Tries per minute over the last minute, or since the start while that is less but some seconds.

    Example:
        >>> rate = Rate()
        >>> [rate.per_minute(ended, at_s) for ended, at_s in ((0, 0.0), (1, 0.5), (5, 10.0), (20, 60.0))]
        [None, None, 30.0, 20.0]
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def per_minute(self, ended: int, at_s: float) -> float | None:
        """Record the number of finished tries at a time in seconds; return the rate, None at first."""
        self._seen.append((at_s, ended))
        while len(self._seen) > 2 and self._seen[1][0] <= at_s - _RATE_WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (ended - before) * 60 / (at_s - since) if at_s - since >= _SECONDS_FOR_A_RATE else None


def progress_words(progress: "Progress", rate: float | None) -> str:
    """Describe the progress of a run in one line, without the counts of the target.

    Args:
        progress: The progress.
        rate: Tries per minute, if known.
    """
    from datagen.money.dollars import usd

    parts = []
    if progress.stage == "tasks":
        many = "" if progress.requests == 1 else "s"
        parts += [f"{progress.requests} request{many}", f"{progress.rejected} rejected"]
    money = progress.money
    if money is not None and (money.spent_usd or not money.unpriced_tries):
        cap = "" if money.budget_usd is None else f" of {usd(money.budget_usd)}"
        total = "" if money.projected_usd is None else f", about {usd(money.projected_usd)} in all"
        parts.append(usd(money.spent_usd) + cap + total)
    if rate is not None and progress.tries:
        parts.append(f"{rate:.0f} tries/min")
    return " | ".join(parts)


@contextlib.contextmanager
def watching() -> "Iterator[Watch]":
    """Show progress and the log of the synthesis."""
    from datagen.progress import ProgressDisplay

    rate = Rate()
    with ProgressDisplay() as display, _logging():

        def show(progress: "Progress") -> None:
            detail = progress_words(progress, rate.per_minute(progress.tries, time.monotonic()))
            done = progress.answered if progress.stage == "answers" else progress.kept
            display.update(progress.stage, done, progress.target, detail)

        yield show


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Write the log of the synthesis to stderr, above the bars if there are any, without the HTTP library's."""
    logger, handler = logging.getLogger("datagen"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
