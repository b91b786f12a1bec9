"""Where files are kept for a user that can be made or fetched again."""

import os
from pathlib import Path


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
