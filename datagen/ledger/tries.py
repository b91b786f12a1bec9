"""The ledger's table of tries: the worst case and the cost of each."""

import dataclasses
from collections.abc import Iterator

from datagen.ledger.file import LedgerFile
from datagen.ledger.rows import Outcome, StageSpending, Try, utc_now

_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Try))


class Tries(LedgerFile):
    """The account of money, one row for each try that may cost some."""

    def open_try(self, each: Try) -> Try:
        """Record that a try may cost money from now on, and return it with its number and time."""
        now = utc_now()
        who = each.stage, each.id, each.model, each.batch
        bounds = each.most_prompt_tokens, each.most_completion_tokens, each.reserved_usd
        number = self.execute(
            "INSERT INTO tries (stage, id, model, batch, most_prompt_tokens, most_completion_tokens,"
            " reserved_usd, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*who, *bounds, now),
        ).lastrowid
        assert number is not None
        return dataclasses.replace(each, number=number, sent_at=now)

    def close_try(
        self,
        number: int,
        outcome: Outcome,
        *,
        cost_usd: float | None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """Record the outcome of a try and what it counts as spent, in US dollars."""
        changed = self.execute(
            "UPDATE tries SET outcome = ?, cost_usd = ?, prompt_tokens = ?, completion_tokens = ?,"
            " finished_at = ? WHERE number = ? AND outcome = 'open'",
            (outcome, cost_usd, prompt_tokens, completion_tokens, utc_now(), number),
        ).rowcount
        assert changed == 1, f"try {number} is closed twice"

    def price_try(self, number: int, cost_usd: float) -> None:
        """Give a closed try a cost in US dollars that it lacked."""
        self.execute("UPDATE tries SET cost_usd = ? WHERE number = ?", (cost_usd, number))

    def tries(self, where: str = "TRUE") -> Iterator[Try]:
        """Yield the tries, or those that satisfy an SQL condition, in the order in which they were sent."""
        for row in self.execute(f"SELECT {_COLUMNS} FROM tries WHERE {where} ORDER BY number"):
            each = Try(*row)
            yield dataclasses.replace(each, batch=bool(each.batch))

    def batch_tries_paid(self, stage: str, id: str) -> int:
        """Count the tries of a request in batches that cost something, or may have."""
        count: int = self.value(
            "SELECT COUNT(*) FROM tries"
            " WHERE stage = ? AND id = ? AND batch = 1 AND outcome IN ('settled', 'unknown')",
            (stage, id),
        )
        return count

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

    def spending(self) -> dict[str, StageSpending]:
        """Sum, per stage, what was spent in US dollars."""
        cursor = self.execute(
            "SELECT stage, TOTAL(cost_usd) FILTER (WHERE outcome = 'settled'),"
            " TOTAL(cost_usd) FILTER (WHERE outcome = 'unknown'),"
            " TOTAL(reserved_usd) FILTER (WHERE outcome = 'open'),"
            " COUNT(*) FILTER (WHERE cost_usd IS NULL AND outcome <> 'open'),"
            " COUNT(*) FILTER (WHERE cost_usd IS NOT NULL AND outcome = 'settled')"
            " FROM tries GROUP BY stage ORDER BY stage"
        )
        return {stage: StageSpending(*sums) for stage, *sums in cursor}

    def taken_over_usd(self) -> float:
        """Return what replies that were copied from another ledger had cost there, in US dollars."""
        cost: float = self.value(
            "SELECT TOTAL(cost_usd) FROM requests WHERE (stage, id) NOT IN (SELECT stage, id FROM tries)"
        )
        return cost
