"""How far a work folder is, read beside a running job: its counts, what it spent, what it will probably cost.

A run notes its funnel in the ledger about once a second, because judging 50,000 tasks anew takes a while; the status
joins that note with the ledger's own counts, which are always of the moment.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from datagen.ledger import Ledger

_NOTE = "progress"


@dataclasses.dataclass(frozen=True)
class Money:
    """What a run spent and will probably spend, in US dollars.

    Attributes:
        spent_usd: Everything spent, with the worst case of tries whose bill is unknown.
        unknown_usd: That worst case alone.
        tasks_usd: The part that went into tasks.
        answers_usd: The part that went into answers.
        projected_usd: What the whole will have cost when the target is reached; None while nothing tells.
        budget_usd: The cap, or None.
        unpriced_tries: Tries that had no price and so are in none of the sums.
    """

    spent_usd: float
    unknown_usd: float
    tasks_usd: float
    answers_usd: float
    projected_usd: float | None
    budget_usd: float | None
    unpriced_tries: int


def money(
    spending: Mapping[str, Mapping[str, float]],
    *,
    kept: int,
    answered: int,
    target: int,
    budget_usd: float | None = None,
    answer_usd: float | None = None,
) -> Money:
    """Sum what was spent, and project it: cost so far per task and per answer, times what is missing.

    Args:
        spending: What :meth:`Ledger.spending` says.
        kept: Tasks kept so far.
        answered: Answers in.
        target: Tasks wanted.
        budget_usd: The cap in US dollars, or None.
        answer_usd: What one answer is expected to cost as long as none is in, in US dollars.

    Example:
        >>> spent = {"tasks": {"spent_usd": 2.0, "unknown_usd": 0.0, "held_usd": 0.0, "unpriced": 0}}
        >>> money(spent, kept=10, answered=0, target=40, answer_usd=0.05).projected_usd
        10.0
    """
    by_stage = {stage: each["spent_usd"] + each["unknown_usd"] for stage, each in spending.items()}
    tasks = math.fsum(usd for stage, usd in by_stage.items() if stage != "answers")
    answers = by_stage.get("answers", 0.0)
    per_answer = answers / answered if answered else answer_usd
    projected = None
    if kept and per_answer is not None:
        still_asked = max(0, target - kept)
        projected = tasks + tasks / kept * still_asked + answers + per_answer * max(0, target - answered)
    return Money(
        spent_usd=math.fsum(by_stage.values()),
        unknown_usd=math.fsum(each["unknown_usd"] for each in spending.values()),
        tasks_usd=tasks,
        answers_usd=answers,
        projected_usd=projected,
        budget_usd=budget_usd,
        unpriced_tries=round(sum(each["unpriced"] for each in spending.values())),
    )


def note_funnel(ledger: Ledger, funnel: Mapping[str, Any]) -> None:
    """Note how far the run is, for :func:`noted_funnel`."""
    ledger.note(_NOTE, json.dumps(funnel))


def noted_funnel(ledger: Ledger) -> dict[str, Any] | None:
    """Return the funnel that the run noted last, or None where it never did."""
    text = ledger.noted(_NOTE)
    return None if text is None else json.loads(text)
