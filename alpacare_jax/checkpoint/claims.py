"""One writer per folder: process 0 of the first run that locks it, until that process ends in any way."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from alpacare_jax.errors import CheckpointError, UserError
from datagen.replacing import locked


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
    with contextlib.ExitStack() as held:
        on_first(lambda: held.enter_context(locked(folder, target)), target)
        yield


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
