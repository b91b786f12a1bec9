"""Scores from pairwise verdicts: AlpaCare's win rate, the item rule of published tables, intervals.

Each item is shown to the judge in both orders against each reference. From the two outcomes of an item:

- AlpaCare's rule: win 1, tie 0.5, loss 0; the item's score is the mean of the two orders; the win rate is the
  mean over items.
- The item rule: an item is won (lost) where both orders say win (loss), and a tie otherwise. *Win rate* is
  won items over all, *non-tied* is won over won and lost, *ties as half* counts a tie as half a win.
- *Consistency* is the share of items whose two orders give the same outcome.

Rates are over complete items: both orders present and readable. Whatever is missing or unreadable is
counted beside them, and ``at_worst`` and ``at_best`` say what AlpaCare's win rate would be if every such
verdict were a loss or a win. The one-way rates show each order by itself; their difference is the judge's
bias for a position.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Rate:
    """A rate in percent with its 95% bootstrap interval; None where no item defines it."""

    percent: float | None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """The scores of one model against one reference; ``reference`` is "mean" in the averaged row.

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
            "scores": [dataclasses.asdict(score) for score in self.scores],
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
        DataError: There is no verdict, one is a duplicate, or an order is unknown.

    Example:
        >>> said = lambda order, raw: Verdict(id="7", reference="gpt-4", order=order, raw=raw)
        >>> table = score_verdicts([said("model_first", "Output (a)"), said("reference_first", "Tie")])
        >>> table.scores[0].alpacare.percent, table.scores[0].win_rate.percent
        (75.0, 0.0)
    """
    models: defaultdict[str, defaultdict[str, defaultdict[str, _Item]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(_Item))
    )
    differing = as_written = 0
    for verdict in verdicts:
        place = f"reference {verdict.reference!r}, order {verdict.order!r}, id {verdict.id!r}"
        if verdict.order not in ORDERS:
            raise DataError("a verdict has an unknown order", where=place, expected=" or ".join(ORDERS))
        item = models[verdict.model][verdict.reference][verdict.id]
        if verdict.order in item.outcomes:
            raise DataError(
                "duplicate verdicts on the same answers in the same order",
                where=place,
                expected="one verdict for each model, reference, order and id",
                remedy="keep one of them",
            )
        read = item.outcomes[verdict.order] = read_outcome(verdict)
        item.words |= {
            side: verdict.extra[side] for side in _WORDS if isinstance(verdict.extra.get(side), int)
        }
        as_written += not verdict.raw.strip()
        differing += verdict.verdict is not None and verdict.verdict != read
    if not models:
        raise DataError("there are no verdicts to score")
    scores = [
        score for model, references in models.items() for score in _score_model(model, references, resamples)
    ]
    return ScoreTable(scores, len(verdicts) - as_written, as_written, differing)


@dataclasses.dataclass
class _Item:
    """The outcomes of one item by order, and the words of its two answers where they are known."""

    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)
    words: dict[str, int] = dataclasses.field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return what the item adds to each sum; every count and every rate comes from these sums."""
        first, second = (_WORTH.get(self.outcomes.get(order, "invalid")) for order in ORDERS)
        known = [worth for worth in (first, second) if worth is not None]
        complete, unknown = len(known) == 2, 2 - len(known)
        won, lost = first == second == 1.0, first == second == 0.0
        return {
            "items": 1,
            "complete": complete,
            "invalid": list(self.outcomes.values()).count("invalid"),
            "missing": len(ORDERS) - len(self.outcomes),
            "wins": won,
            "losses": lost,
            "ties": complete and not won and not lost,
            "decided": won or lost,
            "half": (complete + won - lost) / 2,
            "score": sum(known) / 2 if complete else 0,
            "same": complete and first == second,
            MODEL_FIRST: first is not None,
            "model_first_score": first or 0,
            REFERENCE_FIRST: second is not None,
            "reference_first_score": second or 0,
            "lowest": sum(known) / 2,
            "highest": (sum(known) + unknown) / 2,
        }


_WORDS = ("model_words", "reference_words")
_SUMS = {name: place for place, name in enumerate(_Item().figures())}
_COUNTS = ("items", "complete", "invalid", "missing", "wins", "ties", "losses")
# Every rate is a quotient of two sums.
_RATES = {
    "alpacare": ("score", "complete"),
    "win_rate": ("wins", "complete"),
    "win_rate_non_tied": ("wins", "decided"),
    "ties_as_half": ("half", "complete"),
    "consistency": ("same", "complete"),
    "model_first": ("model_first_score", MODEL_FIRST),
    "reference_first": ("reference_first_score", REFERENCE_FIRST),
    "at_worst": ("lowest", "items"),
    "at_best": ("highest", "items"),
}
_ABOVE, _BELOW = ([_SUMS[name] for name in names] for names in zip(*_RATES.values(), strict=True))


def _rates(sums: np.ndarray) -> np.ndarray:
    """Turn sums [draws, references, S] into fractions [draws, rows, F]; the last of several rows is their mean."""
    above, below = sums[..., _ABOVE], sums[..., _BELOW]
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = np.where(below > 0, above / below, np.nan)
    if rates.shape[1] > 1:
        rates = np.concatenate([rates, rates.mean(axis=1, keepdims=True)], axis=1)
    return rates


def _score_model(model: str, references: Mapping[str, Mapping[str, _Item]], resamples: int) -> list[Score]:
    ids = list(dict.fromkeys(id_ for items in references.values() for id_ in items))
    nothing = dict.fromkeys(_SUMS, 0)
    table = np.array(
        [
            [
                list((items[id_].figures() if id_ in items else nothing).values())
                for items in references.values()
            ]
            for id_ in ids
        ],
        float,
    )  # [items, references, S]
    shape = table.shape[1:]
    intervals = bootstrap.interval(
        table.reshape(len(ids), -1),
        lambda sums: _rates(sums.reshape(-1, *shape)).reshape(len(sums), -1),
        resamples=resamples,
    )
    sums = table.sum(axis=0)
    values = _rates(sums[None])[0]
    words = [_mean_words(items) for items in references.values()]
    names = list(references)
    if len(names) > 1:
        names.append(MEAN)
        sums = np.concatenate([sums, sums.sum(axis=0, keepdims=True)])
        words.append(
            [_mean([mean for mean in side if mean is not None]) for side in zip(*words, strict=True)]
        )
    scores = []
    for row, name in enumerate(names):
        bounds = intervals[row * len(_RATES) :]
        rates = {rate: _rate(values[row, at], bounds[at]) for at, rate in enumerate(_RATES)}
        figures: dict[str, Any] = {count: int(sums[row, _SUMS[count]]) for count in _COUNTS} | rates
        figures |= {bound: rates[bound].percent for bound in ("at_worst", "at_best")}
        figures |= zip(_WORDS, words[row], strict=True)
        scores.append(Score(model, name, **figures))
    return scores


def _rate(fraction: float, interval: bootstrap.Interval | None) -> Rate:
    if np.isnan(fraction):
        return Rate(None)
    if interval is None:
        return Rate(float(100 * fraction))
    return Rate(float(100 * fraction), 100 * interval.low, 100 * interval.high)


def _mean_words(items: Mapping[str, _Item]) -> list[float | None]:
    return [_mean([item.words[side] for item in items.values() if side in item.words]) for side in _WORDS]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
