"""Ctrl-C and SIGTERM, taken between two steps instead of in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def between_steps() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set while the body runs; a second SIGINT interrupts at once.

    Where signals cannot be handled (outside the main thread) nothing changes.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
