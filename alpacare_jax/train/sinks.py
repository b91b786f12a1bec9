"""Where a run's figures go: ``metrics.jsonl``, which is the truth, TensorBoard, and the log."""

import json
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alpacare_jax.errors import DataError
from datagen.records import read_objects, write_objects

logger = logging.getLogger("alpacare.train")

Metrics = Mapping[str, float | int | str]
Sink = Callable[[Metrics], None]


class JsonlSink:
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

    def __call__(self, metrics: Metrics) -> None:
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


class TensorBoardSink:
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

    def __call__(self, metrics: Metrics) -> None:
        """Write the numbers of one line, soon.

        Raises:
            OSError: An earlier line could not be written.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._write, dict(metrics)))

    def _write(self, metrics: Metrics) -> None:
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


def log_line(metrics: Metrics, steps: int) -> str:
    """Say a step or a validation in one line.

    Example:
        >>> log_line({"step": 7, "val_loss": 2.5, "val_tokens": 10}, 60)
        'step 00007/00060 | validation loss 2.5000'
    """
    head = f"step {metrics['step']:05d}/{steps:05d}"
    if "val_loss" in metrics:
        return f"{head} | validation loss {metrics['val_loss']:.4f}"
    speed = f" | MFU {100 * float(metrics['mfu']):.1f}%" if "mfu" in metrics else ""
    memory = (
        f" | {float(metrics['peak_memory_bytes']) / 2**30:.1f} GiB" if "peak_memory_bytes" in metrics else ""
    )
    return (
        f"{head} | loss {metrics['loss']:.4f} | lr {metrics['lr']:.1e} | {metrics['step_ms']:.0f} ms"
        f" | {short(float(metrics['tokens_per_s']))} tok/s | pack {100 * float(metrics['fill']):.0f}%{speed}{memory}"
    )


def short(number: float) -> str:
    """Shorten a number to three digits and a unit.

    Example:
        >>> short(159_400), short(87.2)
        ('159k', '87.2')
    """
    for unit in ("", "k", "M"):
        if abs(number) < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"
