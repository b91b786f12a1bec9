"""The file under the ledger: opened for one writer or many readers, brought to the present version, explained.

Everything that can be wrong with the file (another writer, a newer version, damage, a full disk, missing rights)
becomes a :class:`DataError` that says what to do. Nothing here deletes or replaces a file.
"""

import fcntl
import os
import sqlite3
from pathlib import Path

from datagen.errors import DataError
from datagen.ledger.unwritable import open_unwritable

SCHEMA_VERSION = 3
LOCK_TIMEOUT_S = 30.0
_HEADER_BYTES = 100

_REQUESTS = """
CREATE TABLE requests (
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed')),
    tries INTEGER NOT NULL DEFAULT 0,
    prompt_hash TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT,
    finish_reason TEXT,
    model TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd REAL,
    batch_id TEXT,
    error TEXT,
    created_at TEXT NOT NULL,
    sent_at TEXT,
    finished_at TEXT,
    PRIMARY KEY (stage, id)
) WITHOUT ROWID
"""

# One row for each try that may cost money. outcome: 'open' (in flight, or cut off by a kill), 'settled' (the
# service said how many tokens), 'free' (surely not billed), 'unknown' (its worst case counts as spent).
_TRIES = """
CREATE TABLE tries (
    number INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    batch INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT 'open' CHECK (outcome IN ('open', 'settled', 'free', 'unknown')),
    most_prompt_tokens INTEGER NOT NULL,
    most_completion_tokens INTEGER NOT NULL,
    reserved_usd REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd REAL,
    sent_at TEXT NOT NULL,
    finished_at TEXT
)
"""

# What a run wants a reader to know, such as how far it is.
_NOTES = "CREATE TABLE notes (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"

# One row for each input file of a provider's batch interface. state: 'planned' (its requests and their worst case are
# written down; it may or may not have reached the provider), 'open' (the provider has it, as batch_id), 'ended'.
_BATCHES = """
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'open', 'ended')),
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    content TEXT NOT NULL,
    batch_id TEXT,
    status TEXT NOT NULL DEFAULT '',
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    planned_at TEXT NOT NULL,
    checked_at TEXT,
    ended_at TEXT,
    words TEXT NOT NULL DEFAULT ''
)
"""

_FEW_OPEN = "CREATE INDEX tries_open ON tries (number) WHERE outcome = 'open'"

# Version 1 counted tries and knew nothing of money. The try that brought the answer has its tokens; the others of
# a request become one row whose bounds are theirs together: bytes of the body, and the reply's limit.
_FROM_1_ANSWERED = """
INSERT INTO tries (stage, id, model, outcome, most_prompt_tokens, most_completion_tokens, prompt_tokens,
    completion_tokens, sent_at, finished_at)
SELECT stage, id, COALESCE(json_extract(request, '$.model'), model, ''), 'settled',
    LENGTH(CAST(request AS BLOB)) + 128, COALESCE(json_extract(request, '$.max_tokens'), 0),
    prompt_tokens, completion_tokens, COALESCE(sent_at, created_at), finished_at
FROM requests WHERE state = 'answered' AND prompt_tokens > 0
"""
_FROM_1_UNKNOWN = """
INSERT INTO tries (stage, id, model, outcome, most_prompt_tokens, most_completion_tokens, sent_at, finished_at)
SELECT stage, id, COALESCE(json_extract(request, '$.model'), model, ''), 'unknown',
    (LENGTH(CAST(request AS BLOB)) + 128) * many, COALESCE(json_extract(request, '$.max_tokens'), 0) * many,
    COALESCE(sent_at, created_at), finished_at
FROM (SELECT *, tries - (state = 'answered' AND prompt_tokens > 0) AS many FROM requests) WHERE many > 0
"""


def open_database(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the SQLite file of a ledger, made if it is not there, and bring it to the present version.

    Args:
        path: The file.
        read_only: Open it beside a running writer; an older version is then read as it is.

    Raises:
        DataError: It is not a ledger, is damaged, locked, of a newer version, or cannot be read.
    """
    if path.is_dir():
        raise DataError("the ledger is a folder", where=path, expected="an SQLite file")
    if path.exists() and 0 < path.stat().st_size < _HEADER_BYTES:
        # SQLite takes a file of one byte for a new database.
        raise _damaged(path, f"{path.stat().st_size} bytes")
    mode = "ro" if read_only else "rwc"
    try:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S
        )
        if read_only:
            db = _readable(db, path)
    except sqlite3.DatabaseError as error:
        raise explained(error, path) from error
    try:
        if not read_only:
            _check(db, path)
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
        if version < SCHEMA_VERSION and not read_only:
            _migrate(db, version)
    except sqlite3.DatabaseError as error:
        db.close()
        raise explained(error, path) from error
    except BaseException:
        db.close()
        raise
    return db


def _readable(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return the database, opened in another way where nothing can be written beside it."""
    try:
        db.execute("PRAGMA user_version").fetchone()
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
        try:
            found = open_unwritable(path)
        except OSError as other:
            raise DataError(
                "the ledger cannot be read", where=path, found=str(other), remedy="check the rights"
            ) from None
        if found is None:
            raise DataError(
                "the ledger cannot be read beside its writer",
                where=path,
                found=str(error),
                remedy="give this user the right to write to the folder, or wait until the run has ended",
            ) from None
        return found


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file with damage within, before anything is paid for and written: 0.2 s for 56,000 requests."""
    found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, found)


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the ledger's version, 0 for a new file; refuse what is no ledger or a newer one."""
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
    """Bring the file to the present version in one transaction: wholly, or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 0:
            db.execute(_REQUESTS)
        if version < 2:
            db.execute(_TRIES)
            db.execute(_FEW_OPEN)
            db.execute(_NOTES)
        if version < 3:
            db.execute(_BATCHES)
        if version == 1:
            db.execute(_FROM_1_ANSWERED)
            db.execute(_FROM_1_UNKNOWN)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """Turn SQLite's error into one that says what to do."""
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


def lock_file(path: Path) -> int:
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
