"""One writer a folder: the first process that claims it, until it ends, however it ends.

The claim is a lock of the operating system on the folder itself, which the kernel takes back with the process, so that
nothing is left behind and nothing stale is in the way.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from alpacare_jax.errors import CheckpointError, DataError, UserError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(folder: Path, target: Path) -> Iterator[None]:
    """Hold a folder against other writers; it is made if missing, and removed again where nothing came into it.

    Any number of processes of one run may enter together: process 0 holds the folder for all.

    Args:
        folder: What to hold.
        target: What the folder is, or becomes, for messages.

    Raises:
        DataError: Another process writes there.
    """
    held: list[int] = []
    made = not folder.exists()
    on_first(lambda: held.extend(_lock(folder, target)), target)
    try:
        yield
    finally:
        for descriptor in held:
            with contextlib.suppress(OSError):  # most often: it is not empty
                if made and _is_at(descriptor, folder):
                    folder.rmdir()
            os.close(descriptor)


def on_first(action: Callable[[], object], target: Path) -> None:
    """Do something on process 0 and have all processes of the run end alike where it fails.

    Args:
        action: What to do.
        target: What it is done to, for messages.

    Raises:
        CheckpointError: It failed on process 0, and this is another; process 0 raises what the action raised.
    """
    error: UserError | OSError | None = None
    if jax.process_index() == 0:
        try:
            action()
        except (UserError, OSError) as found:
            error = found
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        failed = bool(multihost_utils.broadcast_one_to_all(error is not None))
        if failed and error is None:
            raise CheckpointError("process 0 cannot write there; its message says why", where=target)
    if error is not None:
        raise error


def _lock(folder: Path, target: Path) -> list[int]:
    """Lock a folder and return what holds it; nothing on a file system without locks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # its last writer has just renamed or removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataError(
                "another process is writing to this folder",
                where=target,
                remedy="wait until it has ended, or choose another folder",
            ) from None
        except OSError as error:
            os.close(descriptor)
            logger.warning(
                "%s: the file system has no locks (%s), so nothing keeps a second process from writing there",
                target,
                error.strerror,
            )
            return []
        with contextlib.suppress(FileNotFoundError):
            if _is_at(descriptor, folder):
                return [descriptor]
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), folder.stat())
