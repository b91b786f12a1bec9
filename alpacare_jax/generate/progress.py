"""The progress of answering a file."""

import time
from pathlib import Path
from typing import Self

import jax

from datagen.progress import ProgressDisplay


class GenerationProgress:
    """Shows responses and tokens per second while a file is answered, on process 0."""

    def __init__(self) -> None:
        self.speaks = jax.process_index() == 0
        self._display = ProgressDisplay(enabled=self.speaks)
        self._tokens, self._started, self._seconds = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.__exit__()

    def __call__(self, finished: int, total: int, tokens: int) -> None:
        """Take note of the responses that are finished and the tokens that are drawn."""
        self._started = self._started or time.monotonic()
        self._tokens, self._seconds = tokens, time.monotonic() - self._started
        self._display.update("generate", finished, total, f"{tokens:,} tokens | {self._rate}")

    def describe(self, out: Path, responses: int, ended: int) -> str:
        """Say what was written in one line."""
        return (
            f"{out}: {responses} responses, {ended} ended by themselves, {responses - ended} cut at the limit; "
            f"{self._tokens:,} tokens drawn in {self._seconds:.1f} s ({self._rate})"
        )

    @property
    def _rate(self) -> str:
        return f"{self._tokens / max(self._seconds, 1e-9):,.0f} tok/s"
