"""The steps of a synthesis funnel and examples of what was rejected, for the pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from datagen.synthesize import Funnel

EXAMPLES_PER_REASON = 2
UNACCOUNTED = "unaccounted for"
"""Label in the funnel where a step and its losses do not add up to the step before."""


def funnel_steps(funnel: Funnel, unaccounted: str = UNACCOUNTED) -> list[dict[str, Any]]:
    """Turn the counts of a funnel into the steps of the table.

    Args:
        funnel: The counts.
        unaccounted: Label of losses that the funnel does not name.

    Returns:
        Steps with ``label``, ``count``, ``share`` (of the widest step of the same unit, 0 to 1) and ``lost``,
        a list of reasons with ``label``, ``count`` and ``share``.

    Example:
        >>> steps = funnel_steps(Funnel(tasks_found=4, tasks_rejected={"near-duplicate": 1}, tasks_kept=3))
        >>> [(step["label"], step["count"], [loss["count"] for loss in step["lost"]]) for step in steps[2:4]]
        [('Pieces found in the replies', 4, [1]), ('Tasks kept', 3, [3])]
    """
    requests = [
        ("Task requests", funnel.task_requests, _failed(funnel.task_requests_failed)),
        ("Replies", funnel.task_replies, {}),
    ]
    tasks = [
        ("Pieces found in the replies", funnel.tasks_found, funnel.tasks_rejected),
        ("Tasks kept", funnel.tasks_kept, _failed(funnel.answer_requests_failed)),
        ("Answers received", funnel.answer_replies, funnel.answers_rejected),
        ("Instructions published", funnel.instructions, {}),
    ]
    steps: list[dict[str, Any]] = []
    for unit in (requests, tasks):
        widest = max(1, *(count for _, count, _ in unit))
        for (label, count, lost), after in zip_longest(unit, unit[1:]):
            gone = count - sum(lost.values()) - after[1] if after else 0
            reasons = lost | ({unaccounted: gone} if gone else {})
            losses = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
            steps.append(
                {
                    "label": label,
                    "count": count,
                    "share": count / widest,
                    "lost": [
                        {"label": name, "count": n, "share": min(1.0, abs(n) / widest)} for name, n in losses
                    ],
                }
            )
    return steps


def _failed(reasons: Mapping[str, int]) -> dict[str, int]:
    return {f"failed: {reason}": count for reason, count in reasons.items()}


def rejected_examples(rejected: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """Return each reason, the most frequent first, with how many rows it rejected and the first few of them."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in rejected:
        texts = [str(row[key]) for key in ("instruction", "text", "error") if row.get(key)]
        rows.setdefault(str(row.get("reason", "")), []).append(
            {"text": "\n".join(texts), "nearest": row.get("nearest") or "", "rouge_l": row.get("rouge_l")}
        )
    often = Counter({reason: len(each) for reason, each in rows.items()})
    return [(reason, count, rows[reason][:EXAMPLES_PER_REASON]) for reason, count in often.most_common()]
