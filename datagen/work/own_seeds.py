"""The work folder's own copy of its seed tasks: a run outlives the file that it was started with.

``seeds.jsonl`` in a work folder holds the tasks as they were read. The folder's configuration is pinned to their
hash, so that a copy that was changed, or an original that was changed since, is never taken for what the run was made
of. Folders of an older version have no copy until they are run again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.errors import DataError
from datagen.records import SeedTask, write_records
from datagen.seeds import load_seeds
from datagen.settings import Settings

SEEDS = "seeds.jsonl"
#: The name under which the hash stands in the folder's configuration.
PINNED_AS = "seed tasks"


def fingerprint(seeds: Sequence[SeedTask]) -> str:
    """Return the number of seed tasks and the beginning of the SHA-256 of their content.

    Example:
        >>> fingerprint([SeedTask("Why rest?")])
        '1 tasks, ab7ef92ed2ff'
    """
    text = json.dumps([seed.to_dict() for seed in seeds], sort_keys=True)
    return f"{len(seeds)} tasks, {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def keep_copy(work: Path, seeds: Sequence[SeedTask]) -> None:
    """Write the tasks into the work folder, if they do not stand there already."""
    path = work / SEEDS
    try:
        if load_seeds(path) == list(seeds):
            return
    except (DataError, OSError):
        pass
    write_records(path, seeds)


def own_seeds(work: Path, fixed: dict[str, Any]) -> Path | None:
    """Return the folder's copy of its seed tasks, or None where it has none.

    Args:
        work: The work folder.
        fixed: What the folder is pinned to.

    Raises:
        DataError: The copy is not what the folder is pinned to.
    """
    path = work / SEEDS
    if not path.exists():
        return None
    found = fingerprint(load_seeds(path))
    if found != fixed.get(PINNED_AS):
        raise DataError(
            "the work folder's copy of its seed tasks was changed",
            where=path,
            found=found,
            expected=fixed.get(PINNED_AS),
            remedy="run the same command again with the original file (--seeds FILE), which writes the copy anew",
        )
    return path


def with_own_seeds(settings: Settings, work: Path, fixed: dict[str, Any]) -> Settings:
    """Return the settings with the folder's copy of its seed tasks, where it has one: for looking back at a run."""
    path = own_seeds(work, fixed)
    return settings if path is None else dataclasses.replace(settings, seeds=path)
