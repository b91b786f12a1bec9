"""Turning what Orbax, safetensors and the operating system raise into one message that names the path.

Orbax raises everything from ``OSError`` to a bare ``Exception``, logs the same failure several times with its
traceback, and leaves callbacks behind that complain of a closed event loop. Here all of it becomes one error.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alpacare_jax.errors import CheckpointError, UserError, causes, is_full


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise what goes wrong while a checkpoint is read as a :class:`CheckpointError` that names it."""
    with _one_voice():
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise CheckpointError(
                "the checkpoint cannot be read",
                where=path,
                found=gist(error),
                expected="a whole checkpoint",
                remedy="files may be missing or cut short; use an earlier step, or make the checkpoint again",
            ) from error


@contextlib.contextmanager
def writing(path: Path, what: str = "the checkpoint") -> Iterator[None]:
    """Raise what goes wrong while something is written as a :class:`CheckpointError` that names it."""
    with _one_voice():
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if is_full(error):
                raise CheckpointError(
                    f"no disk space is left for {what}",
                    where=path,
                    found=gist(error),
                    remedy="free some disk space (or raise the file size limit) and run the same command again; "
                    "what was finished before is kept",
                ) from error
            raise CheckpointError(
                f"{what} cannot be written",
                where=path,
                found=gist(error),
                remedy="check the folder's permissions and the disk; what was finished before is kept",
            ) from error


def gist(error: BaseException) -> str:
    """Return the type and the first line of the failure at the root, at most 300 characters of it."""
    root = causes(error)[-1]
    lines = str(root).strip().splitlines()
    return f"{type(root).__name__}: {lines[0][:300] if lines else ''}"


class _Silence(logging.Filter):
    """Drops what Orbax logs of failures that are raised as errors anyway."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


@contextlib.contextmanager
def _one_voice() -> Iterator[None]:
    """Keep Orbax's own account of a failure off the screen; after a failure, also what its threads say later."""
    logger, silence, hook = logging.getLogger("absl"), _Silence(), sys.unraisablehook
    logger.addFilter(silence)
    sys.unraisablehook = _without_closed_loops(hook)
    yield
    sys.unraisablehook = hook
    logger.removeFilter(silence)


def _without_closed_loops(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    def filtered(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    return filtered
