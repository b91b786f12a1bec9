"""The ledger's open file: one writer or many readers, transactions, and errors that say what to do."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from datagen.errors import DataError
from datagen.ledger.checkpoints import in_background
from datagen.ledger.file import explained, lock_file, open_database


class Connection:
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
        """Run one statement, also of a room that keeps a table of its own in this file, such as the one for batches.

        Raises:
            DataError: The file cannot be read or written.
        """
        try:
            return self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise explained(error, self.path) from error

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
