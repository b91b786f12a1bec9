"""The ledger: one SQLite file that remembers every request to a model and what came of it.

A request is written down before it is sent and settled when its reply or its final failure is known, each in
one transaction. A run that is killed at any moment finds every settled request again and repeats at most
those that were in flight. One process writes; others may read at the same time (``read_only``), because the
journal is a write-ahead log.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from datagen.errors import DataError
from datagen.ledger.checkpoints import in_background
from datagen.ledger.file import explained, lock_file, open_database

State = Literal["sent", "answered", "failed"]
Outcome = Literal["open", "settled", "free", "unknown"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    ``state`` is "sent" (asked, outcome unknown), "answered" or "failed" (given up, ``error`` says why). Times
    are UTC in ISO 8601; ``cost_usd`` is that of the try that was answered, in US dollars, None where it is not
    known.
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


@dataclasses.dataclass(frozen=True)
class Try:
    """One try of a request that may cost money: what it could cost at most, and what came of it.

    ``outcome`` is "open" (in flight), "settled" (the service counted its tokens), "free" (surely not billed) or
    "unknown" (its worst case counts as spent). Amounts are in US dollars, None where there is no price; times
    are UTC in ISO 8601. A try of a ``batch`` stays open until the batch ends.
    """

    number: int
    stage: str
    id: str
    model: str
    batch: bool
    outcome: Outcome
    most_prompt_tokens: int
    most_completion_tokens: int
    reserved_usd: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    sent_at: str
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
            self._lock = lock_file(self.path)
        try:
            self._db = open_database(self.path, read_only=read_only)
        except BaseException:
            self._unlock()
            raise
        self._version: int = self._db.execute("PRAGMA user_version").fetchone()[0]

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

    def checkpoints_in_background(self) -> AbstractContextManager[None]:
        """Keep writes short while the context is open: the disk is waited for in another thread."""
        return in_background(self._db, self.path)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def version(self) -> int:
        """Version of the file's tables; an older one is brought up to date unless it is only read."""
        return self._version

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement of a room that keeps a table of its own in this file, such as the one for batches."""
        return self._execute(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything within, or nothing of it."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise explained(error, self.path) from error

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

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read within see one moment, whatever a running job writes meanwhile."""
        self._execute("BEGIN")
        try:
            yield
        finally:
            self._execute("ROLLBACK")

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
            " state = 'sent', tries = tries + 1, sent_at = excluded.sent_at, batch_id = NULL, error = NULL",
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

    def copy(self, entries: Sequence[Entry]) -> None:
        """Take over rows of another ledger as they are: all of them, or none."""
        marks = ", ".join("?" for _ in dataclasses.fields(Entry))
        with self.transaction():
            for entry in entries:
                self._execute(
                    f"INSERT INTO requests ({_COLUMNS}) VALUES ({marks})",
                    tuple(getattr(entry, field.name) for field in dataclasses.fields(Entry)),
                )

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

    def began(self) -> bool:
        """Tell whether any request was ever written down."""
        return self._execute("SELECT 1 FROM requests LIMIT 1").fetchone() is not None

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

    def settled_behind(self, stage: str, count: int) -> dict[str, int]:
        """Count the settled requests of a stage behind its first ``count``, and their tokens in and out.

        Returns:
            ``{"requests", "prompt_tokens", "completion_tokens"}``.
        """
        row = self._execute(
            "SELECT COUNT(*), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
            " FROM requests WHERE stage = ? AND id >= ? AND state <> 'sent'",
            (stage, f"{count:06d}"),
        ).fetchone()
        return dict(zip(("requests", "prompt_tokens", "completion_tokens"), row, strict=True))

    def taken_over_usd(self) -> float:
        """Return what replies that were copied from another ledger had cost there, in US dollars."""
        if self._version < 2:
            return 0.0
        cost: float = self._execute(
            "SELECT TOTAL(cost_usd) FROM requests WHERE (stage, id) NOT IN (SELECT stage, id FROM tries)"
        ).fetchone()[0]
        return cost

    def note(self, key: str, text: str) -> None:
        """Keep a text under a key, in place of the one before it."""
        self._execute("INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)", (key, text))

    def noted(self, key: str) -> str | None:
        """Return the text kept under a key; None where there is none, or in a ledger of version 1."""
        if self._version < 2:
            return None
        row = self._execute("SELECT text FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def open_try(
        self,
        stage: str,
        id: str,
        *,
        model: str,
        most_prompt_tokens: int,
        most_completion_tokens: int,
        reserved_usd: float | None,
        batch: bool = False,
    ) -> int:
        """Write down that a try may cost money from now on, and return its number."""
        number = self._execute(
            "INSERT INTO tries (stage, id, model, batch, most_prompt_tokens, most_completion_tokens,"
            " reserved_usd, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (stage, id, model, batch, most_prompt_tokens, most_completion_tokens, reserved_usd, utc_now()),
        ).lastrowid
        assert number is not None
        return number

    def close_try(
        self,
        number: int,
        outcome: Outcome,
        *,
        cost_usd: float | None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """Write down what came of a try and what it counts as spent, in US dollars."""
        changed = self._execute(
            "UPDATE tries SET outcome = ?, cost_usd = ?, prompt_tokens = ?, completion_tokens = ?,"
            " finished_at = ? WHERE number = ? AND outcome = 'open'",
            (outcome, cost_usd, prompt_tokens, completion_tokens, utc_now(), number),
        ).rowcount
        assert changed == 1, f"try {number} is closed twice"

    def price_try(self, number: int, cost_usd: float) -> None:
        """Give a closed try a cost in US dollars that it lacked."""
        self._execute("UPDATE tries SET cost_usd = ? WHERE number = ?", (cost_usd, number))

    def tries(self, where: str = "TRUE") -> Iterator[Try]:
        """Yield the tries in the order in which they were sent; none from a ledger of version 1."""
        if self._version < 2:
            return
        for row in self._execute(f"SELECT {_TRY_COLUMNS} FROM tries WHERE {where} ORDER BY number"):
            each = Try(*row)
            yield dataclasses.replace(each, batch=bool(each.batch))

    def open_tries(self) -> list[Try]:
        """Return the tries without an outcome."""
        return list(self.tries("outcome = 'open'"))

    def tries_beyond_bounds(self) -> list[Try]:
        """Return the tries for which the service counted more tokens than the request should have allowed."""
        return list(
            self.tries("prompt_tokens > most_prompt_tokens OR completion_tokens > most_completion_tokens")
        )

    def unpriced_tries(self) -> list[Try]:
        """Return the tries that ended and may have cost something, but had no price."""
        return list(self.tries("outcome IN ('settled', 'unknown') AND cost_usd IS NULL"))

    def spending(self) -> dict[str, dict[str, float]]:
        """Sum, per stage, what was spent in US dollars.

        Returns:
            ``{stage: {"spent_usd", "unknown_usd", "held_usd", "unpriced", "settled"}}``: what the service
            counted; worst cases of tries whose bill is unknown; worst cases of tries in flight; how many tries
            have no price; and how many the service counted, at a price.
        """
        if self._version < 2:
            return {}
        cursor = self._execute(
            "SELECT stage, TOTAL(cost_usd) FILTER (WHERE outcome = 'settled'),"
            " TOTAL(cost_usd) FILTER (WHERE outcome = 'unknown'),"
            " TOTAL(reserved_usd) FILTER (WHERE outcome = 'open'),"
            " COUNT(*) FILTER (WHERE cost_usd IS NULL AND outcome <> 'open'),"
            " COUNT(*) FILTER (WHERE cost_usd IS NOT NULL AND outcome = 'settled')"
            " FROM tries GROUP BY stage ORDER BY stage"
        )
        names = ("spent_usd", "unknown_usd", "held_usd", "unpriced", "settled")
        return {stage: dict(zip(names, numbers, strict=True)) for stage, *numbers in cursor}


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Entry))
_TRY_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Try))


def utc_now() -> str:
    """Return the present time, UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
