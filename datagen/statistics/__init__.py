"""Statistics of a work folder, as plain values: what the run made, what it dropped, and what it spent.

They are those of the paper (root verbs with their objects, views, types, difficulty) and those a person asks for
before spending more: lengths, how near the tasks are to each other, the funnel, tokens and cost over time. They
can be read beside a running job; nothing is changed.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from datagen import labels
from datagen.decoding import read_json_object
from datagen.dedup import count_words
from datagen.ledger import Entry, Ledger, StageSpending
from datagen.publish import is_written
from datagen.publish.provenance import count_identifiers, sum_up
from datagen.questions import read_seeds
from datagen.records import SeedTask, normal_input, read_objects
from datagen.results import CONTAMINATION_REPORT
from datagen.statistics.neighbours import nearest_scores
from datagen.statistics.roots import find_root
from datagen.synthesize import Funnel
from datagen.work.folder import CONFIG, LEDGER, pinned_settings, recorded_settings, refuse_lost
from datagen.work.replay import replay

VERBS, OBJECTS, LABELS = 20, 4, 20
SAMPLE_ABOVE, SAMPLE = 10_000, 3_000
"""More texts than the first number are compared by a sample of the second."""

EXAMPLES = 6

_BINS = 30
_POINTS = 240


State = Literal["finished", "running", "stopped", "nothing yet"]


@dataclasses.dataclass
class Rows:
    """The tasks that the statistics are about, and the answers that are in."""

    tasks: list[SeedTask] = dataclasses.field(default_factory=list)
    answers: list[str] = dataclasses.field(default_factory=list)
    what: str = "tasks"


@dataclasses.dataclass(frozen=True)
class WorkStatistics:
    """The statistics of a work folder.

    Attributes:
        state: Whether the run is finished, running or stopped, or has asked nothing yet.
        target: Tasks wanted.
        rows: How many rows the statistics of texts are about.
        what: What these rows are.
        funnel: What became of every request, task and answer.
        rejected: Rows of what was rejected.
        requests: As :func:`datagen.publish.provenance.sum_up`, with ``counted_usd`` and ``unknown_usd``.
        timeline: As :func:`over_time`.
        contamination: Content of ``contamination.json``, where there is one.
        privacy: Identifiers found, by kind and action; None until they were looked for.
        settings: The settings that shape the result.
        roots: As :func:`root_verbs`.
        labels: As :func:`count_labels`, by field.
        lengths: As :func:`histogram`, of words of "instruction", "input" and "answer".
        without_input: Tasks without an input.
        nearest: As :func:`nearest`.
        examples: A few tasks with their answers.
    """

    state: State
    target: int | None
    rows: int
    what: str
    funnel: Funnel
    rejected: list[dict[str, Any]]
    requests: dict[str, Any]
    timeline: list[dict[str, Any]]
    contamination: dict[str, Any] | None
    privacy: dict[str, dict[str, int]] | None
    settings: dict[str, Any]
    roots: dict[str, Any]
    labels: dict[str, dict[str, Any]]
    lengths: dict[str, dict[str, Any] | None]
    without_input: int
    nearest: dict[str, Any] | None
    examples: list[tuple[SeedTask, str]]


def collect(work: Path) -> WorkStatistics:
    """Collect the statistics of a work folder of a synthesis run, finished, stopped or running.

    Raises:
        DataError: It is no work folder, or one of its files is broken.
    """
    pinned = pinned_settings(work)
    refuse_lost(work)
    running = is_written(work)
    finished = (work / "funnel.json").exists() and not running
    requests = sum_up(())
    timeline: list[dict[str, Any]] = []
    spending: dict[str, StageSpending] = {}
    rows, funnel = Rows(), Funnel()
    rejected: list[dict[str, Any]] = []
    if (work / LEDGER).exists():
        with Ledger(work / LEDGER, read_only=True) as ledger, ledger.snapshot():
            requests = sum_up(ledger.entries())
            timeline = over_time(ledger.entries())
            spending = ledger.spending()
            if finished:
                rows, funnel, rejected = _finished(work)
            elif requests["stages"]:
                rows, funnel, rejected = _so_far(ledger, work)
    state: State = "running" if running else "finished" if finished else "stopped"
    contamination = work / CONTAMINATION_REPORT
    instructions = [task.instruction for task in rows.tasks]
    inputs = [text for task in rows.tasks if (text := normal_input(task.input))]
    return WorkStatistics(
        state=state if requests["stages"] else "nothing yet",
        target=pinned.get("target"),
        rows=len(rows.tasks),
        what=rows.what,
        funnel=funnel,
        rejected=rejected,
        requests=requests
        | {
            "counted_usd": math.fsum(stage.spent_usd for stage in spending.values()),
            "unknown_usd": math.fsum(stage.unknown_usd for stage in spending.values()),
        },
        timeline=timeline,
        contamination=read_json_object(contamination) if contamination.exists() else None,
        privacy=count_identifiers(work) if finished else None,
        settings=read_json_object(work / CONFIG)["fixed"],
        roots=root_verbs(instructions),
        labels={field: count_labels(field, rows.tasks) for field in labels.FIELDS},
        lengths={
            "instruction": histogram([count_words(text) for text in instructions]),
            "input": histogram([count_words(text) for text in inputs]),
            "answer": histogram([count_words(text) for text in rows.answers]),
        },
        without_input=len(rows.tasks) - len(inputs),
        nearest=nearest(instructions),
        examples=examples(rows),
    )


def examples(rows: Rows, most: int = EXAMPLES) -> list[tuple[SeedTask, str]]:
    """Return a few tasks, spread evenly, with their answers where all are in, else ""."""
    count = min(most, len(rows.tasks))
    answers = rows.answers if len(rows.answers) == len(rows.tasks) else [""] * len(rows.tasks)
    places = [number * len(rows.tasks) // count for number in range(count)]
    return [(rows.tasks[place], answers[place]) for place in places]


def _finished(work: Path) -> tuple[Rows, Funnel, list[dict[str, Any]]]:
    objects, rejected = (_read(work / f"{name}.jsonl") for name in ("instructions", "rejected"))
    names = ("instruction", "input", *labels.FIELDS)
    tasks = [SeedTask(*(str(row.get(name) or "") for name in names)) for row in objects]
    rows = Rows(tasks, [str(row["output"]) for row in objects], "published instructions")
    return rows, Funnel.read(work / "funnel.json"), rejected


def _read(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_objects(path)] if path.exists() and path.stat().st_size else []


def _so_far(ledger: Ledger, work: Path) -> tuple[Rows, Funnel, list[dict[str, Any]]]:
    settings = recorded_settings(work)
    task_filter, outcome = replay(ledger, settings, read_seeds(settings))
    answers = [each.output for each in outcome.instructions]
    rows = Rows([kept.task for kept in task_filter.kept], answers, "tasks kept so far")
    return rows, Funnel.count(task_filter, outcome, settings), [*task_filter.rejected, *outcome.rejected]


def root_verbs(instructions: Sequence[str], *, verbs: int = VERBS, objects: int = OBJECTS) -> dict[str, Any]:
    """Count root verbs with their direct noun objects.

    Returns:
        ``kinds`` (commands, questions, others), ``with_object``, ``distinct_verbs``, ``distinct_pairs``, ``top``: the
        most frequent verbs with ``verb``, ``count`` (all its commands), the most frequent ``objects`` as pairs, and
        ``without_object`` (its commands in which none was found); and ``other_verbs``: the commands of all other
        verbs. ``other_verbs`` and the counts of ``top`` add up to the commands.

    Example:
        >>> root_verbs(["List signs of gout.", "List causes of gout.", "What is gout?"])["top"]
        [{'verb': 'list', 'count': 2, 'objects': [('cause', 1), ('sign', 1)], 'without_object': 0}]
    """
    kinds: Counter[str] = Counter()
    of: dict[str, Counter[str]] = {}
    for instruction in instructions:
        root = find_root(instruction)
        kinds[root.kind] += 1
        if root.verb:
            of.setdefault(root.verb, Counter())[root.object] += 1
    ranked = sorted(of.items(), key=lambda pair: (-pair[1].total(), pair[0]))
    without = {verb: counts.pop("", 0) for verb, counts in ranked}
    commands = {verb: counts.total() + without[verb] for verb, counts in ranked}
    return {
        "kinds": {kind: kinds[kind] for kind in ("command", "question", "other")},
        "with_object": sum(counts.total() for counts in of.values()),
        "distinct_verbs": len(of),
        "distinct_pairs": sum(map(len, of.values())),
        "top": [
            {
                "verb": verb,
                "count": commands[verb],
                "objects": _most(counts, objects),
                "without_object": without[verb],
            }
            for verb, counts in ranked[:verbs]
        ],
        "other_verbs": sum(commands[verb] for verb, _ in ranked[verbs:]),
    }


def count_labels(field: str, tasks: Sequence[SeedTask], *, most: int = LABELS) -> dict[str, Any]:
    """Count the labels of one field in their one spelling.

    Returns:
        ``top`` (pairs; difficulties in their order), ``rest`` (rows with other labels), ``distinct``, ``without``
        (rows without a label), and ``effective``: as many equally frequent labels would be as varied.

    Example:
        >>> count_labels("type", [SeedTask("a", type="Rewrite"), SeedTask("b", type="Rewrites"), SeedTask("c")])
        {'top': [('Rewriting', 2)], 'rest': 0, 'distinct': 1, 'without': 1, 'effective': 1.0}
    """
    normalise = functools.cache(functools.partial(labels.normalise, field))
    counts = Counter(normalise(label) for task in tasks if (label := getattr(task, field).strip()))
    top = _most(counts, most)
    if field == "difficulty":
        top.sort(
            key=lambda pair: (not pair[0].isdecimal(), int(pair[0]) if pair[0].isdecimal() else 0, pair[0])
        )
    total = counts.total()
    entropy = -math.fsum(n / total * math.log(n / total) for n in counts.values())
    return {
        "top": top,
        "rest": total - sum(n for _, n in top),
        "distinct": len(counts),
        "without": len(tasks) - total,
        "effective": round(math.exp(entropy), 2) if total else 0.0,
    }


def histogram(
    values: Sequence[float], *, step: float | None = None, bins: int = _BINS
) -> dict[str, Any] | None:
    """Count values in bins of one round width; the last bin takes everything above the 99th percentile's.

    Args:
        values: The values, none below 0.
        step: Width of a bin; a round one when None.
        bins: How many bins at most, when the width is not given.

    Returns:
        None without values, else ``step``, ``counts`` (bin i begins at ``i * step``), ``open`` (whether the last bin
        has no upper end), ``n``, ``mean``, ``median``, ``p95`` and ``max``.

    Example:
        >>> histogram([0, 1, 1, 7], step=2)["counts"]
        [3, 0, 0, 1]
    """
    if not values:
        return None
    ranked = sorted(values)
    high = ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))]
    if step is None:
        step = next(
            base * 10**power for power in range(9) for base in (1, 2, 5) if high / (base * 10**power) < bins
        )
    counts = [0] * (int(high / step) + 1)
    for value in ranked:
        counts[min(int(value / step), len(counts) - 1)] += 1
    return {
        "step": step,
        "counts": counts,
        "open": ranked[-1] >= len(counts) * step,
        "n": len(ranked),
        "mean": round(math.fsum(ranked) / len(ranked), 4),
        "median": ranked[(len(ranked) - 1) // 2],
        "p95": ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))],
        "max": ranked[-1],
    }


def nearest(instructions: Sequence[str]) -> dict[str, Any] | None:
    """Return the histogram of ROUGE-L with the nearest neighbour, in bins of 0.05, and the number of texts."""
    sample = SAMPLE if len(instructions) > SAMPLE_ABOVE else None
    # A score of 0.7 is 14 * 0.05, but not in binary: whole hundredths of a per mille make the bins exact.
    scores = [round(score * 100_000) for score in nearest_scores(instructions, sample)]
    found = histogram(scores, step=5_000)
    if found is None:
        return None
    scaled = {key: found[key] / 100_000 for key in ("step", "mean", "median", "p95", "max")}
    return found | scaled | {"of": len(instructions), "sampled": sample is not None}


def over_time(entries: Iterable[Entry], *, points: int = _POINTS) -> list[dict[str, Any]]:
    """Add up tokens and cost in the order in which the replies came.

    Returns:
        At most about ``points`` rows, the last one always among them: ``time`` (UTC, ISO 8601), ``replies``,
        ``prompt_tokens``, ``completion_tokens`` and ``cost_usd`` (US dollars; None until a cost is known), each the
        sum so far.
    """
    settled = [
        (entry.finished_at, entry.prompt_tokens or 0, entry.completion_tokens or 0, entry.cost_usd)
        for entry in entries
        if entry.finished_at and entry.state == "answered"
    ]
    if not settled:
        return []
    settled.sort(key=lambda row: row[0])
    times, prompt, completion, costs = zip(*settled, strict=True)
    sums = zip(accumulate(prompt), accumulate(completion), accumulate(costs, _add_known), strict=True)
    every = -(-len(settled) // points)
    return [
        {
            "time": time,
            "replies": number,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "cost_usd": usd if usd is None else round(usd, 6),
        }
        for number, (time, (tokens_in, tokens_out, usd)) in enumerate(zip(times, sums, strict=True), start=1)
        if number % every == 0 or number == len(settled)
    ]


def _add_known(one: float | None, other: float | None) -> float | None:
    return one if other is None else (one or 0.0) + other


def _most(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
