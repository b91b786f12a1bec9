"""Turning what Orbax and the operating system raise into one message that names the path."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from alpacare_jax.errors import CheckpointError

FULL = ("No space left", "ENOSPC", "File too large", "EFBIG", "Disk quota exceeded", "errno: 28", "errno: 27")

# What Orbax, tensorstore and the JSON reader raise for missing, torn or unwritable files.
RAISED = (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError, NotImplementedError)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise what goes wrong while a checkpoint is read as a :class:`CheckpointError` that names it."""
    try:
        yield
    except RAISED as error:
        raise CheckpointError(
            "the checkpoint cannot be read",
            where=path,
            found=first_line(error),
            expected="a whole checkpoint",
            remedy="files may be missing or cut short; use an earlier step, or make the checkpoint again",
        ) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what goes wrong while a checkpoint is written as a :class:`CheckpointError` that names it."""
    try:
        yield
    except RAISED as error:
        full = any(sign in str(error) for sign in FULL) or getattr(error, "errno", None) in (27, 28, 122)
        raise CheckpointError(
            "no disk space is left for the checkpoint" if full else "the checkpoint cannot be written",
            where=path,
            found=first_line(error),
            remedy="free some disk space (or raise the file size limit) and run the same command again; "
            "earlier checkpoints are kept"
            if full
            else "check the folder's permissions and the disk; earlier checkpoints are kept",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the gist of an exception: its type and the first line of its text, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
