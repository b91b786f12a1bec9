"""Freezing by path: which weights, and of a stacked weight which layers, keep their values.

Paths are those of the parameter tree with the layer's number after ``layers``: ``embed``, ``norm.scale``,
``layers.3.attention.query``, ``layers.0.mlp.down``. A pattern is such a path, a beginning of one that ends before a
dot, or either with shell wildcards: ``*`` stands for anything, dots included, ``?`` for one character, ``[0-9]`` for
one of these.
"""

import fnmatch
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from alpacare_jax.errors import ConfigError, nearest


def frozen_layers(
    names: dict[str, int | None], patterns: Sequence[str], *, where: str = "train.freeze"
) -> dict[str, tuple[int, ...]]:
    """Find what patterns freeze.

    Args:
        names: Leaf names of the parameter tree, ``layers.attention.query``, with the number of layers stacked in them,
            None for what stands outside the layers.
        patterns: Patterns of paths.
        where: The key of the configuration, for messages.

    Returns:
        Name -> the layers that are frozen, ``(0,)`` for a leaf outside the layers; leaves without any are left out.

    Raises:
        ConfigError: A pattern matches nothing, or nothing is left to train.

    Example:
        >>> frozen_layers({"embed": None, "layers.mlp.up": 2}, ["embed", "layers.0"])
        {'embed': (0,), 'layers.mlp.up': (0,)}
    """
    paths = {path: (name, layer) for name, layers in names.items() for layer, path in paths_of(name, layers)}
    frozen: dict[str, set[int]] = {}
    problems = []
    for pattern in patterns:
        matched = [path for path in paths if matches(path, pattern)]
        if not matched:
            problems.append(f"{pattern!r} matches no parameter{_nearest(pattern, names)}")
        for path in matched:
            name, layer = paths[path]
            frozen.setdefault(name, set()).add(layer)
    if problems:
        raise ConfigError(
            "a pattern of frozen parameters is unknown",
            where=where,
            found="; ".join(problems),
            expected="paths such as embed, layers.0, layers.*.attention.*, norm.scale",
        )
    if sum(map(len, frozen.values())) == len(paths):
        raise ConfigError("nothing is left to train", where=where, found=", ".join(patterns))
    return {name: tuple(sorted(layers)) for name, layers in frozen.items()}


def paths_of(name: str, layers: int | None) -> list[tuple[int, str]]:
    """Return the paths of a leaf's layers, each with its layer.

    Example:
        >>> paths_of("layers.mlp.up", 2)
        [(0, 'layers.0.mlp.up'), (1, 'layers.1.mlp.up')]
    """
    if layers is None:
        return [(0, name)]
    rest = name.removeprefix("layers.")
    return [(layer, f"layers.{layer}.{rest}") for layer in range(layers)]


def matches(path: str, pattern: str) -> bool:
    """Say whether a pattern names a path or a beginning of it."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}.*")


def _nearest(pattern: str, names: dict[str, int | None]) -> str:
    known = [
        name if layers is None else name.replace("layers.", "layers.*.", 1) for name, layers in names.items()
    ]
    known += sorted({path.rpartition(".")[0] + ".*" for path in known if path.count(".") > 2})
    near = nearest(pattern, known, most=2)
    return f"; near it: {', '.join(near)}" if near else f"; known: {', '.join(known)}"


def take(weight: jax.Array, layers: Sequence[int]) -> jax.Array:
    """Take some layers of a stacked weight."""
    parts = [weight[first : last + 1] for first, last in _spans(layers)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def put_together(trained: jax.Array, frozen: jax.Array, layers: Sequence[int]) -> jax.Array:
    """Undo :func:`take`.

    Args:
        trained: The layers that are not frozen, in order.
        frozen: The others, in order.
        layers: The numbers of the frozen layers.
    """
    total = trained.shape[0] + frozen.shape[0]
    spans = [(True, *span) for span in _spans(layers)]
    spans += [(False, *span) for span in _spans([i for i in range(total) if i not in set(layers)])]
    taken = {True: 0, False: 0}
    parts = []
    for is_frozen, first, last in sorted(spans, key=lambda span: span[1]):
        at, length = taken[is_frozen], last - first + 1
        parts.append((frozen if is_frozen else trained)[at : at + length])
        taken[is_frozen] += length
    return jnp.concatenate(parts)


def _spans(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Join neighbours: [0, 1, 2, 5] gives [(0, 2), (5, 5)]."""
    spans: list[tuple[int, int]] = []
    for layer in layers:
        if spans and spans[-1][1] == layer - 1:
            spans[-1] = (spans[-1][0], layer)
        else:
            spans.append((layer, layer))
    return spans
