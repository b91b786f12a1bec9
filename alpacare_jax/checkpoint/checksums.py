"""Checksums of what Orbax writes, beside it: tensorstore silently decodes a flipped bit of a weight.

Of its formats only zarr3 has a codec that would notice (crc32c), and Orbax offers no way to ask for it. So every
folder of Orbax's gets a file with the sizes and CRC-32 of its files, written before the folder gets its name.
Folders of earlier versions have none and are read as they are.
"""

import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from alpacare_jax.errors import CheckpointError

NAME = "_CHECKSUMS"
BLOCK_BYTES = 4 << 20


def record(folder: Path) -> None:
    """Write the checksums of a folder's files beside them; one process does so, when all have written.

    Args:
        folder: A folder of Orbax's, whole.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != NAME]
    names = [path.relative_to(folder).as_posix() for path in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(names, pool.map(lambda name: _measure(folder / name), names), strict=True))
    (folder / NAME).write_text(json.dumps({"crc32": dict(sorted(found.items()))}, indent=1), encoding="utf-8")


def verify(folder: Path) -> None:
    """Compare a folder's files with their checksums. All processes must call; each reads a part of the files.

    Raises:
        CheckpointError: Files are missing, cut short or changed; all are named.
    """
    problems = _damage(folder)
    damaged = bool(problems)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        damaged = bool(np.any(multihost_utils.process_allgather(np.asarray(damaged))))
    if damaged:
        raise CheckpointError(
            "the checkpoint is damaged",
            where=folder,
            found="; ".join(problems[:4]) + (f" and {len(problems) - 4} more" if len(problems) > 4 else "")
            or "another process found damaged files",
            expected="the bytes that were written",
            remedy="restore the files from a copy, use another step, or make the checkpoint again",
        )


def _damage(folder: Path) -> list[str]:
    """Say what is wrong with this process's part of a folder's files."""
    try:
        expected = json.loads((folder / NAME).read_text(encoding="utf-8"))["crc32"]
        sizes = {name: (int(size), int(crc)) for name, (size, crc) in expected.items()}
    except FileNotFoundError:
        return []  # of an earlier version; missing files are reported where they are read
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{NAME} cannot be read"]
    mine = sorted(sizes, key=lambda name: (-sizes[name][0], name))[jax.process_index() :: jax.process_count()]

    def look(name: str) -> str | None:
        size, crc = sizes[name]
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes instead of {size:,}"
            return None if _measure(folder / name) == [size, crc] else f"the bytes of {name} have changed"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [problem for problem in pool.map(look, mine) if problem]


def _measure(file: Path) -> list[int]:
    """Return a file's size and CRC-32."""
    size = crc = 0
    block = memoryview(bytearray(BLOCK_BYTES))
    with file.open("rb", buffering=0) as source:
        while count := source.readinto(block):
            size, crc = size + count, zlib.crc32(block[:count], crc)
    return [size, crc]
