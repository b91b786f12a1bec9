"""Bootstrap intervals of rates and means, by item: what the figure would be on another draw of questions.

The items are drawn again with replacement, as many as there are, :data:`RESAMPLES` times; the interval is
from the 2.5th to the 97.5th percentile of the figure over the draws. Both orders of an item and its verdicts
against every reference stay together, since they share the question. The seed is fixed, so the same file
gives the same interval.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
SEED = 20231022
LEVEL = 0.95
_DRAWS_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """The two ends of an interval, in the unit of the figure it belongs to."""

    low: float
    high: float


def interval(
    columns: np.ndarray,
    figure: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Interval | None]:
    """Draw items again and give the interval of each figure computed from column sums.

    Args:
        columns: [items, C] float; what each item adds to each of C sums.
        figure: Takes sums [draws, C] and returns figures [draws, F]; NaN where a draw does not define one.
        resamples: Number of draws.
        seed: Seed of the generator.

    Returns:
        One interval a figure, F of them; None where no draw defines the figure.

    Example:
        >>> mean = lambda sums: sums[:, :1] / sums[:, 1:]
        >>> interval(np.array([[1.0, 1.0]] * 5), mean, resamples=100)
        [Interval(low=1.0, high=1.0)]
    """
    items = len(columns)
    rng = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // max(items, 1))
    drawn = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        picks = rng.integers(items, size=(draws, items))
        cells = picks + np.arange(draws)[:, None] * items
        times = np.bincount(cells.ravel(), minlength=draws * items).reshape(draws, items)
        drawn.append(figure(times @ columns))
    return [_percentiles(values) for values in np.concatenate(drawn).T]


def mean_interval(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """Give the interval of the mean of ``values`` [items]; None where there are no items."""
    if not len(values):
        return None
    columns = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    return interval(columns, lambda sums: sums[:, :1] / sums[:, 1:], resamples=resamples, seed=seed)[0]


def _percentiles(values: np.ndarray) -> Interval | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
