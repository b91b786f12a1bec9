"""Replacing a folder of results as a whole, and never what somebody else put there."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from datagen.errors import DataError

_NAMED = 3


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
    hidden = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
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
        shutil.rmtree(hidden, ignore_errors=True)


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
