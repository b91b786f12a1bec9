"""The ledger's file: one writer or many readers, transactions, notes, and errors with a remedy.

Everything that can be wrong with the file (another writer, a newer version, damage, a full disk, missing rights)
becomes a :class:`DataError`. Nothing here deletes or replaces a file.
"""

import contextlib
import fcntl
import importlib.resources
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from datagen.errors import DataError
from datagen.ledger.checkpoints import in_background
from datagen.ledger.unwritable import open_unwritable

SCHEMA_VERSION = 3
LOCK_TIMEOUT_S = 30.0
_HEADER_BYTES = 100


class LedgerFile:
    """A context manager around the ledger's file; the classes of its tables build on it.

    Args:
        path: The SQLite file; made, with its folder, if it is not there (unless ``read_only``).
        read_only: Read beside a running writer, changing nothing.

    Raises:
        DataError: Another process writes to it, it is not a ledger, or it is of a newer version.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                opened.callback(os.close, _lock(self.path))
            self._db = opened.enter_context(contextlib.closing(_open(self.path, read_only=read_only)))
            self._open = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another process write to it."""
        self._open.close()

    def checkpoints_in_background(self) -> AbstractContextManager[None]:
        """Keep writes short while the context is open: another thread waits for the disk."""
        return in_background(self._db, self.path)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement, also for a module that keeps a table of its own in this file, such as the batches.

        Raises:
            DataError: The file cannot be read or written.
        """
        try:
            return self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise explained(error, self.path) from error

    def value(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        """Return the first value of the first row of a query, or None."""
        row = self.execute(statement, values).fetchone()
        return row and row[0]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything within, or nothing of it."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read within see one moment, whatever a running job writes meanwhile."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    def note(self, key: str, text: str) -> None:
        """Keep a text for readers under a key, in place of the one before it."""
        self.execute("INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)", (key, text))

    def noted(self, key: str) -> str | None:
        """Return the text kept under a key, or None."""
        text: str | None = self.value("SELECT text FROM notes WHERE key = ?", (key,))
        return text


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the SQLite file of a ledger and migrate it to the current version; a reader migrates a copy in memory.

    Raises:
        DataError: It is not there (``read_only``), not a ledger, damaged, locked, of a newer version, or unreadable.
    """
    if read_only and not path.exists():
        raise DataError("there is no ledger yet", where=path, remedy="start the run first")
    if path.is_dir():
        raise DataError("the ledger is a folder", where=path, expected="an SQLite file")
    if path.exists() and 0 < path.stat().st_size < _HEADER_BYTES:
        # SQLite takes a file of one byte for a new database.
        raise _damaged(path, f"{path.stat().st_size} bytes")
    with contextlib.ExitStack() as opened:
        try:
            db = opened.enter_context(contextlib.closing(_connect(path, read_only=read_only)))
            if not read_only:
                # Damage is found before anything is paid for and written: 0.2 s for 56,000 requests.
                found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise _damaged(path, found)
                # NORMAL loses nothing when the process is killed; only a power cut may cost the last replies.
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
            version = _version(db, path)
            if version == 0 and read_only:
                raise DataError(
                    "the ledger is empty",
                    where=path,
                    remedy="if no run has just begun in this folder: restore it from a copy, or choose a new folder",
                )
            if version < SCHEMA_VERSION:
                if read_only:
                    file, db = db, sqlite3.connect(":memory:", isolation_level=None)
                    opened.callback(db.close)
                    file.backup(db)
                    file.close()
                _migrate(db, version)
        except sqlite3.DatabaseError as error:
            raise explained(error, path) from error
        opened.pop_all()
        return db


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S)
    try:
        db.execute("PRAGMA user_version").fetchone()
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        if not read_only or not any(words in str(error) for words in ("unable to open", "readonly")):
            raise
        reason = error
    # Nothing can be written beside it, which SQLite needs to read it.
    try:
        found = open_unwritable(path)
    except OSError as error:
        raise DataError(
            "the ledger cannot be read", where=path, found=str(error), remedy="check the rights"
        ) from None
    if found is None:
        raise DataError(
            "the ledger cannot be read beside its writer",
            where=path,
            found=str(reason),
            remedy="give this user the right to write to the folder, or wait until the run has ended",
        )
    return found


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the ledger's version, 0 for a new file; refuse other files and newer versions."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise DataError(
            "the ledger is of a newer version",
            where=path,
            found=f"version {version}",
            expected=f"at most {SCHEMA_VERSION}",
            remedy="update alpacare-jax",
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "requests" not in tables:
        raise DataError("the SQLite file is not a ledger", where=path, found=sorted(tables))
    return version


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """Migrate the file to the current version in one transaction."""
    folder = importlib.resources.files("datagen.ledger")
    steps = range(version + 1, SCHEMA_VERSION + 1)
    scripts = [folder.joinpath(f"version_{step}.sql").read_text("utf-8") for step in steps]
    try:
        db.executescript(
            "\n".join(["BEGIN IMMEDIATE;", *scripts, f"PRAGMA user_version = {SCHEMA_VERSION};", "COMMIT;"])
        )
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """Turn SQLite's error into a :class:`DataError` with a remedy."""
    words = str(error)
    if "disk" in words and "malformed" not in words:
        return DataError(
            "the disk refused to keep the ledger: it is full or failing",
            where=path,
            found=words,
            remedy="free some disk space and run the same command again; what was answered is kept",
        )
    if "readonly" in words or "unable to open" in words:
        return DataError("the ledger cannot be written", where=path, found=words, remedy="check the rights")
    if "locked" in words:
        return DataError("another program holds the ledger", where=path, remedy="close it and try again")
    return _damaged(path, words)


def _damaged(path: Path, words: str) -> DataError:
    return DataError(
        "the ledger cannot be read; it may be damaged or not a ledger",
        where=path,
        found=words,
        remedy="restore the file from a copy; or let `sqlite3 FILE .recover` save its rows into a new one; "
        "or choose another work folder",
    )


def _lock(path: Path) -> int:
    """Take the writer's lock beside the ledger; freed when the process ends, however it ends.

    Raises:
        DataError: Another process holds it.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 64, 0).decode(errors="replace").strip()
        os.close(lock)
        raise DataError(
            "another process is writing to this work folder",
            where=path,
            found=f"process {holder}" if holder else None,
            remedy="wait until it has ended, or choose another work folder",
        ) from None
    except BaseException:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
