"""The table of batches in the ledger of a work folder.

A batch is recorded, with its requests and their worst case, before anything is sent. Its metadata at the provider
name the work folder, its number and its content; so a batch whose id a killed process never received is found again,
and not submitted twice.
"""

import dataclasses
import datetime
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from datagen.ledger import Ledger, utc_now
from datagen.money.account import Bill
from datagen.money.budget import Budget
from datagen.service.limits import in_words

_FOLDER = "work folder"
#: By content, not by number: a batch that was never made is planned anew under another number.
_FILE = "batch file {}"


@dataclasses.dataclass(frozen=True)
class BatchRecord:
    """One row of the table.

    Attributes:
        number: Counts the batches of a work folder, from 1.
        stage: The stage of its requests.
        state: "planned" (recorded; the provider's id is unknown), "open" or "ended".
        base_url: The service it was meant for.
        model: The model that is asked.
        requests: How many requests it holds.
        prompt_tokens: Estimate of their prompt tokens.
        content: Fingerprint of the input file.
        batch_id: The provider's id, once it is known.
        status: What the provider last said, such as "in_progress"; "asked for" when it was asked to make the batch.
        completed: Requests that the provider says it completed.
        failed: Requests that it says failed.
        planned_at: When it was recorded, UTC, ISO 8601.
        checked_at: When the provider was last asked about it.
        ended_at: When its replies were all in.
        words: A note on its outcome, or "".
    """

    number: int
    stage: str
    state: Literal["planned", "open", "ended"]
    base_url: str
    model: str
    requests: int
    prompt_tokens: int
    content: str
    batch_id: str | None
    status: str
    completed: int
    failed: int
    planned_at: str
    checked_at: str | None
    ended_at: str | None
    words: str

    @property
    def key(self) -> str:
        """The value of ``batch_id`` in the rows of its requests."""
        return self.batch_id or f"part-{self.number}"

    @property
    def asked_for(self) -> bool:
        """Whether the provider was ever asked to make it, so that it may be there."""
        return bool(self.status)

    def age_s(self, now: datetime.datetime | None = None) -> float:
        """Return how long it took, or has taken until now, in seconds."""
        until = datetime.datetime.fromisoformat(self.ended_at) if self.ended_at else now
        until = until or datetime.datetime.now(datetime.UTC)
        return max(0.0, (until - datetime.datetime.fromisoformat(self.planned_at)).total_seconds())


@dataclasses.dataclass(frozen=True)
class Member:
    """One request of a batch: its id, its state in the ledger, and how often it was sent."""

    id: str
    state: str
    tries: int


class BatchStore:
    """Reads and writes the batches of a ledger.

    Args:
        ledger: Open for writing, or only for reading.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def folder(self) -> str:
        """Return the id of the work folder, drawn when it is first asked for."""
        folder = self._ledger.noted(_FOLDER)
        if folder is None:
            folder = uuid.uuid4().hex
            self._ledger.note(_FOLDER, folder)
        return folder

    def metadata(self, record: BatchRecord) -> dict[str, str]:
        """Return the metadata by which the provider's batch is known again."""
        return {
            "alpacare_folder": self.folder(),
            "alpacare_part": f"{record.stage}-{record.number:06d}",
            "alpacare_content": record.content,
        }

    def plan(
        self, stage: str, *, base_url: str, model: str, requests: int, prompt_tokens: int, content: str
    ) -> BatchRecord:
        """Write a new batch down; its requests are added with :meth:`add` in the same transaction."""
        number = self._ledger.execute(
            "INSERT INTO batches (stage, state, base_url, model, requests, prompt_tokens, content, planned_at)"
            " VALUES (?, 'planned', ?, ?, ?, ?, ?, ?)",
            (stage, base_url, model, requests, prompt_tokens, content, utc_now()),
        ).lastrowid
        assert number is not None
        return self.get(number)

    def add(self, record: BatchRecord, id: str) -> None:
        """Say that a request, already recorded as sent, is in a batch."""
        self._ledger.execute(
            "UPDATE requests SET batch_id = ? WHERE stage = ? AND id = ?", (record.key, record.stage, id)
        )

    def file_of(self, record: BatchRecord) -> str | None:
        """Return the provider's id of a batch's input file; "" if it may have arrived, None if it was never sent."""
        return self._ledger.noted(_FILE.format(record.content))

    def keep_file(self, record: BatchRecord, file_id: str) -> None:
        """Record that the input file is being uploaded (""), or the provider's id of it."""
        self._ledger.note(_FILE.format(record.content), file_id)

    def forget_file(self, record: BatchRecord) -> None:
        """Forget an input file: a batch was created from it, or it is unusable."""
        self._ledger.execute("DELETE FROM notes WHERE key = ?", (_FILE.format(record.content),))

    def looked_in_vain(self, record: BatchRecord) -> int:
        """Count one more look, of whichever process, at a completed batch that has no output file."""
        key = f"batch {record.number} without a file"
        looks = int(self._ledger.noted(key) or 0) + 1
        self._ledger.note(key, str(looks))
        return looks

    def asking(self, record: BatchRecord) -> None:
        """Record that the provider is being asked to create a batch."""
        self._set(record, status="asked for")

    def opened(self, record: BatchRecord, batch_id: str) -> BatchRecord:
        """Record the provider's id of a batch."""
        with self._ledger.transaction():
            self._ledger.execute(
                "UPDATE requests SET batch_id = ? WHERE stage = ? AND batch_id = ?",
                (batch_id, record.stage, record.key),
            )
            return self._set(record, state="open", batch_id=batch_id)

    def checked(self, record: BatchRecord, *, status: str, completed: int, failed: int) -> BatchRecord:
        """Record the provider's state of a batch."""
        return self._set(record, status=status, completed=completed, failed=failed, checked_at=utc_now())

    def ended(self, record: BatchRecord, words: str = "") -> None:
        """Record that a batch has ended and all its results are recorded."""
        self._set(record, state="ended", ended_at=utc_now(), words=words)

    def _set(self, record: BatchRecord, **columns: str | int) -> BatchRecord:
        named = ", ".join(f"{name} = ?" for name in columns)
        self._ledger.execute(
            f"UPDATE batches SET {named} WHERE number = ?", (*columns.values(), record.number)
        )
        return self.get(record.number)

    def take_back(self, record: BatchRecord, budget: Budget, words: str) -> None:
        """Undo a batch of which nothing was run: its money is free and its tries do not count."""
        with self._ledger.transaction():
            self._close(record, budget, "none", words)
            self._ledger.execute(
                "UPDATE requests SET tries = MAX(0, tries - 1), batch_id = NULL WHERE stage = ? AND batch_id = ?",
                (record.stage, record.key),
            )

    def give_up(self, record: BatchRecord, budget: Budget) -> None:
        """Forget a batch that its provider does not know; all of it may have to be paid for."""
        with self._ledger.transaction():
            self._close(record, budget, "unknown", "not known at the provider; counts as spent")

    def _close(self, record: BatchRecord, budget: Budget, bill: Bill, words: str) -> None:
        held = budget.open_batch(record.stage)
        for id in self.members(record):
            if id in held:
                budget.pay(held[id], bill)
        self.ended(record, words)

    def get(self, number: int) -> BatchRecord:
        """Return one batch."""
        cursor = self._ledger.execute(f"SELECT {_COLUMNS} FROM batches WHERE number = ?", (number,))
        return BatchRecord(*cursor.fetchone())

    def all(self) -> list[BatchRecord]:
        """Return every batch in the order of their numbers."""
        return [
            BatchRecord(*row)
            for row in self._ledger.execute(f"SELECT {_COLUMNS} FROM batches ORDER BY number")
        ]

    def under_way(self, stage: str | None = None) -> list[BatchRecord]:
        """Return the batches, of one stage or of all, that have not ended."""
        return [each for each in self.all() if each.state != "ended" and stage in (None, each.stage)]

    def members(self, record: BatchRecord) -> dict[str, Member]:
        """Return the requests of a batch by their ids, in the order of its file."""
        rows = self._ledger.execute(
            "SELECT id, state, tries FROM requests WHERE stage = ? AND batch_id = ? ORDER BY id",
            (record.stage, record.key),
        )
        return {id: Member(id, state, tries) for id, state, tries in rows}

    def bodies(self, record: BatchRecord) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield id and body of a batch's requests in the order of its file."""
        for id, request in self._ledger.execute(
            "SELECT id, request FROM requests WHERE stage = ? AND batch_id = ? ORDER BY id",
            (record.stage, record.key),
        ):
            yield id, json.loads(request)


def described(record: BatchRecord) -> dict[str, Any]:
    """Return a batch as ``--status`` shows it."""
    return dataclasses.asdict(record) | {"age_s": round(record.age_s())}


def describe(records: Sequence[BatchRecord]) -> str:
    """Summarize the progress of batches in one line.

    Example:
        >>> describe([])
        'no batches'
    """
    if not records:
        return "no batches"
    requests, completed, failed = (
        sum(getattr(record, name) for record in records) for name in ("requests", "completed", "failed")
    )
    states = ", ".join(sorted({record.status or "not sent yet" for record in records}))
    oldest = in_words(max(record.age_s() for record in records))
    return (
        f"{len(records)} batch{'es' if len(records) > 1 else ''} ({states}) with {requests:,} requests: "
        f"{completed:,} completed, {failed:,} failed, after {oldest}"
    )


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(BatchRecord))
