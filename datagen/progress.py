"""Progress of long work: bars on a terminal and in a notebook, a plain line now and then elsewhere."""

import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 5.0


class ProgressDisplay:
    """Shows on the error stream how far each task is.

    Args:
        enabled: False shows nothing, as in every process of a run but the first.

    Example:
        >>> with ProgressDisplay(enabled=False) as display:
        ...     display.update("answers", 3, 10, "$0.50")
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled, self._bars = enabled, _bars() if enabled else None
        self._tasks: dict[str, TaskID] = {}
        self._said, self._said_s = "", time.monotonic()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        """Show how far a task is; its first update makes its bar.

        Args:
            task: Its name.
            done: What is finished.
            total: What there is in all; None where that is unknown.
            detail: Further figures.
        """
        if self._bars is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, detail="")
            self._bars.update(self._tasks[task], completed=done, total=total, detail=detail)
        elif self._enabled:
            of_all = "" if total is None else f"/{total}"
            self._say(" | ".join(filter(None, [f"{task} {done}{of_all}", detail])), ended=done == total)

    def _say(self, line: str, *, ended: bool) -> None:
        now = time.monotonic()
        if line != self._said and (ended or now - self._said_s >= SECONDS_BETWEEN_LINES):
            self._said, self._said_s = line, now
            print(line, file=sys.stderr, flush=True)


def _bars() -> "Progress | None":
    """Return bars where they can move: on a terminal, and in a notebook that has widgets."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=True)
    widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not widgets and not sys.stderr.isatty():
        return None
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        console=console,
    )
