"""Draws the seed tasks of each request so that types, views, topics and difficulties occur equally often.

Seed files are unbalanced: AlpaCare's has five times as many medical students as patients, and hardly a task of
difficulty 5. The teacher follows its examples, so its tasks are unbalanced too. Here each seed gets a weight under
which the labels come out as even as its bounds allow (raking: the weights are scaled label by label until nothing
moves), and the draws follow these weights closely, in rounds of :data:`ROUND` requests, while the examples of one
request differ from each other wherever they can. A round depends on the seed and its own number alone, so request i
is a pure function of both.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

from datagen import labels
from datagen.records import SeedTask

#: Changes whenever the same settings would draw other examples.
DRAW_VERSION = "1"
EVEN, UNIFORM = "even", "uniform"
SAMPLINGS = (EVEN, UNIFORM)
#: Requests in which the draws come out even.
ROUND = 256
#: A seed is shown at least and at most this many times as often as in plain draws.
LEAST, MOST = 0.4, 3.0

# What it costs, in units beyond any deviation, to repeat a label within one request; the type matters most.
_REPEATS = {"type": 4000, "difficulty": 2000, "topic": 2000, "view": 1000}
_FIELDS = tuple(_REPEATS)


def draw_examples(
    seeds: Sequence[SeedTask], count: int, seed: int, number: int, sampling: str
) -> list[SeedTask]:
    """Draw the examples of request ``number``: ``count`` different seed tasks.

    Args:
        seeds: All seed tasks.
        count: How many to draw; at most as many as there are.
        seed: The run's number.
        number: The request's number, from 0.
        sampling: "even" evens out the labels; "uniform" draws all tasks alike likely, as the paper does.
    """
    if sampling == UNIFORM:
        return draw_uniform(seeds, count, f"{seed}:{number}")
    rows = tuple(tuple(labels.group(field, getattr(each, field)) for field in _FIELDS) for each in seeds)
    return [seeds[i] for i in _round(rows, count, seed, number // ROUND)[number % ROUND]]


def draw_uniform(seeds: Sequence[SeedTask], count: int, key: str) -> list[SeedTask]:
    """Draw ``count`` different seed tasks uniformly, in an order determined by the key.

    A cryptographic hash ranks the tasks, because the library's random draws may change between Pythons.

    Example:
        >>> seeds = [SeedTask(text) for text in ("a", "b", "c", "d")]
        >>> [task.instruction for task in draw_uniform(seeds, 2, "0:0")]
        ['b', 'c']
    """
    ranked = sorted(range(len(seeds)), key=lambda i: hashlib.sha256(f"{key}:{i}".encode()).digest())
    return [seeds[i] for i in ranked[:count]]


@functools.lru_cache(maxsize=4)
def weights(rows: tuple[tuple[str, ...], ...]) -> list[float]:
    """Return how many times as often as in plain draws each task should be shown, so that labels come out even.

    Args:
        rows: The labels of each task, always in the same fields.

    Returns:
        One weight a task, 1 on average, about :data:`LEAST` to :data:`MOST`.

    Example:
        >>> [round(weight, 2) for weight in weights((("chat",), ("chat",), ("chat",), ("rewriting",)))]
        [0.67, 0.67, 0.67, 2.0]
    """
    result = [1.0] * len(rows)
    for _ in range(60):
        for column in range(len(rows[0])):
            totals: dict[str, float] = {}
            for weight, row in zip(result, rows, strict=True):
                totals[row[column]] = totals.get(row[column], 0.0) + weight
            even = sum(totals.values()) / len(totals)
            factors = {label: math.sqrt(even / total) for label, total in totals.items()}
            result = [weight * factors[row[column]] for weight, row in zip(result, rows, strict=True)]
        mean = sum(result) / len(result)
        result = [min(MOST, max(LEAST, weight / mean)) for weight in result]
    mean = sum(result) / len(result)
    return [weight / mean for weight in result]


@functools.lru_cache(maxsize=4)
def _round(rows: tuple[tuple[str, ...], ...], count: int, seed: int, number: int) -> list[list[int]]:
    """Draw the examples of one round of requests, as places in the list of seeds.

    Each draw takes the task by which the counts so far, of labels and of tasks, stay closest to what their weights
    ask for (least squares relative to the expected share); a keyed hash blurs the choice, so that rounds differ.
    """
    import numpy as np

    share = np.array(weights(rows)) / len(rows)
    columns = [np.unique(column, return_inverse=True)[1] for column in zip(*rows, strict=True)]
    scales = [1 / (np.bincount(column, weights=share) * (column.max() + 1)) for column in columns]
    counts = [np.zeros(len(scale)) for scale in scales]
    shown = np.zeros(len(rows))
    drawn: list[list[int]] = []
    for request in range(ROUND):
        examples: list[int] = []
        repeats = np.zeros(len(rows))
        for place in range(count):
            blur = _blur(np, f"{DRAW_VERSION}:{seed}:{number}:{request}:{place}", len(rows))
            cost = repeats + 4 * blur + 2 * (2 * shown + 1) / (share * len(rows))
            for column, scale, count_of in zip(columns, scales, counts, strict=True):
                # What showing a label once more adds to the squared deviations.
                cost += ((2 * count_of + 1) * scale)[column]
            task = int(cost.argmin())
            examples.append(task)
            shown[task] += 1
            repeats[task] = np.inf
            for column, count_of, penalty in zip(columns, counts, _REPEATS.values(), strict=True):
                count_of[column[task]] += 1
                repeats += penalty * (column == column[task])
        drawn.append(examples)
    return drawn


def _blur(np: Any, key: str, count: int) -> Any:
    """Return numbers in [0, 1) that depend on the key alone."""
    return np.frombuffer(hashlib.shake_256(key.encode()).digest(2 * count), dtype=">u2") / 65536
