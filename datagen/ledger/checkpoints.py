"""Checkpoints of a SQLite write-ahead log in a thread of their own.

A write to the log takes some 40 microseconds; what takes long is the checkpoint, which moves the log into the
database and waits for the disk, up to seconds on a busy one. By default SQLite does it inside whatever write makes
the log long enough, which blocks an event loop that writes. Here another connection does it.
Nothing about safety changes: a write is in the log before it returns, and survives a kill there.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_SECONDS_BETWEEN = 1.0
#: Pages after which SQLite itself takes a checkpoint in a write: by default, and while the thread runs. The latter
#: bounds the log (160 MB) should the thread not keep up.
_DEFAULT_PAGES = 1000
_PAGES_MEANWHILE = 40_000


@contextlib.contextmanager
def in_background(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Take the checkpoints of a database in a thread while the context is open.

    Args:
        db: The connection that writes; it stays with its thread.
        path: Its file.
    """
    stop = threading.Event()
    db.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_MEANWHILE}")
    thread = threading.Thread(target=_take, args=(path, stop), name="ledger-checkpoints", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        db.execute(f"PRAGMA wal_autocheckpoint = {_DEFAULT_PAGES}")


def _take(path: Path, stop: threading.Event) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as db:
            while not stop.wait(_SECONDS_BETWEEN):
                # PASSIVE neither waits for other connections nor blocks them.
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.DatabaseError as error:
        # The writer meets the same error and reports it with a remedy; its own checkpoints go on.
        log.debug("checkpoints of %s ended: %s", path, error)
