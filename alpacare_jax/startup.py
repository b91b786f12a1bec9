"""The start-up timer: times the phases of a start and logs them in one line."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass
class Phase:
    """One phase: its name, its wall time in seconds, whether others went on meanwhile, and a word on its end."""

    name: str
    seconds: float = 0.0
    beside: bool = False
    note: str = ""


class StartupTimer:
    """The phases of a start, in the order in which they began.

    Args:
        since: When the start began, by ``time.monotonic()``; now when None.

    Example:
        >>> timer = StartupTimer(since=time.monotonic() - 2)
        >>> timer.add("data", 0.3)
        >>> str(timer)
        'started in 2.0 s: data 0.3'
    """

    def __init__(self, since: float | None = None) -> None:
        self.since = time.monotonic() if since is None else since
        self.phases: list[Phase] = []

    @contextlib.contextmanager
    def time(self, name: str, *, beside: bool = False) -> Iterator[Phase]:
        """Time the body.

        Args:
            name: What the line calls it; the times of phases of one name are added up.
            beside: Whether it runs in a thread of its own, beside the others.
        """
        phase = Phase(name, beside=beside)
        self.phases.append(phase)
        began = time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = time.monotonic() - began

    def add(self, name: str, seconds: float) -> None:
        """Note a phase that has been timed elsewhere."""
        self.phases.append(Phase(name, seconds))

    def __str__(self) -> str:
        total = time.monotonic() - self.since
        beside = [phase for phase in self.phases if phase.beside]
        merged: dict[str, Phase] = {}
        for phase in self.phases:
            if not phase.beside:
                known = merged.setdefault(phase.name, Phase(phase.name, note=phase.note))
                known.seconds += phase.seconds
        told = [_told(phase) for phase in merged.values() if phase.seconds >= 0.05]
        line = f"started in {total:.1f} s: {', '.join(told)}"
        return f"{line}; meanwhile {', '.join(map(_told, beside))}" if beside else line


def _told(phase: Phase) -> str:
    return f"{phase.name} {phase.seconds:.1f}" + (f" ({phase.note})" if phase.note else "")


def process_began() -> float:
    """Return when this process began, by ``time.monotonic()``; now where the system does not say."""
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # in seconds since the machine was started
        return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError, AttributeError):
        return now
