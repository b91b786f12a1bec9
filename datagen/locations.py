"""Where files and folders may lie: in the file system, and nowhere that would only look like a folder of it."""

import re
from pathlib import Path

from datagen.errors import ConfigError

# A pathlib.Path keeps one of the two slashes. A single letter is no scheme but a drive of Windows.
_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def refuse_remote(location: str | Path | None, where: str) -> None:
    """Refuse the address of a bucket, a hub or a server where a local path is wanted; a folder ``gs:`` would be made.

    Args:
        location: What names a file or a folder.
        where: The option or key that holds it.

    Raises:
        ConfigError: It is an address such as ``gs://bucket/run``.

    Example:
        >>> refuse_remote("runs/one", "--out")
        >>> refuse_remote("gs://bucket/run", "--out")
        Traceback (most recent call last):
        datagen.errors.ConfigError: this is an address, not a path of this machine
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
        "this is an address, not a path of this machine",
        where=where,
        found=f"{scheme}://{rest}",
        expected="a local path",
        remedy=f"leave out {scheme}://"
        if scheme.lower() in ("file", "hf")
        else "mount the bucket (gcsfuse, mountpoint-s3) and give its path, or copy the files from or to it",
    )
