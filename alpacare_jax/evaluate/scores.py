"""Scores from pairwise verdicts: AlpaCare's win rate, the item rule of published tables, intervals.

Each item is shown to the judge in both orders against each reference. From the two outcomes of an item:

- AlpaCare's rule: win 1, tie 0.5, loss 0; the item's score is the mean of the two orders; the win rate is the
  mean over items.
- The item rule: an item is won (lost) where both orders say win (loss), and a tie otherwise. *Win rate* is
  won items over all, *non-tied* is won over won and lost, *ties as half* counts a tie as half a win.
- *Consistency* is the share of items whose two orders give the same outcome.

Rates are over complete items alone: both orders present and readable. Whatever is missing or unreadable is
counted beside them, and ``at_worst`` and ``at_best`` say what AlpaCare's win rate would be if every such
verdict were a loss or a win. The one-way rates show each order by itself; their difference is the judge's
bias for a position.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from alpacare_jax.evaluate import bootstrap
from alpacare_jax.evaluate.verdicts import (
    MODEL_FIRST,
    ORDERS,
    REFERENCE_FIRST,
    Outcome,
    outcome,
    parse_choice,
)
from datagen.errors import DataError
from datagen.records import Verdict

MEAN = "mean"
"""Name of the row that averages the references of a model."""

_WORTH = {"win": 1.0, "tie": 0.5, "loss": 0.0}


class Rate(NamedTuple):
    """A rate in percent with its 95% bootstrap interval; None where no item defines it."""

    percent: float | None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """What the verdicts on one model against one reference say; ``reference`` is "mean" in the averaged row.

    ``items`` counts distinct ids, ``complete`` those with both orders readable; ``invalid`` and ``missing``
    count single verdicts. ``alpacare`` and the four rates after it are over complete items; the one-way rates
    over every readable verdict of their order. Word counts are means over items, None where the texts are not
    known.
    """

    model: str
    reference: str
    items: int
    complete: int
    invalid: int
    missing: int
    wins: int
    ties: int
    losses: int
    alpacare: Rate
    win_rate: Rate
    win_rate_non_tied: Rate
    ties_as_half: Rate
    consistency: Rate
    model_first: Rate
    reference_first: Rate
    at_worst: float | None
    at_best: float | None
    model_words: float | None = None
    reference_words: float | None = None


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """All scores of a verdict file, and how its verdicts were read.

    ``parsed`` verdicts were read anew from the judge's text, ``as_written`` had no text and were taken from
    their ``verdict`` field, and ``differing`` have a ``verdict`` field that their own text contradicts (the
    text counts).
    """

    scores: list[Score]
    parsed: int
    as_written: int
    differing: int

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON values: percentages, counts and words."""
        return {
            "scores": [
                {
                    key: value._asdict() if isinstance(value, Rate) else value
                    for key, value in vars(score).items()
                }
                for score in self.scores
            ],
            "verdicts": {"parsed": self.parsed, "as_written": self.as_written, "differing": self.differing},
            "bootstrap": {"resamples": bootstrap.RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL},
        }


def read_outcome(verdict: Verdict) -> Outcome:
    """Read a verdict's outcome anew from the judge's text; without text, take its ``verdict`` field."""
    if verdict.raw.strip():
        return outcome(parse_choice(verdict.raw), verdict.order)
    return verdict.verdict if verdict.verdict in _WORTH else "invalid"  # type: ignore[return-value]


def score_verdicts(verdicts: Sequence[Verdict], *, resamples: int = bootstrap.RESAMPLES) -> ScoreTable:
    """Score every model against every reference.

    Args:
        verdicts: At most one for each model, reference, order and id.
        resamples: Draws of the bootstrap.

    Raises:
        DataError: There is no verdict, one stands twice, or an order is unknown.

    Example:
        >>> said = lambda order, raw: Verdict(id="7", reference="gpt-4", order=order, raw=raw)
        >>> table = score_verdicts([said("model_first", "Output (a)"), said("reference_first", "Tie")])
        >>> table.scores[0].alpacare.percent, table.scores[0].win_rate.percent
        (75.0, 0.0)
    """
    by_model: dict[str, dict[str, dict[str, dict[str, Outcome]]]] = {}
    differing = as_written = 0
    for verdict in verdicts:
        read = read_outcome(verdict)
        as_written += not verdict.raw.strip()
        differing += verdict.verdict is not None and verdict.verdict != read
        orders = (
            by_model.setdefault(verdict.model, {})
            .setdefault(verdict.reference, {})
            .setdefault(verdict.id, {})
        )
        place = f"reference {verdict.reference!r}, order {verdict.order!r}, id {verdict.id!r}"
        if verdict.order not in ORDERS:
            raise DataError("a verdict has an unknown order", where=place, expected=" or ".join(ORDERS))
        if verdict.order in orders:
            raise DataError(
                "two verdicts stand for the same answer pair in the same order",
                where=place,
                expected="one verdict for each model, reference, order and id",
                remedy="keep one of them",
            )
        orders[verdict.order] = read
    if not by_model:
        raise DataError("there are no verdicts to score")
    words = _mean_words(verdicts)
    scores = [
        score
        for model, references in by_model.items()
        for score in _score_model(model, references, words, resamples)
    ]
    return ScoreTable(scores, len(verdicts) - as_written, as_written, differing)


# What one item adds to each column; every rate is a quotient of column sums.
_COLUMNS = (
    "items",
    "complete",
    "score",
    "won",
    "lost",
    "same",
    "mf",
    "mf_score",
    "rf",
    "rf_score",
    "low",
    "high",
)
_C = {name: index for index, name in enumerate(_COLUMNS)}
_RATES = (
    "alpacare",
    "win_rate",
    "win_rate_non_tied",
    "ties_as_half",
    "consistency",
    "model_first",
    "reference_first",
    "at_worst",
    "at_best",
)


def _item_columns(orders: dict[str, Outcome]) -> list[float]:
    first, second = (_WORTH.get(orders.get(order, "invalid")) for order in ORDERS)
    low = ((first or 0.0) + (second or 0.0)) / 2
    high = ((1.0 if first is None else first) + (1.0 if second is None else second)) / 2
    complete = first is not None and second is not None
    won, lost = first == second == 1.0, first == second == 0.0
    whole = [low, won, lost, first == second] if complete else [0.0] * 4
    one_way = [first is not None, first or 0.0, second is not None, second or 0.0]
    return [1.0, complete, *whole, *one_way, low, high]


def _rates(sums: np.ndarray) -> np.ndarray:
    """Turn column sums [..., C] into fractions [..., F] in the order of ``_RATES``."""
    at = {name: sums[..., index] for name, index in _C.items()}
    half = (at["complete"] + at["won"] - at["lost"]) / 2
    quotients = [
        (at["score"], at["complete"]),
        (at["won"], at["complete"]),
        (at["won"], at["won"] + at["lost"]),
        (half, at["complete"]),
        (at["same"], at["complete"]),
        (at["mf_score"], at["mf"]),
        (at["rf_score"], at["rf"]),
        (at["low"], at["items"]),
        (at["high"], at["items"]),
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([np.where(below > 0, above / below, np.nan) for above, below in quotients], axis=-1)


def _score_model(
    model: str,
    references: dict[str, dict[str, dict[str, Outcome]]],
    words: dict[tuple[str, str], tuple[float | None, float | None]],
    resamples: int,
) -> list[Score]:
    ids = list(dict.fromkeys(id_ for items in references.values() for id_ in items))
    table = np.array(
        [
            [
                _item_columns(items[id_]) if id_ in items else [0.0] * len(_COLUMNS)
                for items in references.values()
            ]
            for id_ in ids
        ],
        float,
    )

    def figures(sums: np.ndarray) -> np.ndarray:
        rates = _rates(sums.reshape(len(sums), len(references), len(_COLUMNS)))
        return np.concatenate([rates, rates.mean(axis=1, keepdims=True)], axis=1).reshape(len(sums), -1)

    flat = table.reshape(len(ids), -1)
    values = figures(flat.sum(axis=0)[None])[0].reshape(-1, len(_RATES))
    intervals = bootstrap.interval(flat, figures, resamples=resamples)
    names = [*references, MEAN] if len(references) > 1 else [*references]
    scores = []
    for row, name in enumerate(names):
        of_row = list(references.values()) if row == len(references) else [references[name]]
        figures_of_row: dict[str, Any] = {**_counts(of_row)}
        for column, rate in enumerate(_RATES):
            bounds = intervals[row * len(_RATES) + column]
            figures_of_row[rate] = _rate(values[row, column], bounds)
        for bound in ("at_worst", "at_best"):
            figures_of_row[bound] = figures_of_row[bound].percent
        ours, theirs = _words_of_row(model, name if row < len(references) else None, references, words)
        scores.append(Score(model, name, **figures_of_row, model_words=ours, reference_words=theirs))
    return scores


def _rate(fraction: float, interval: bootstrap.Interval | None) -> Rate:
    if np.isnan(fraction):
        return Rate(None)
    if interval is None:
        return Rate(float(100 * fraction))
    return Rate(float(100 * fraction), 100 * interval.low, 100 * interval.high)


def _counts(references: Iterable[dict[str, dict[str, Outcome]]]) -> dict[str, int]:
    counts = dict.fromkeys(("items", "complete", "invalid", "missing", "wins", "ties", "losses"), 0)
    for items in references:
        for orders in items.values():
            outcomes = list(orders.values())
            invalid = outcomes.count("invalid")
            counts["items"] += 1
            counts["invalid"] += invalid
            counts["missing"] += len(ORDERS) - len(outcomes)
            if len(outcomes) == len(ORDERS) and not invalid:
                counts["complete"] += 1
                same = outcomes[0] if outcomes[0] == outcomes[1] else "tie"
                counts[{"win": "wins", "tie": "ties", "loss": "losses"}[same]] += 1
    return counts


def _mean_words(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    """Average the fields ``model_words`` and ``reference_words`` over each model and reference's items."""
    seen: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {}
    for verdict in verdicts:
        for side, field in enumerate(("model_words", "reference_words")):
            count = verdict.extra.get(field)
            if isinstance(count, int):
                seen.setdefault((verdict.model, verdict.reference), ({}, {}))[side][verdict.id] = count
    return {
        key: (_mean(list(model.values())), _mean(list(reference.values())))
        for key, (model, reference) in seen.items()
    }


def _words_of_row(
    model: str,
    reference: str | None,
    references: Iterable[str],
    words: dict[tuple[str, str], tuple[float | None, float | None]],
) -> tuple[float | None, float | None]:
    if reference is not None:
        return words.get((model, reference), (None, None))
    sides = list(zip(*(words.get((model, name), (None, None)) for name in references), strict=True))
    ours, theirs = ([count for count in side if count is not None] for side in sides)
    return _mean(ours), _mean(theirs)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def position_bias(score: Score) -> float | None:
    """Return the points of win rate that standing first adds, or None where an order is absent."""
    first, second = score.model_first.percent, score.reference_first.percent
    return None if first is None or second is None else (first - second)


__all__ = [
    "MEAN",
    "MODEL_FIRST",
    "REFERENCE_FIRST",
    "Rate",
    "Score",
    "ScoreTable",
    "position_bias",
    "read_outcome",
    "score_verdicts",
]
