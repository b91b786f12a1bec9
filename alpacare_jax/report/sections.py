"""The report's figures as plain values: what each section of the page shows."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from alpacare_jax.report.inputs import ReportInputs
from datagen.synthesize import Funnel

EXAMPLES_PER_REASON = 2
UNACCOUNTED = "unaccounted for"
"""Stands in the funnel where a step and its losses do not add up to the step before."""

_LEARNING_RATE = ("learning_rate", "lr")
_VALIDATION = ("val_loss", "validation_loss", "valid_loss")
_SPEED = ("tokens_per_s", "tokens_per_second", "useful_tokens_per_s")

Series = list[tuple[float, float]]
"""(step, value) pairs in the order of the steps."""


def series(metrics: Sequence[Mapping[str, Any]], *keys: str) -> Series:
    """Collect a metric by step; of a step that stands twice, as after a resume, the last word counts.

    Args:
        metrics: Rows of ``metrics.jsonl``.
        keys: Names of the metric; the first that a row has is taken.

    Example:
        >>> series([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}, {"step": 2, "loss": 2.0}], "loss")
        [(1, 3.0), (2, 2.0)]
    """
    values: dict[float, float] = {}
    for row in metrics:
        value = next((row[key] for key in keys if key in row), None)
        step = row.get("step")
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value):
            values[step] = value
    return sorted(values.items())


def charts(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describe the training charts: title, axis titles, and lines with a name, a role (colour) and points."""
    # The step that compiles takes far longer than the others and would flatten the rest of the line.
    speed = series([row for row in metrics if not row.get("compiled")], *_SPEED)
    wanted = [
        (
            "Loss",
            "nats per supervised token",
            [
                ("training", "train", series(metrics, "loss", "train_loss")),
                ("validation", "valid", series(metrics, *_VALIDATION)),
            ],
        ),
        ("Learning rate", "learning rate", [("learning rate", "train", series(metrics, *_LEARNING_RATE))]),
        ("Gradient norm", "before clipping", [("gradient norm", "train", series(metrics, "grad_norm"))]),
        ("Speed", "tokens per second", [("tokens per second", "train", speed)]),
    ]
    shown = []
    for title, axis, lines in wanted:
        present = [
            {"name": name, "role": role, "x": [x for x, _ in points], "y": [y for _, y in points]}
            for name, role, points in lines
            if points
        ]
        if present:
            shown.append({"title": title, "axis": axis, "lines": present})
    return shown


def funnel_steps(funnel: Funnel) -> list[dict[str, Any]]:
    """Turn the counts of a funnel into the steps of the table.

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
    answers_lost = _failed(funnel.answer_requests_failed)
    tasks = [
        ("Pieces found in the replies", funnel.tasks_found, funnel.tasks_rejected),
        ("Tasks kept", funnel.tasks_kept, answers_lost),
        ("Answers received", funnel.answer_replies, funnel.answers_rejected),
        ("Instructions published", funnel.instructions, {}),
    ]
    steps: list[dict[str, Any]] = []
    for unit in (requests, tasks):
        widest = max(count for _, count, _ in unit)
        for (label, count, lost), after in zip_longest(unit, unit[1:]):
            gone = count - sum(lost.values()) - after[1] if after else 0
            reasons = lost | ({UNACCOUNTED: gone} if gone else {})
            losses = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
            steps.append(
                {
                    "label": label,
                    "count": count,
                    "share": _share(count, widest),
                    "lost": [{"label": name, "count": n, "share": _share(n, widest)} for name, n in losses],
                }
            )
    return steps


def _failed(reasons: Mapping[str, int]) -> dict[str, int]:
    return {f"failed: {reason}": count for reason, count in reasons.items()}


def _share(part: float, whole: float) -> float:
    return min(1.0, abs(part) / whole) if whole else 0.0


def rejected_examples(rejected: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pick the first few rejected rows of each reason, the most frequent reason first."""
    often = Counter(str(row.get("reason", "")) for row in rejected)
    picked = []
    for reason, count in often.most_common():
        rows = [row for row in rejected if str(row.get("reason", "")) == reason][:EXAMPLES_PER_REASON]
        picked.append(
            {"reason": reason or "no reason", "count": count, "rows": [_rejected_row(row) for row in rows]}
        )
    return picked


def _rejected_row(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = [row.get(key) for key in ("instruction", "text", "error")]
    shown = [str(text) for text in texts if text]
    near = row.get("nearest")
    return {
        "text": "\n".join(shown) or "(nothing was kept of it)",
        "nearest": str(near) if near else "",
        "rouge_l": row.get("rouge_l"),
    }


def packing_rows(packing: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flatten packing manifests into rows of a table."""
    rows = []
    for name, manifest in packing.items():
        statistics = manifest.get("statistics", {})
        fill = statistics.get("fill")
        rows.append(
            {
                "name": name,
                "fill": fill if _is_number(fill) else None,
                "row_length": manifest.get("row_length"),
                "template": manifest.get("template", ""),
                "packing": manifest.get("packing", ""),
                "source": manifest.get("source", {}),
                "fingerprint": manifest.get("tokenizer", {}).get("fingerprint", ""),
                **{key: statistics.get(key) for key in _PACKING_COUNTS},
            }
        )
    return rows


_PACKING_COUNTS = (
    "records",
    "examples",
    "rows",
    "tokens",
    "supervised_tokens",
    "longest_example",
    "left_out",
    "truncated",
)


def comparison_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Give the before/after table: figures, intervals, change, and whether it is for the better."""
    rows = []
    for row in inputs.comparison:
        change = verdict = None
        if row.before is not None and row.after is not None:
            change = row.after - row.before
            if _overlap(row.before_interval, row.after_interval):
                verdict = "unclear"
            elif change:
                verdict = "better" if (change < 0) == (row.better == "lower") else "worse"
            else:
                verdict = "unchanged"
        rows.append({"row": row, "change": change, "verdict": verdict})
    return rows


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def headlines(inputs: ReportInputs) -> list[dict[str, str]]:
    """Choose the few figures that stand on top of the page: a label, a value, and a line of context."""
    tiles: list[dict[str, str]] = []
    if inputs.funnel:
        context = f"of {inputs.funnel.tasks_found:,} tasks found"
        tiles.append(_tile("Instructions", f"{inputs.funnel.instructions:,}", context))
    for row in packing_rows(inputs.packing)[:1]:
        if row["fill"] is not None:
            context = f"{row['tokens']:,} tokens, {row['rows']:,} rows" if row["rows"] is not None else ""
            tiles.append(_tile("Packing efficiency", f"{100 * row['fill']:.1f}%", context))
    losses = series(inputs.metrics, "loss", "train_loss")
    if losses:
        steps = f"first {losses[0][1]:.3f}, after {losses[-1][0]:,} steps"
        tiles.append(_tile("Training loss", f"{losses[-1][1]:.3f}", steps))
    for figure in inputs.comparison:
        if figure.before is not None and figure.after is not None:
            context = f"{figure.before:.{figure.digits}f} before; {figure.better} is better"
            tiles.append(_tile(figure.name, f"{figure.after:.{figure.digits}f}", context))
    scores = (inputs.scores or {}).get("scores", [])
    for score in [score for score in scores if score["reference"] == "mean"] or scores[:1]:
        percent = score["alpacare"]["percent"]
        if percent is not None:
            name = "mean of references" if score["reference"] == "mean" else f"against {score['reference']}"
            low, high = score["alpacare"]["low"], score["alpacare"]["high"]
            interval = f", 95% {low:.1f} to {high:.1f}" if low is not None else ""
            tiles.append(_tile("Win rate", f"{percent:.1f}%", name + interval))
    if inputs.wall_times_s:
        stages = len(inputs.wall_times_s)
        context = f"{stages} stages" if stages > 1 else next(iter(inputs.wall_times_s))
        tiles.append(_tile("Wall time", duration(sum(inputs.wall_times_s.values())), context))
    return tiles


def _tile(label: str, value: str, context: str) -> dict[str, str]:
    return {"label": label, "value": value, "context": context}


def duration(seconds: float) -> str:
    """Write a time span for a reader.

    Example:
        >>> duration(4.25), duration(75), duration(7265)
        ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
