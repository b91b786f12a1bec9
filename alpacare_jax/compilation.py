"""Compiled programs are kept on disk, so that the second start of a run does not compile again."""

import contextlib
import hashlib
import os
import platform
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from alpacare_jax.cache import default_cache

FOLDER = "JAX_COMPILATION_CACHE_DIR"
SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"
LEAST_TIME = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

THREAD = "compiler"
"""Name of the thread that compiles a run's step."""

MOST_BYTES = 10 << 30
"""How much is kept before the programs that were not used for longest are deleted."""


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> Path | None:
    """Have jax keep what it compiles, before it is started; what the user has set stays.

    Programs for a CPU belong to its kind: they use all of its instructions, and a home folder may be shared by
    machines of several kinds.

    Returns:
        The folder; None where the user has turned the cache off (``JAX_COMPILATION_CACHE_DIR=``).
    """
    folder = str(default_cache() / "programs" / machine_kind())
    environment.setdefault(FOLDER, folder)
    environment.setdefault(SIZE, str(MOST_BYTES))
    # A start has small programs too; but each write looks through the whole folder, so the smallest are left out.
    environment.setdefault(LEAST_TIME, "0.1")
    return Path(environment[FOLDER]) if environment[FOLDER] else None


@contextlib.contextmanager
def watch() -> Iterator[list[str]]:
    """Note which of the programs that this thread asks for in the body come from the cache.

    Yields:
        A list that "kept" is put into for each program from the cache, and "compiled" for each new one that the cache
        takes; it stays empty where there is no cache.
    """
    from jax import monitoring

    found: list[str] = []
    thread = threading.get_ident()
    events = {"/jax/compilation_cache/cache_hits": "kept", "/jax/compilation_cache/cache_misses": "compiled"}

    def note(event: str, **_: str | int) -> None:
        if event in events and threading.get_ident() == thread:
            found.append(events[event])

    monitoring.register_event_listener(note)
    try:
        yield found
    finally:
        monitoring.unregister_event_listener(note)


def machine_kind() -> str:
    """Name this kind of machine: its architecture and a hash of what its CPU can do.

    Example:
        >>> machine_kind() == machine_kind()
        True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    able = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0] if lines else "")
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}"
