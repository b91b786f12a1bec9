"""Ctrl-C and SIGTERM, taken between two steps instead of in the middle of one."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@dataclasses.dataclass
class StopRequest:
    """Whether a signal has asked the run to stop.

    A plain attribute: the lock of a :class:`threading.Event` would block for ever where a second signal interrupts the
    handler of the first.
    """

    asked: bool = False


@contextlib.contextmanager
def between_steps() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM while the body runs; a second SIGINT interrupts at once.

    Where signals cannot be handled (outside the main thread) nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
