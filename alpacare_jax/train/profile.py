"""A trace of a few steps, written by XLA's own profiler: what the device did when."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from alpacare_jax.errors import ConfigError

logger = logging.getLogger("alpacare.train")


@dataclasses.dataclass
class Profile:
    """Writes a trace of the steps ``first`` to ``last``.

    Args:
        first: First step of the trace, counted from 1.
        last: Last step of the trace.
        folder: Where it goes.
    """

    first: int
    last: int
    folder: Path
    _running: bool = dataclasses.field(default=False, init=False)

    @classmethod
    def parse(cls, text: str, out: Path | None) -> "Profile":
        """Read ``a:b``, the first and the last step of a trace into a run folder.

        Raises:
            ConfigError: It is no such pair, or there is no run folder.

        Example:
            >>> Profile.parse("3:5", Path("runs/a")).last
            5
        """
        if out is None:
            raise ConfigError("a trace needs a run folder", where="profile_steps", remedy="give `out`")
        first, colon, last = text.partition(":")
        if not (colon and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
            raise ConfigError(
                "`profile_steps` is not a range of steps",
                where="--profile-steps",
                found=text,
                expected="first:last, counted from 1, such as 10:12",
            )
        return cls(int(first), int(last), out / "profile")

    def before(self, step: int) -> None:
        """Begin the trace if it begins with this step."""
        if not self._running and self.first <= step <= self.last:
            jax.profiler.start_trace(str(self.folder))
            self._running = True

    def after(self, step: int, metrics: Any) -> None:
        """End the trace if it ends with this step, whose work on the device is waited for."""
        if self._running and step >= self.last:
            jax.block_until_ready(metrics)
            self._stop()

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """End the trace with the body, if it has not ended before."""
        try:
            yield
        finally:
            if self._running:
                self._stop()

    def _stop(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        logger.info("trace of steps %d to %d: %s (open with xprof)", self.first, self.last, self.folder)
