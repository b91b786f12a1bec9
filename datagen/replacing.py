"""Replacing a folder of results as a whole, and never what somebody else put there.

The new folder grows in a hidden one beside it, ``.NAME.*.part``, whose file ``lock`` the process holds as long as it
lives. What a killed process left is cleared away by the next run into the same place; a folder that it had moved
aside, and nothing else took the place of, is put back first.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from datagen.errors import DataError

log = logging.getLogger(__name__)

_NAMED = 3
_LOCK = "lock"


def refuse_strangers(folder: Path, *, names: Collection[str] = (), patterns: Collection[str] = ()) -> None:
    """See that a folder about to be replaced holds nothing but what the command wrote.

    Args:
        folder: The folder.
        names: Its own files, relative to it and with "/" between folders.
        patterns: The same as patterns: "*" stands for any part of one name, never for a "/".

    Raises:
        DataError: There is something else; it is named, and everything is left as it is.
    """
    found = list(strangers(folder, names=names, patterns=patterns))
    if found:
        more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        raise DataError(
            "--overwrite would delete what this command did not write",
            where=folder,
            found=", ".join(found[:_NAMED]) + more,
            remedy="move that elsewhere, or choose another --out",
        )


def strangers(folder: Path, *, names: Collection[str] = (), patterns: Collection[str] = ()) -> Iterator[str]:
    """List the files, links and empty folders that are not of a folder's own; arguments as above.

    A folder of strangers alone is listed by each of its files.
    """
    known = frozenset(names)
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
            continue
        name = path.relative_to(folder).as_posix()
        if name not in known and not any(_matches(name, pattern) for pattern in patterns):
            yield name


@contextlib.contextmanager
def moved_into_place(out: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Give a hidden folder beside ``out``; move it there at the end, or delete it on failure.

    Args:
        out: Where the folder goes; one that is there is replaced, and comes back if the move fails.
        check: Raises where ``out`` may not be replaced. Called right before the move: writing took time, and somebody
            may have put a file there.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if _clear_leftovers(out):
        check()
    hidden, lock = _hidden_folder(out)
    try:
        folder = hidden / "new"
        folder.mkdir()
        yield folder
        check()
        old = hidden / "old"
        if out.exists():
            out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        _delete(hidden)
        os.close(lock)


def _hidden_folder(out: Path) -> tuple[Path, int]:
    """Make a hidden folder beside ``out`` and lock it; return it and the lock, which ends with the process."""
    while True:
        hidden = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
        with contextlib.suppress(FileNotFoundError):  # another run may take the empty folder for a leftover
            lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            except OSError:  # a file system without locks: without the file, nobody clears the folder away
                (hidden / _LOCK).unlink()
                return hidden, lock
            if (hidden / _LOCK).exists():
                return hidden, lock
            os.close(lock)


def _delete(hidden: Path) -> None:
    """Delete a hidden folder, its lock last, so that what a kill leaves of it is known for a leftover."""
    for part in ("old", "new"):
        shutil.rmtree(hidden / part, ignore_errors=True)
    shutil.rmtree(hidden, ignore_errors=True)


def _clear_leftovers(out: Path) -> bool:
    """Delete the hidden folders of processes that died; return whether ``out`` was put back from one."""
    back = False
    for hidden in sorted(out.parent.iterdir()):
        middle = hidden.name.removeprefix(f".{out.name}.").removesuffix(".part")
        ours = hidden.name == f".{out.name}.{middle}.part" and "." not in middle
        if not ours or hidden.is_symlink() or not hidden.is_dir():
            continue
        try:
            lock = os.open(hidden / _LOCK, os.O_RDWR)
        except OSError:  # nothing says whose it is
            with contextlib.suppress(OSError):
                hidden.rmdir()
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (hidden / "old").exists() and not out.exists():
                (hidden / "old").rename(out)
                back = True
                log.warning("%s is put back: a run that was to replace it was killed on the way", out)
            _delete(hidden)
        except OSError:  # its process lives
            continue
        finally:
            os.close(lock)
    return back


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
