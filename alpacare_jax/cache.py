"""The user's cache folder, and the results of slow computations kept in it."""

import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datagen.files import write_json

logger = logging.getLogger("alpacare")


def default_cache() -> Path:
    """Name the folder for such files: ``ALPACARE_CACHE``, else the user's cache folder.

    Returns:
        A folder that need not exist yet.
    """
    named = os.environ.get("ALPACARE_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "alpacare"


def remembered(kind: str, question: str, packages: Iterable[str], answer: Callable[[], Any]) -> Any:
    """Return a cached result, or compute and cache it; it holds for the installed versions of packages.

    Args:
        kind: Folder within the cache.
        question: Everything else that the result depends on.
        packages: The packages whose versions the result depends on; they need not be installed.
        answer: Computes the result, plain JSON values.
    """
    parts = [question]
    for package in packages:
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    file = default_cache() / kind / f"{name}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = answer()
    try:
        write_json(file, found)
    except OSError as error:
        logger.debug("%s is not remembered: %s", kind, error)
    return found
