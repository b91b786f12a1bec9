"""What a folder holds besides the files of the command that wrote it; nothing of that is ever deleted."""

from collections.abc import Collection, Iterator
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


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
