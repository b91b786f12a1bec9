"""Single local files: read with typed errors, written atomically, hashed."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datagen.errors import ConfigError, DataError, UserError

# A pathlib.Path keeps one of the two slashes. A single letter is no scheme but a drive of Windows.
_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def read_bytes(path: str | Path, what: str = "", *, error: type[UserError] = DataError) -> bytes:
    """Read a file.

    Args:
        path: The file.
        what: What it is called in errors; its name by default.
        error: The kind of error to raise.

    Raises:
        UserError: Of that kind: the file is missing, a folder, or cannot be read.
    """
    path = Path(path)
    what = what or path.name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{what} does not exist", where=path, remedy="check the path") from None
    except IsADirectoryError:
        raise error(
            f"{what} is a folder and cannot be read", where=path, remedy="name the file in it"
        ) from None
    except OSError as problem:
        raise error(f"{what} cannot be read", where=path, found=problem.strerror) from None


def write_text(path: str | Path, text: str | Iterable[str]) -> None:
    """Write a UTF-8 file, in one text or in parts, to a temporary file beside it; then move it into place, synced.

    Either the whole file appears under its name, or the old one stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file as a whole, indented, the same bytes for the same value."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is not empty, unless ``overwrite`` is set.

    Raises:
        DataError: The path is a folder, or the file exists, is not empty, and ``overwrite`` is false.
    """
    if path.is_dir():
        raise DataError("a file was expected, not a folder", where=path, remedy="name a file with `out`")
    if not overwrite and path.exists() and path.stat().st_size:
        raise DataError(
            "the output exists already",
            where=path,
            expected="a new file",
            remedy="choose another `out`, or replace it with `overwrite`",
        )


def refuse_remote(location: str | Path | None, where: str) -> None:
    """Refuse a URL (bucket, hub, server) where a local path is required; it would create a folder ``gs:``.

    Args:
        location: What names a file or a folder.
        where: The option or key that holds it.

    Raises:
        ConfigError: It is a URL such as ``gs://bucket/run``.

    Example:
        >>> refuse_remote("runs/one", "--out")
        >>> refuse_remote("gs://bucket/run", "--out")
        Traceback (most recent call last):
        datagen.errors.ConfigError: this is a URL, not a local path
          where:    --out
          found:    gs://bucket/run
          expected: a local path
          remedy:   mount the bucket (gcsfuse, mountpoint-s3) and give its path, or copy the files from or to it
    """
    match = _REMOTE.fullmatch(str(location or ""))
    if match is None:
        return
    scheme, rest = match.groups()
    raise ConfigError(
        "this is a URL, not a local path",
        where=where,
        found=f"{scheme}://{rest}",
        expected="a local path",
        remedy=f"leave out {scheme}://"
        if scheme.lower() in ("file", "hf")
        else "mount the bucket (gcsfuse, mountpoint-s3) and give its path, or copy the files from or to it",
    )
