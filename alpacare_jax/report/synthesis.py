"""The page about a synthesis work folder: what was made, what was dropped, what it cost."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.report import page, sections
from datagen.files import write_text

STATES = {
    "finished": "The run is finished.",
    "running": "A run is writing to this folder at the moment; the page shows it as it was when the page was written.",
    "stopped": "The run has not finished; the same command goes on where it stopped.",
    "nothing yet": "Nothing has been asked yet: the work folder holds settings, but no request.",
}
KINDS = {"command": "commands", "question": "questions", "other": "statements and others"}
LABELS = {"type": "Types", "view": "Views", "topic": "Topics"}
LENGTHS = {"instruction": "Instruction", "input": "Input, where there is one", "answer": "Answer"}

KINDS_OF_OVERLAP = {"ngram": "tokens in a row", "rouge-l": "ROUGE-L", "whole-text": "whole text"}
NO_OBJECT, OTHER_VERBS = "no object", "other verbs"

Chart = dict[str, Any]


def write_synthesis_report(
    figures: Mapping[str, Any],
    path: str | Path,
    *,
    title: str,
    subtitle: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the page as one HTML file that needs no network and no other file.

    Args:
        figures: As ``datagen.statistics.collect`` returns them.
        path: The file; it appears whole or not at all.
        title: Heading of the page.
        subtitle: One line below it.
        provenance: What made the page; a value may be a mapping.
    """
    text = render_synthesis(figures, title=title, subtitle=subtitle, provenance=provenance)
    write_text(path, text)


def render_synthesis(
    figures: Mapping[str, Any],
    *,
    title: str,
    subtitle: str,
    provenance: Mapping[str, Any],
    now: datetime.datetime | None = None,
) -> str:
    """Return the page as HTML; see :func:`write_synthesis_report`."""
    charts = {chart["id"]: chart for chart in _charts(figures)}
    return page.fill(
        "synthesis.html",
        now,
        title=title,
        subtitle=subtitle,
        figures=figures,
        state=_state(figures),
        disagreement=_disagreement(figures),
        overlaps=overlap_rows(figures["contamination"]),
        tiles=tiles(figures),
        funnel=_funnel(figures),
        rejected=sections.rejected_examples(figures["rejected"]),
        actions=sorted({action for counts in (figures["privacy"] or {}).values() for action in counts}),
        kinds=[(KINDS[kind], n) for kind, n in figures["roots"]["kinds"].items()],
        lists=[bar_list(LABELS[field], figures["labels"][field]) for field in ("type", "view", "topic")],
        difficulty=bar_list("", figures["labels"]["difficulty"]),
        charts=charts,
        charts_json=page.script_json(list(charts.values())),
        plotly=page.plotly_script() if charts else None,
        settings=page.flatten(figures["settings"]),
        provenance=_provenance(provenance),
    )


def _state(figures: Mapping[str, Any]) -> str:
    funnel = figures["funnel"]
    if figures["state"] != "finished" or funnel.target_reached:
        return STATES[figures["state"]]
    why = "its budget was spent" if funnel.budget_reached else "it made as many requests as it may"
    return f"The run ended before its target of {funnel.target:,} tasks: {why}."


def _disagreement(figures: Mapping[str, Any]) -> str:
    """Say where the files of a finished run contradict each other, or return ""."""
    expected, rows = figures["expected_rows"], figures["rows"]
    if expected is None or expected == rows:
        return ""
    return (
        f"The files of this folder disagree: funnel.json counts {expected:,} instructions, but instructions.jsonl "
        f"holds {rows:,}. Run `alpacare synthesize` on the folder again, which writes both anew."
    )


def _funnel(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not figures["funnel"].task_requests:
        return []
    steps = sections.funnel_steps(figures["funnel"])
    if figures["state"] != "finished":
        for loss in (loss for step in steps for loss in step["lost"]):
            if loss["label"] == sections.UNACCOUNTED:
                loss["label"] = "not answered yet"
    return steps


def tiles(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """Choose the figures that stand on top: a label, a value, and a line of context."""
    funnel, requests = figures["funnel"], figures["requests"]
    shown: list[dict[str, str]] = []
    if not requests["stages"]:
        return shown
    target = figures["target"]
    of = f"target {target:,} tasks" if target else ""
    shown.append(_tile(figures["what"].capitalize(), f"{figures['rows']:,}", of))
    found, kept = funnel.tasks_found, funnel.tasks_kept
    if found:
        shown.append(_tile("Tasks kept", f"{100 * kept / found:.1f}%", f"{kept:,} of {found:,} pieces found"))
    stages = requests["stages"].values()
    tokens = [sum(stage[key] for stage in stages) for key in ("prompt_tokens", "completion_tokens")]
    words = f"{short(tokens[0])} in, {short(tokens[1])} out"
    if funnel.money and (beyond := funnel.money.beyond_target):
        words += f"; {beyond.requests:,} requests beyond the target, not judged"
    shown.append(_tile("Tokens", short(sum(tokens)), words))
    shown.append(_tile("Cost", *_cost(requests)))
    if requests["first_request"] and requests["last_reply"]:
        first, last = (_time(requests[key]) for key in ("first_request", "last_reply"))
        shown.append(
            _tile(
                "First request to last reply",
                sections.duration((last - first).total_seconds()),
                f"from {first:%Y-%m-%d %H:%M} UTC",
            )
        )
    if figures["nearest"]:
        median = figures["nearest"]["median"]
        shown.append(_tile("Nearest neighbour", f"{median:.2f}", "median ROUGE-L F1; lower is more varied"))
    return shown


def _cost(requests: Mapping[str, Any]) -> tuple[str, str]:
    known = [stage["cost_usd"] for stage in requests["stages"].values() if stage["cost_usd"] is not None]
    answered = sum(stage["answered"] for stage in requests["stages"].values())
    priced = sum(stage["priced"] for stage in requests["stages"].values())
    if not known:
        return "not known", "the models had no price"
    unknown = requests.get("unknown_usd") or 0.0
    notes = [f"{priced:,} of {answered:,} replies priced"]
    if unknown:
        notes.append(f"up to {dollars(unknown)} more for tries whose bill is not known")
    least = "at least " if priced < answered else ""
    return least + dollars(max(sum(known), requests.get("counted_usd") or 0.0)), "; ".join(notes)


def dollars(usd: float) -> str:
    """Write an amount in US dollars.

    Example:
        >>> dollars(1234.5), dollars(0.00123)
        ('$1,234.50', '$0.0012')
    """
    return f"${usd:,.2f}" if usd >= 1 or not usd else f"${usd:.4f}"


def short(count: float) -> str:
    """Write a large count in a few characters.

    Example:
        >>> short(950), short(12_345), short(67_890_000)
        ('950', '12.3k', '67.9M')
    """
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            unit = 1e3 if letter == "k" else limit
            return f"{count / unit:.1f}{letter}"
    return f"{count:,}"


def bar_list(title: str, counted: Mapping[str, Any]) -> dict[str, Any]:
    """Turn counted labels into a list of bars: name, count, width (0 to 1) and share of all rows."""
    total = sum(n for _, n in counted["top"]) + counted["rest"] + counted["without"]
    widest = max((n for _, n in counted["top"]), default=1)
    return {
        "title": title,
        "bars": [
            {"name": name, "count": n, "width": n / widest, "share": n / total} for name, n in counted["top"]
        ],
        "rest": counted["rest"],
        "without": counted["without"],
        "summary": variety(counted["distinct"], counted["effective"]),
    }


def variety(distinct: int, effective: float) -> str:
    """Say how many labels there are and how evenly they occur.

    Args:
        distinct: How many there are.
        effective: How many equally frequent ones would be as varied.

    Example:
        >>> variety(8, 7.9), variety(1, 1.0)
        ('8 labels, nearly even (effective number 7.9)', '1 label')
    """
    if distinct < 2:
        return f"{distinct:,} label{'' if distinct == 1 else 's'}"
    share = effective / distinct
    word = "nearly even" if share >= 0.9 else "uneven" if share >= 0.6 else "very uneven"
    return f"{distinct:,} labels, {word} (effective number {effective:.1f})"


def overlap_rows(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Turn what was found in evaluation files into rows of a table: file, hash, fields, counts and kinds."""
    return [
        {
            "file": file.get("file", ""),
            "sha256": str(file.get("sha256", "")),
            "fields": ", ".join(map(str, file.get("fields", ()))),
            "items": file.get("items"),
            "tasks_rejected": file.get("tasks_rejected"),
            "answers_rejected": file.get("answers_rejected"),
            "kinds": ", ".join(
                f"{KINDS_OF_OVERLAP.get(kind, kind)} {n:,}" for kind, n in file.get("by_kind", {}).items()
            ),
        }
        for file in (report or {}).get("files", ())
    ]


def _charts(figures: Mapping[str, Any]) -> list[Chart]:
    charts: list[Chart] = []
    if figures["roots"]["top"]:
        charts.append(sunburst(figures["roots"]["top"], figures["roots"]["other_verbs"]))
    for name, title in LENGTHS.items():
        if found := figures["lengths"][name]:
            charts.append(_bars(f"length-{name}", title, found, "words", 0))
    if figures["nearest"]:
        charts.append(
            _bars("nearest", "ROUGE-L F1 with the nearest other instruction", figures["nearest"], "", 2)
        )
    if figures["timeline"]:
        charts += _timeline(figures["timeline"])
    return charts


def sunburst(top: Sequence[Mapping[str, Any]], other_verbs: int = 0) -> Chart:
    """Describe the sunburst: verbs inside, their objects outside, each with its count.

    A verb's ring segment is as wide as all its commands, so that the share of objects that are not shown stays
    empty; commands in which no object was found have a segment of their own, and so have all verbs that are not
    shown.

    Args:
        top: The verbs, as ``datagen.statistics.root_verbs`` returns them.
        other_verbs: Commands of the verbs that are not among them.
    """
    nodes = []
    for place, verb in enumerate(top):
        nodes.append(
            {"id": verb["verb"], "label": verb["verb"], "parent": "", "value": verb["count"], "hue": place}
        )
        nodes += [
            {"id": f"{verb['verb']}/{noun}", "label": noun, "parent": verb["verb"], "value": n, "hue": place}
            for noun, n in [*verb["objects"], (NO_OBJECT, verb["without_object"])]
            if n
        ]
    if other_verbs:
        nodes.append(
            {"id": OTHER_VERBS, "label": OTHER_VERBS, "parent": "", "value": other_verbs, "hue": len(top)}
        )
    return {"id": "roots", "kind": "sunburst", "title": "Root verbs and their objects", "nodes": nodes}


def _bars(id: str, title: str, found: Mapping[str, Any], unit: str, digits: int) -> Chart:
    step, last = found["step"], len(found["counts"]) - 1
    names = []
    for i in range(last + 1):
        low, high = i * step, (i + 1) * step
        if i == last and found["open"]:
            names.append(f"{low:.{digits}f} and more")
        elif digits:
            names.append(f"{low:.{digits}f} to {high:.{digits}f}")
        else:
            names.append(f"{low:.0f}" if step == 1 else f"{low:.0f} to {high - 1:.0f}")
    return {
        "id": id,
        "kind": "bars",
        "title": title,
        "axis": unit or "ROUGE-L F1",
        "x": [(i + 0.5) * step for i in range(last + 1)],
        "width": step,
        "y": found["counts"],
        "names": names,
        "facts": [
            ("mean", f"{found['mean']:,.{digits or 1}f}"),
            ("median", f"{found['median']:,.{digits}f}"),
            ("95% below", f"{found['p95']:,.{digits}f}"),
            ("largest", f"{found['max']:,.{digits}f}"),
        ],
        "n": found["n"],
    }


def _timeline(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    times = [row["time"] for row in rows]
    tokens: Chart = {
        "id": "tokens",
        "kind": "lines",
        "title": "Tokens so far",
        "axis": "tokens",
        "x": times,
        "lines": [
            {"name": "in", "role": "train", "y": [row["prompt_tokens"] for row in rows]},
            {"name": "out", "role": "valid", "y": [row["completion_tokens"] for row in rows]},
        ],
    }
    if rows[-1]["cost_usd"] is None:
        return [tokens]
    line = {"name": "US dollars", "role": "train", "y": [row["cost_usd"] for row in rows]}
    return [
        tokens,
        {
            "id": "cost",
            "kind": "lines",
            "title": "Cost so far",
            "axis": "US dollars",
            "x": times,
            "lines": [line],
        },
    ]


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lay the provenance out as rows, all versions of packages in one."""
    rows = page.flatten(provenance)
    versions = [(name, value) for name, value in rows if " / versions / " in name]
    if not versions:
        return rows
    joined = ", ".join(f"{name.rpartition(' / ')[2]} {value}" for name, value in versions)
    return [row for row in rows if row not in versions] + [("packages", joined)]


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _tile(label: str, value: str, context: str) -> dict[str, str]:
    return {"label": label, "value": value, "context": context}
