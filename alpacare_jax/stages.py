"""How long the stages of a start take: timed one by one, told in one line."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass
class Stage:
    """One stage: its name, its wall time in seconds, whether others went on meanwhile, and a word on its end."""

    name: str
    seconds: float = 0.0
    beside: bool = False
    note: str = ""


class Stages:
    """The stages of a start, in the order in which they began.

    Args:
        since: When the start began, by ``time.monotonic()``; now when None.

    Example:
        >>> stages = Stages(since=time.monotonic() - 2)
        >>> stages.add("data", 0.3)
        >>> str(stages)
        'started in 2.0 s: data 0.3'
    """

    def __init__(self, since: float | None = None) -> None:
        self.since = time.monotonic() if since is None else since
        self.stages: list[Stage] = []

    @contextlib.contextmanager
    def time(self, name: str, *, beside: bool = False) -> Iterator[Stage]:
        """Time the body.

        Args:
            name: What the line calls it; the times of stages of one name are added up.
            beside: Whether it runs in a thread of its own, beside the others.
        """
        stage = Stage(name, beside=beside)
        self.stages.append(stage)
        began = time.monotonic()
        try:
            yield stage
        finally:
            stage.seconds = time.monotonic() - began

    def add(self, name: str, seconds: float) -> None:
        """Note a stage that has been timed elsewhere."""
        self.stages.append(Stage(name, seconds))

    def __str__(self) -> str:
        total = time.monotonic() - self.since
        beside = [stage for stage in self.stages if stage.beside]
        merged: dict[str, Stage] = {}
        for stage in self.stages:
            if not stage.beside:
                known = merged.setdefault(stage.name, Stage(stage.name, note=stage.note))
                known.seconds += stage.seconds
        told = [_told(stage) for stage in merged.values() if stage.seconds >= 0.05]
        line = f"started in {total:.1f} s: {', '.join(told)}"
        return f"{line}; meanwhile {', '.join(map(_told, beside))}" if beside else line


def _told(stage: Stage) -> str:
    return f"{stage.name} {stage.seconds:.1f}" + (f" ({stage.note})" if stage.note else "")


def process_began() -> float:
    """Return when this process began, by ``time.monotonic()``; now where the system does not say."""
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # in seconds since the machine was started
        return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError, AttributeError):
        return now
