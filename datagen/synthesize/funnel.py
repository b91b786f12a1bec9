"""What became of every request, task and answer of a run, and what they cost."""

import dataclasses
from collections import Counter
from typing import Any

from datagen.finish import read_finish
from datagen.ledger import Ledger
from datagen.settings import Settings
from datagen.task_filter import FilteredAnswers, TaskFilter
from datagen.work.status import money


def count(task_filter: TaskFilter, outcome: FilteredAnswers, settings: Settings) -> dict[str, Any]:
    """Count what became of every request, task and answer; each level adds up to the one before."""
    reasons = Counter(row["reason"] for row in task_filter.rejected)
    unfit = Counter(row["reason"] for row in outcome.rejected if "error" not in row)
    return {
        "target": settings.target,
        "target_reached": task_filter.full,
        "task_requests": task_filter.requests,
        "task_replies": task_filter.replies,
        "task_requests_failed": dict(sorted(task_filter.failed.items())),
        "tasks_found": task_filter.found,
        "tasks_rejected": dict(sorted(reasons.items())),
        "tasks_kept": len(task_filter.kept),
        "answer_requests": len(task_filter.kept),
        "answer_replies": outcome.replies,
        "answer_requests_failed": dict(sorted(outcome.failed.items())),
        "answers_rejected": dict(sorted(unfit.items())),
        "instructions": len(outcome.instructions),
        "prompt_tokens": task_filter.prompt_tokens + outcome.prompt_tokens,
        "completion_tokens": task_filter.completion_tokens + outcome.completion_tokens,
    }


def account(ledger: Ledger, settings: Settings, task_filter: TaskFilter, answered: int) -> dict[str, Any]:
    """Account for everything the ledger spent, to the billionth of a dollar."""
    kept, target = len(task_filter.kept), settings.target
    spent = money(
        ledger.spending(),
        kept=kept,
        requests=task_filter.requests,
        answered=answered,
        target=target,
        budget_usd=settings.budget_usd,
    )
    return {
        name: round(value, 9) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(spent).items()
    }


#: Reasons for which all replies of a run may come to nothing: what happened, and what to do.
_KNOWN = {
    "no-text": (
        "the text stood in the field for reasoning, and content was empty",
        "turn off the model's thinking, or the server's parser of reasoning, then add --retry-failed",
    ),
    "streams": (
        "the service only streams its replies, though no stream was asked for",
        "turn streaming off at the server or gateway, then add --retry-failed",
    ),
    "content-filter": (
        "a content filter of the service withheld or refused it",
        "ask another model or provider, or add --retry-failed once the filter is changed",
    ),
    "cut": (
        "it was cut at its largest number of tokens",
        "raise --answer-max-tokens, with --derive NEW_FOLDER",
    ),
    "truncated": (
        "it was cut at its largest number of tokens",
        "raise --max-tokens, with --derive NEW_FOLDER",
    ),
}
_USUAL = "read the reasons in rejected.jsonl; --retry-failed asks failed requests again"


def why_none_kept(task_filter: TaskFilter) -> tuple[str, str]:
    """Say what became of the requests for tasks where no task was kept, and what to do about the main reason."""
    reasons = task_filter.failed + Counter(row["reason"] for row in task_filter.rejected)
    told = ", ".join(f"{reason} {many}" for reason, many in reasons.most_common(3))
    main = reasons.most_common(1)[0][0] if reasons else ""
    words, remedy = _KNOWN.get(main, ("", f"{_USUAL}; a stronger teacher or a larger --max-tokens may help"))
    return f"{told} ({words})" if words else told, remedy


def why_nothing(outcome: FilteredAnswers) -> str:
    """Say why no answer could be published: the most frequent reasons, with an example and what to do.

    Example:
        >>> row = {"id": "t0", "reason": "unfinished", "finish_reason": "length", "text": "Rest and"}
        >>> print(why_nothing(FilteredAnswers(rejected=[row])))
        No answer of 1 can be published.
          1: it was cut at its largest number of tokens; raise --answer-max-tokens, with --derive NEW_FOLDER
          read the reasons in rejected.jsonl; --retry-failed asks failed requests again
    """
    reasons = [_reason(row) for row in outcome.rejected]
    examples = dict(zip(reversed(reasons), reversed(outcome.rejected), strict=True))
    lines = [f"No answer of {len(reasons)} can be published."]
    for reason, many in Counter(reasons).most_common(3):
        error = str(examples[reason].get("error") or "")
        words, remedy = _KNOWN.get(
            reason, (f"failed, such as {error}" if error else f"rejected as {reason}", "")
        )
        lines.append(f"  {many}: {words}" + (f"; {remedy}" if remedy else ""))
    return "\n".join([*lines, f"  {_USUAL}"])


def _reason(row: dict[str, Any]) -> str:
    if read_finish(row.get("finish_reason")) == "cut":
        return "cut"
    return str(row["reason"]).removeprefix("answer-")
