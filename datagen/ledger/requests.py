"""The ledger's table of requests: sent, answered or failed, and counted."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from datagen.errors import DataError
from datagen.ledger.file import LedgerFile
from datagen.ledger.rows import Entry, Settled, utc_now

_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Entry))


class Requests(LedgerFile):
    """The table of requests and their outcomes, one row for each request."""

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
        cursor = self.execute(f"SELECT {_COLUMNS} FROM requests WHERE stage = ? AND id = ?", (stage, id))
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

    def settled(self, stage: str, id: str, *, prompt_hash: str | None = None) -> Entry | None:
        """Return the row of one request that was answered or given up, or None; see :meth:`get`."""
        entry = self.get(stage, id, prompt_hash=prompt_hash)
        return None if entry is None or entry.state == "sent" else entry

    def entries(self, stage: str | None = None) -> Iterator[Entry]:
        """Yield all rows, or those of one stage, in the order of their ids."""
        where, values = ("", ()) if stage is None else (" WHERE stage = ?", (stage,))
        for row in self.execute(f"SELECT {_COLUMNS} FROM requests{where} ORDER BY stage, id", values):
            yield Entry(*row)

    def record_sent(self, stage: str, id: str, *, prompt_hash: str, request: dict[str, Any]) -> None:
        """Record that a request is about to be sent, and count the try.

        Args:
            stage: The stage that asks.
            id: The request's id.
            prompt_hash: Fingerprint of everything that shapes the reply.
            request: The body of the request, without any key.
        """
        now = utc_now()
        self.execute(
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
        changed = self.execute(statement, values).rowcount
        assert changed == 1, f"a request is settled that was never sent: {values[-2:]}"

    def copy(self, entries: Sequence[Entry]) -> None:
        """Copy rows of another ledger unchanged, in one transaction."""
        marks = ", ".join("?" for _ in dataclasses.fields(Entry))
        with self.transaction():
            for entry in entries:
                self.execute(
                    f"INSERT INTO requests ({_COLUMNS}) VALUES ({marks})",
                    tuple(getattr(entry, field.name) for field in dataclasses.fields(Entry)),
                )

    def reopen(self, stage: str, id: str | None = None) -> int:
        """Take failed requests of a stage (or one of them) back to "sent", so that they are asked again.

        Returns:
            The number of reopened requests.
        """
        only, values = ("", (stage,)) if id is None else (" AND id = ?", (stage, id))
        return self.execute(
            "UPDATE requests SET state = 'sent', finished_at = NULL"
            f" WHERE stage = ? AND state = 'failed'{only}",
            values,
        ).rowcount

    def ask_anew(self, stage: str, id: str, *, prompt_hash: str, request: dict[str, Any]) -> None:
        """Reset one request to "sent" with another body, whatever its outcome; its tries stay counted.

        Args:
            stage: The stage that asks.
            id: The request's id.
            prompt_hash: Fingerprint of the new body.
            request: The new body.
        """
        self.execute(
            "UPDATE requests SET state = 'sent', prompt_hash = ?, request = ?, reply = NULL, finish_reason = NULL,"
            " error = NULL, batch_id = NULL, finished_at = NULL WHERE stage = ? AND id = ?",
            (prompt_hash, json.dumps(request, ensure_ascii=False), stage, id),
        )

    def began(self) -> bool:
        """Return whether the ledger holds any request."""
        return self.value("SELECT 1 FROM requests LIMIT 1") is not None

    def counts(self) -> dict[str, dict[str, int]]:
        """Count, per stage: requests "sent", "answered" and "failed", "tries", and tokens in and out.

        Returns:
            ``{stage: {"sent", "answered", "failed", "tries", "prompt_tokens", "completion_tokens"}}``.
        """
        cursor = self.execute(
            "SELECT stage, SUM(state = 'sent'), SUM(state = 'answered'), SUM(state = 'failed'), SUM(tries),"
            " COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
            " FROM requests GROUP BY stage ORDER BY stage"
        )
        names = ("sent", "answered", "failed", "tries", "prompt_tokens", "completion_tokens")
        return {stage: dict(zip(names, numbers, strict=True)) for stage, *numbers in cursor}

    def settled_behind(self, stage: str, count: int) -> Settled:
        """Count the settled requests of a stage behind its first ``count``, and their tokens in and out."""
        row = self.execute(
            "SELECT COUNT(*), COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
            " FROM requests WHERE stage = ? AND id >= ? AND state <> 'sent'",
            (stage, f"{count:06d}"),
        ).fetchone()
        return Settled(*row)
