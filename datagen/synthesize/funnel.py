"""What became of every request, task and answer of a run, and what they cost."""

import dataclasses
from collections import Counter
from typing import Any

from datagen import publish
from datagen.ledger import Ledger
from datagen.settings import Settings
from datagen.sieve import Sieve
from datagen.work.status import money


def count(sieve: Sieve, outcome: publish.Outcome, settings: Settings) -> dict[str, Any]:
    """Count what became of every request, task and answer; each level adds up to the one before."""
    reasons = Counter(row["reason"] for row in sieve.rejected)
    unfit = Counter(row["reason"] for row in outcome.rejected if "error" not in row)
    return {
        "target": settings.target,
        "target_reached": sieve.full,
        "task_requests": sieve.requests,
        "task_replies": sieve.replies,
        "task_requests_failed": dict(sorted(sieve.failed.items())),
        "tasks_found": sieve.found,
        "tasks_rejected": dict(sorted(reasons.items())),
        "tasks_kept": len(sieve.kept),
        "answer_requests": len(sieve.kept),
        "answer_replies": outcome.replies,
        "answer_requests_failed": dict(sorted(outcome.failed.items())),
        "answers_rejected": dict(sorted(unfit.items())),
        "instructions": len(outcome.instructions),
        "prompt_tokens": sieve.prompt_tokens + outcome.prompt_tokens,
        "completion_tokens": sieve.completion_tokens + outcome.completion_tokens,
    }


def account(ledger: Ledger, settings: Settings, sieve: Sieve, answered: int) -> dict[str, Any]:
    """Account for everything the ledger spent, to the billionth of a dollar."""
    kept, target = len(sieve.kept), settings.target
    spent = money(
        ledger.spending(),
        kept=kept,
        requests=sieve.requests,
        answered=answered,
        target=target,
        budget_usd=settings.budget_usd,
    )
    return {
        name: round(value, 9) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(spent).items()
    }
