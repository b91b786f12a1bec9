"""The patterns of ``verdict_patterns.yaml``, by which a judge's reply is read."""

import functools
import re

from datagen.phrases import expand, read_table


@functools.cache
def pattern(name: str) -> re.Pattern[str]:
    """Compile a pattern.

    Example:
        >>> pattern("order").fullmatch("A > B")["label"]
        'A'
    """
    return re.compile(_expanded(name))


@functools.cache
def groups() -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of answers spoken of together, each with the sign that stands for it."""
    table = read_table("alpacare_jax.evaluate", "verdict_patterns.yaml")["groups"]
    return [(re.compile(text), sign) for sign, text in table]


def _expanded(name: str) -> str:
    return expand(read_table("alpacare_jax.evaluate", "verdict_patterns.yaml")[name], _expanded)
