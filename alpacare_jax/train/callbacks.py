"""Where a run's metrics go: ``metrics.jsonl``, TensorBoard, and callbacks of your own.

A callback is a function of one line of figures, that of a step or of a validation; or an object with any of these
methods: ``on_step(figures)``, ``on_validation(figures)``, ``on_save(step, folder)``. The first process alone calls.

Examples:
    >>> losses = []
    >>> trainer = Trainer(model, data, config, callbacks=[lambda figures: losses.append(figures.get("loss"))])
"""

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alpacare_jax.errors import DataError
from datagen.records import read_objects, write_objects

Figures = Mapping[str, float | int | str]
Callback = Callable[[Figures], None] | object


def tell(callbacks: Iterable[Callback], event: str, *arguments: Any) -> None:
    """Call a method of every callback: ``on_step``, ``on_validation`` or ``on_save``."""
    for callback in callbacks:
        method = getattr(callback, event, None)
        if method is None and event != "on_save" and callable(callback):
            method = callback
        if method is not None:
            method(*arguments)


class JsonLines:
    """Appends a JSON object a line; on resume, drops the lines of steps that will be run again.

    Args:
        path: The file.
        resume_step: The step the run goes on from; lines of later steps are dropped.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            self._cut(path, resume_step)
        self._file = path.open("a", encoding="utf-8")

    @staticmethod
    def _cut(path: Path, resume_step: int) -> None:
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])
        try:
            kept = [row for _, row in read_objects(path) if row.get("step", 0) <= resume_step]
        except DataError:
            kept = []
        write_objects(path, kept)

    def __call__(self, metrics: Figures) -> None:
        """Append one line and hand it to the operating system."""
        # A figure that is not finite is null: JSON has no NaN.
        figures = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in metrics.items()
        }
        self._file.write(json.dumps(figures) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Sync the file to disk and close it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class TensorBoard:
    """Writes every number as a TensorBoard scalar, in a thread of its own.

    Importing the writer takes seconds where torch is installed, which it looks for: no step waits for that.

    Args:
        folder: The folder of event files.
        resume_step: Steps after this one are shown as replaced.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        self._folder, self._purge = str(folder), resume_step + 1 if resume_step else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tensorboard")
        self._pending: deque[Future[None]] = deque()
        self._writer: Any = None

    def __call__(self, metrics: Figures) -> None:
        """Write the numbers of one line, soon.

        Raises:
            OSError: An earlier line could not be written.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._write, dict(metrics)))

    def _write(self, metrics: Figures) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(self._folder, purge_step=self._purge)
        for name, value in metrics.items():
            if name != "step" and isinstance(value, int | float):
                group = "validation" if name.startswith("val_") else "train"
                self._writer.add_scalar(f"{group}/{name}", value, int(metrics["step"]))

    def close(self) -> None:
        """Write what is left and close.

        Raises:
            OSError: Something could not be written.
        """
        self._thread.shutdown()
        if self._writer is not None:
            self._writer.close()
        for line in self._pending:
            line.result()
