"""Opens a ledger for reading where nothing can be written: another user's folder, a read-only medium.

SQLite reads a write-ahead log through an index in a file beside it, ``-shm``, which it must be able to make. Where it
cannot, and no process writes to the ledger, its file is read as one that does not change; if a killed process left
rows in the log, from a copy into which they were brought.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path


def open_unwritable(path: Path) -> sqlite3.Connection | None:
    """Open a ledger for reading that SQLite cannot open, because it can make no file beside it.

    Args:
        path: The ledger's file.

    Returns:
        The open database, or None where another process writes to the ledger.

    Raises:
        OSError: It cannot be read, or there is no room for a copy.
        sqlite3.DatabaseError: It is not a database.
    """
    if _has_writer(path):
        return None
    log = Path(f"{path}-wal")
    if not log.exists() or log.stat().st_size == 0:
        return _open_unchanging(path)
    with tempfile.TemporaryDirectory(prefix="alpacare-ledger-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, f"{copy}-wal")
        whole = sqlite3.connect(copy, isolation_level=None)
        try:
            whole.execute("PRAGMA journal_mode = DELETE")
        finally:
            whole.close()
        return _open_unchanging(copy)  # it stays open when its name is gone


def _open_unchanging(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _has_writer(path: Path) -> bool:
    """Tell whether a process holds the ledger's lock."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
