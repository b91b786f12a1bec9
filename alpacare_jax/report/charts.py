"""The charts of the reports as plain values, by id, for the script in ``charts.html`` and for tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datagen.statistics import WorkStatistics

NO_OBJECT, OTHER_VERBS = "no object", "other verbs"
_LENGTHS = {"instruction": "Instruction", "input": "Input, where there is one", "answer": "Answer"}

Chart = dict[str, Any]
Series = list[tuple[float, float]]
"""(step, value) pairs in the order of the steps."""


def series(metrics: Sequence[Mapping[str, Any]], key: str) -> Series:
    """Collect a metric by step; if a step is repeated, as after a resume, the last value counts.

    Args:
        metrics: Rows of ``metrics.jsonl``.
        key: Name of the metric.

    Example:
        >>> series([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}, {"step": 2, "loss": 2.0}], "loss")
        [(1, 3.0), (2, 2.0)]
    """
    values: dict[float, float] = {}
    for row in metrics:
        step, value = row.get("step"), row.get(key)
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value):
            values[step] = value
    return sorted(values.items())


def thin(line: Mapping[str, Any], most: int = 40) -> Series:
    """Thin a line to at most ``most`` points for a table, always with the last one."""
    points = list(zip(line["x"], line["y"], strict=True))
    points[:-1] = points[: -1 : -(-len(points) // most)]
    return points


def of_training(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """Describe the charts of a training run; charts without points are left out."""
    # The step that compiles takes far longer than the others and would flatten the rest of the line.
    warm = [row for row in metrics if not row.get("compiled")]
    found = [
        _lines("loss", "Loss", "nats per supervised token", {
            "training": series(metrics, "loss"), "validation": series(metrics, "val_loss")}),
        _lines("learning-rate", "Learning rate", "learning rate", {"learning rate": series(metrics, "lr")}),
        _lines("gradient-norm", "Gradient norm", "before clipping", {
            "gradient norm": series(metrics, "grad_norm")}),
        _lines("speed", "Speed", "tokens per second", {"tokens per second": series(warm, "tokens_per_s")}),
    ]  # fmt: skip
    return {chart["id"]: chart for chart in found if chart["lines"]}


def of_synthesis(statistics: WorkStatistics) -> dict[str, Chart]:
    """Describe the charts of a synthesis work folder."""
    found: list[Chart] = []
    if statistics.roots["top"]:
        found.append(sunburst(statistics.roots["top"], statistics.roots["other_verbs"]))
    for name, title in _LENGTHS.items():
        if histogram := statistics.lengths[name]:
            found.append(_bars(f"length-{name}", title, "words", histogram, 0))
    if statistics.nearest:
        title = "ROUGE-L F1 with the nearest other instruction"
        found.append(_bars("nearest", title, "ROUGE-L F1", statistics.nearest, 2))
    rows = statistics.timeline
    tokens = {name: [(row["time"], row[f"{key}_tokens"]) for row in rows]
              for name, key in (("in", "prompt"), ("out", "completion"))}  # fmt: skip
    found.append(_lines("tokens", "Tokens so far", "tokens", tokens, "time, UTC"))
    if rows and rows[-1]["cost_usd"] is not None:
        cost = {"US dollars": [(row["time"], row["cost_usd"]) for row in rows]}
        found.append(_lines("cost", "Cost so far", "US dollars", cost, "time, UTC"))
    return {chart["id"]: chart for chart in found if chart.get("lines") != []}


def _lines(
    id: str, title: str, axis: str, lines: Mapping[str, Sequence[tuple[Any, Any]]], x_axis: str = "step"
) -> Chart:
    """Describe a chart of lines, which take their colours in turn; a line without points is left out."""
    present = [
        {"name": name, "role": role, "x": [x for x, _ in points], "y": [y for _, y in points]}
        for (name, points), role in zip(lines.items(), ("train", "valid"), strict=False)
        if points
    ]
    return {"id": id, "kind": "lines", "title": title, "axis": axis, "x_axis": x_axis, "lines": present}


def sunburst(top: Sequence[Mapping[str, Any]], other_verbs: int = 0) -> Chart:
    """Describe the sunburst: verbs inside, their objects outside, each with its count.

    A verb's ring segment is as wide as all its commands, so that the share of objects that are not shown stays
    empty; commands in which no object was found have a segment of their own, and so have all verbs that are not
    shown.

    Args:
        top: The verbs, as ``datagen.statistics.root_verbs`` returns them.
        other_verbs: Commands of the verbs that are not among them.
    """
    keys = ("id", "label", "parent", "value", "hue")
    nodes: list[tuple[object, ...]] = []
    for hue, verb in enumerate(top):
        name = verb["verb"]
        nodes.append((name, name, "", verb["count"], hue))
        objects = [*verb["objects"], (NO_OBJECT, verb["without_object"])]
        nodes += [(f"{name}/{noun}", noun, name, count, hue) for noun, count in objects if count]
    if other_verbs:
        nodes.append((OTHER_VERBS, OTHER_VERBS, "", other_verbs, len(top)))
    described = [dict(zip(keys, node, strict=True)) for node in nodes]
    return {"id": "roots", "kind": "sunburst", "title": "Root verbs and their objects", "nodes": described}


def _bars(id: str, title: str, axis: str, found: Mapping[str, Any], digits: int) -> Chart:
    """Describe a histogram, as ``datagen.statistics.histogram`` returns it; ``digits`` is 0 for whole numbers."""
    step, last = found["step"], len(found["counts"]) - 1
    one = 0 if digits else 1  # whole numbers: 0 to 4, 5 to 9; others: 0.00 to 0.05, 0.05 to 0.10
    names = [f"{i * step:.{digits}f} to {(i + 1) * step - one:.{digits}f}" for i in range(last + 1)]
    if step == one:
        names = [f"{i}" for i in range(last + 1)]
    if found["open"]:
        names[last] = f"{last * step:.{digits}f} and more"
    kind = {"id": id, "kind": "bars", "title": title, "axis": axis, "digits": digits, "names": names}
    return kind | dict(found)
