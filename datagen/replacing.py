"""Replacing a folder of results as a whole, by one process at a time, and never what somebody else put there.

The new folder grows in a hidden one beside it, ``.NAME.partial``, which the process locks for as long as it lives.
The next run into the same place clears away what a killed process left there, and first puts back a folder that it had
moved aside and not replaced. The hidden folders of earlier versions, ``.NAME.*.part``, are treated alike.
"""

import contextlib
import fcntl
import glob
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from datagen.errors import DataError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_NAMED = 3
_LOCK = "lock"


def refuse_replacing(
    folder: Path, overwrite: bool, *, kind: str, what: str, patterns: Collection[str] = ()
) -> None:
    """Refuse to replace a folder that holds something, unless told to; then only one that the command wrote.

    Args:
        folder: The folder; a missing or an empty one may be replaced.
        overwrite: Whether the user asks for it.
        kind: What its ``manifest.json`` says of itself; the files that it lists belong to it.
        what: Name of that kind in messages, such as "a published dataset".
        patterns: Further files of its own; see :func:`strangers`.

    Raises:
        DataError: The folder is in use, of another kind, or holds what the command did not write.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise DataError(
            "the output exists already",
            where=folder,
            remedy="choose another `out`, or replace it with --overwrite",
        )
    found, names = None, [MANIFEST]
    with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["kind"]
        names += [file["file"] for file in manifest["files"]]
    if found != kind:
        raise DataError(
            f"--overwrite only replaces {what}; this folder is not one",
            where=folder,
            remedy="choose another `out`, or delete it yourself",
        )
    refuse_strangers(folder, names=names, patterns=patterns)


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
            "`overwrite` would delete what this command did not write",
            where=folder,
            found=", ".join(found[:_NAMED]) + more,
            remedy="move that elsewhere, or choose another `out`",
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


def growing_folder(out: Path) -> Path:
    """Return where :func:`moved_into_place` builds the folder that is to become ``out``."""
    return out.with_name(f".{out.name}.partial") / "new"


@contextlib.contextmanager
def moved_into_place(out: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Give a hidden folder beside ``out``; move it there at the end, or delete it on failure.

    Args:
        out: Where the folder goes; one that is there is replaced, and comes back if the move fails.
        check: Raises where ``out`` may not be replaced. Called at the beginning, and again right before the move:
            writing took time, and somebody may have put a file there.

    Raises:
        DataError: Another process is making it.
    """
    new = growing_folder(out)
    old = new.with_name("old")
    with locked(new.parent, out):
        try:
            _clear_leftovers(new.parent, out)
            _clear_leftovers_of_earlier_versions(out)
            check()
            new.mkdir()
            yield new
            check()
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            for part in (old, new):
                _delete(part)
            with contextlib.suppress(OSError):
                new.parent.rmdir()


def put_back(old: Path, out: Path) -> None:
    """Rename a folder to the place that a killed run moved it from, unless there is something else by now."""
    if old.exists() and not out.exists():
        old.rename(out)
        log.warning("%s is put back: a run that was to replace it was killed on the way", out)


def _clear_leftovers(hidden: Path, out: Path) -> None:
    """Put back what a killed run had moved into a hidden folder, and delete all else that is in it."""
    put_back(hidden / "old", out)
    for leftover in sorted(hidden.iterdir(), key=lambda path: path.name == _LOCK):  # the lock last
        _delete(leftover)


def _clear_leftovers_of_earlier_versions(out: Path) -> None:
    """Do the same for hidden folders whose file ``lock`` no living process holds."""
    for hidden in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        if "." in hidden.name.removeprefix(f".{out.name}.").removesuffix(".part") or hidden.is_symlink():
            continue
        try:
            lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # nothing says whose it is
            with contextlib.suppress(OSError):
                hidden.rmdir()  # if it is empty
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear_leftovers(hidden, out)
            hidden.rmdir()
        except OSError:  # its process lives
            continue
        finally:
            os.close(lock)


def _delete(path: Path) -> None:
    """Delete a file, a link or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, target: Path) -> Iterator[None]:
    """Hold a folder against other processes; it is made if missing, and removed again where nothing came into it.

    The lock is the operating system's, on the folder itself: it ends with the process, and nothing stale is left.

    Args:
        folder: What to hold.
        target: What the folder is, or becomes, for messages.

    Raises:
        DataError: Another process holds it.
    """
    made = not folder.exists()
    held = _lock(folder, target)
    try:
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):  # most often: it is not empty
                if made and _is_at(held, folder):
                    folder.rmdir()
            os.close(held)


def _lock(folder: Path, target: Path) -> int | None:
    """Lock a folder and return what holds it; None on a file system without locks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # its last writer has just renamed or removed it
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise DataError(
                "another process is writing to this folder",
                where=target,
                remedy="wait until it has ended, or choose another folder",
            ) from None
        except OSError as error:
            os.close(held)
            log.warning(
                "%s: the file system has no locks (%s), so nothing keeps a second process from writing there",
                target,
                error.strerror,
            )
            return None
        with contextlib.suppress(FileNotFoundError):
            if _is_at(held, folder):
                return held
        os.close(held)


def _is_at(descriptor: int, folder: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), folder.stat())


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
