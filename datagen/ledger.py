"""The ledger: one SQLite file that remembers every request to a model and what came of it.

A request is written down before it is sent and settled when its reply or its final failure is known, each in
one transaction. A run that is killed at any moment finds every settled request again and repeats at most
those that were in flight. One process writes; others may read at the same time (``read_only``), because the
journal is a write-ahead log.
"""

import dataclasses
import datetime
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from datagen.errors import DataError

SCHEMA_VERSION = 1

State = Literal["sent", "answered", "failed"]

# cost_usd and batch_id stay NULL until spending limits and batch mode fill them.
_SCHEMA = """
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


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    ``state`` is "sent" (asked, outcome unknown), "answered" or "failed" (given up, ``error`` says why). Times
    are UTC in ISO 8601; ``cost_usd`` is in US dollars, None where it is not known.
    """

    stage: str
    id: str
    state: State
    tries: int
    prompt_hash: str
    request: str
    reply: str | None
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    batch_id: str | None
    error: str | None
    created_at: str
    sent_at: str | None
    finished_at: str | None


class Ledger:
    """A context manager around the ledger file.

    Args:
        path: The SQLite file; made, with its folder, if it is not there (unless ``read_only``).
        read_only: Read beside a running writer, changing nothing.

    Raises:
        DataError: Another process writes to it, it is not a ledger, or it is of a newer version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        ...     ledger.record_sent("tasks", "00000", prompt_hash="ab12", request={"model": "m"})
        ...     ledger.record_reply("tasks", "00000", text="hello", finish_reason="stop", model="m")
        ...     ledger.get("tasks", "00000").reply
        'hello'
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._lock: int | None = None
        if read_only and not self.path.exists():
            raise DataError("there is no ledger yet", where=self.path, remedy="start the run first")
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock_file(self.path)
        try:
            self._db = self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> sqlite3.Connection:
        mode = "ro" if self.read_only else "rwc"
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30
        )
        try:
            if not self.read_only:
                # NORMAL loses nothing when the process is killed; only a power cut may cost the last replies.
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise DataError(
                    "the ledger is of a newer version",
                    where=self.path,
                    found=f"version {version}",
                    expected=f"at most {SCHEMA_VERSION}",
                    remedy="update alpacare-jax",
                )
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "requests" not in tables:
                raise DataError("the SQLite file is not a ledger", where=self.path, found=sorted(tables))
            if not tables and not self.read_only:
                db.execute("BEGIN IMMEDIATE")
                db.execute(_SCHEMA)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            db.close()
            raise self._explained(error) from error
        except BaseException:
            db.close()
            raise
        return db

    def _explained(self, error: sqlite3.DatabaseError) -> Exception:
        """Turn SQLite's error into one that says what to do."""
        words = str(error)
        if "disk" in words:
            return DataError(
                "the disk refused to keep the ledger: it is full or failing",
                where=self.path,
                found=words,
                remedy="free some disk space and run the same command again; what was answered is kept",
            )
        if "readonly" in words or "unable to open" in words:
            return DataError(
                "the ledger cannot be written", where=self.path, found=words, remedy="check the rights"
            )
        if "locked" in words:
            return DataError(
                "another program holds the ledger", where=self.path, remedy="close it and try again"
            )
        return DataError(
            "the ledger cannot be read; it may be damaged or not a ledger",
            where=self.path,
            found=words,
            remedy="choose another work folder, or restore the file",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another process write to it."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def get(self, stage: str, id: str, *, prompt_hash: str | None = None) -> Entry | None:
        """Return the row of one request, or None.

        Args:
            stage: The stage that asked, such as "tasks" or "answers".
            id: The request's id, unique within its stage.
            prompt_hash: If given, the row must hold the same one.

        Raises:
            DataError: The row was made from another prompt, so the work folder belongs to another
                configuration.
        """
        cursor = self._execute(f"SELECT {_COLUMNS} FROM requests WHERE stage = ? AND id = ?", (stage, id))
        row = cursor.fetchone()
        if row is None:
            return None
        entry = Entry(*row)
        if prompt_hash is not None and entry.prompt_hash != prompt_hash:
            raise DataError(
                "the work folder was made by another configuration: "
                "a request with the same id asked something else",
                where=f"{self.path}, stage {stage}, id {id}",
                found=f"prompt hash {entry.prompt_hash[:12]}",
                expected=f"prompt hash {prompt_hash[:12]}",
                remedy="choose another work folder, or go back to the configuration that made this one",
            )
        return entry

    def entries(self, stage: str | None = None) -> Iterator[Entry]:
        """Yield all rows, or those of one stage, in the order of their ids."""
        where, values = ("", ()) if stage is None else (" WHERE stage = ?", (stage,))
        for row in self._execute(f"SELECT {_COLUMNS} FROM requests{where} ORDER BY stage, id", values):
            yield Entry(*row)

    def record_sent(self, stage: str, id: str, *, prompt_hash: str, request: dict[str, Any]) -> None:
        """Write down that a request is about to be sent, and count the try.

        Args:
            stage: The stage that asks.
            id: The request's id.
            prompt_hash: Fingerprint of everything that shapes the reply.
            request: The body of the request, without any key.
        """
        now = utc_now()
        self._execute(
            "INSERT INTO requests (stage, id, state, tries, prompt_hash, request, created_at, sent_at)"
            " VALUES (?, ?, 'sent', 1, ?, ?, ?, ?) ON CONFLICT (stage, id) DO UPDATE SET"
            " state = 'sent', tries = tries + 1, sent_at = excluded.sent_at, error = NULL",
            (stage, id, prompt_hash, json.dumps(request, ensure_ascii=False), now, now),
        )

    def record_reply(
        self,
        stage: str,
        id: str,
        *,
        text: str,
        finish_reason: str,
        model: str,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cost_usd: float | None = None,
    ) -> None:
        """Settle a request with its reply; tokens as the server counts them, cost in US dollars."""
        self._settle(
            "UPDATE requests SET state = 'answered', reply = ?, finish_reason = ?, model = ?,"
            " prompt_tokens = ?, completion_tokens = ?, cost_usd = ?, error = NULL, finished_at = ?"
            " WHERE stage = ? AND id = ?",
            (text, finish_reason, model, prompt_tokens, completion_tokens, cost_usd, utc_now(), stage, id),
        )

    def record_failure(self, stage: str, id: str, *, error: str) -> None:
        """Settle a request as failed; ``error`` is "code: words" and holds no key."""
        self._settle(
            "UPDATE requests SET state = 'failed', error = ?, finished_at = ? WHERE stage = ? AND id = ?",
            (error, utc_now(), stage, id),
        )

    def _settle(self, statement: str, values: tuple[Any, ...]) -> None:
        changed = self._execute(statement, values).rowcount
        assert changed == 1, f"a request is settled that was never sent: {values[-2:]}"

    def reopen(self, stage: str, id: str | None = None) -> int:
        """Take failed requests of a stage (or one of them) back to "sent", so that they are asked again.

        Returns:
            How many were taken back.
        """
        only, values = ("", (stage,)) if id is None else (" AND id = ?", (stage, id))
        return self._execute(
            "UPDATE requests SET state = 'sent', finished_at = NULL"
            f" WHERE stage = ? AND state = 'failed'{only}",
            values,
        ).rowcount

    def counts(self) -> dict[str, dict[str, int]]:
        """Count, per stage: requests "sent", "answered" and "failed", "tries", and tokens in and out.

        Returns:
            ``{stage: {"sent", "answered", "failed", "tries", "prompt_tokens", "completion_tokens"}}``.
        """
        cursor = self._execute(
            "SELECT stage, SUM(state = 'sent'), SUM(state = 'answered'), SUM(state = 'failed'), SUM(tries),"
            " COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
            " FROM requests GROUP BY stage ORDER BY stage"
        )
        names = ("sent", "answered", "failed", "tries", "prompt_tokens", "completion_tokens")
        return {stage: dict(zip(names, numbers, strict=True)) for stage, *numbers in cursor}


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Entry))


def utc_now() -> str:
    """Return the present time, UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _lock_file(path: Path) -> int:
    """Take the writer's lock beside the ledger; freed when the process ends, however it ends."""
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
