"""Optimisers by name, as optax composes them."""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import jax
import optax
from optax import contrib

from alpacare_jax.model.layers import SUMMED_AXES
from alpacare_jax.optim.schedule import make_schedule
from alpacare_jax.optim.settings import OptimConfig
from alpacare_jax.optim.storage import stored

MUON_RMS = 0.2
"""Root mean square of Muon's updates of a matrix, relative to the learning rate: about that of AdamW's, so that a
rate found for one serves the other (Liu et al. 2025, section 2.2)."""


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Return the gradient transformation for a run of a number of steps.

    The state's moments are stored as ``config.state_dtype`` says; the arithmetic is fp32, whatever the parameters.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return stored(optax.chain(clip, _scaled(config, steps)), config.state_dtype)


def _scaled(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    rate = make_schedule(config, steps)

    def mask(params: Any) -> Any:
        return decays(params, config.no_decay)

    match config.name:
        case "adafactor":
            return optax.adafactor(
                rate,
                multiply_by_parameter_scale=False,
                weight_decay_rate=_weight_decay(config, rate),
                weight_decay_mask=mask,
            )
        case "lion":
            return optax.lion(rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=mask)
        case "muon":
            return _muon(config, rate, mask)
        case _:
            return optax.adamw(
                rate,
                b1=config.b1,
                b2=config.b2,
                eps=config.eps,
                weight_decay=config.weight_decay,
                mask=mask,
            )


def _weight_decay(config: OptimConfig, rate: optax.Schedule) -> optax.Schedule | None:
    """Return the decay of a step: optax's Adafactor takes it off unscaled, the others scaled by the rate."""
    if not config.weight_decay:
        return None
    return lambda step: config.weight_decay * rate(step)


def _muon(config: OptimConfig, rate: optax.Schedule, mask: Any) -> optax.GradientTransformation:
    def axes(path: tuple[Any, ...], leaf: Any) -> contrib.MuonDimensionNumbers | None:
        summed = SUMMED_AXES.get(str(path[-1].key))
        if summed is None:
            return None
        ends = range(1, 1 + summed), range(1 + summed, leaf.ndim)  # the first axis, the layers', is neither
        return contrib.MuonDimensionNumbers(*map(tuple, ends))

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: "adamw" if axes(path, leaf) is None else "muon", params
        )

    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        # An orthogonal matrix has the root mean square 1 / sqrt(its longer side).
        summed = 1 + SUMMED_AXES[str(path[-1].key)]
        longer = max(math.prod(update.shape[1:summed]), math.prod(update.shape[summed:]))
        return update * (MUON_RMS * math.sqrt(longer))

    of_matrices = optax.chain(
        contrib.scale_by_muon(
            beta=config.b1,
            weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(axes, params),
        ),
        optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates)),
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(rate),
    )
    of_all_else = optax.adamw(
        rate, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay, mask=mask
    )
    return optax.partition({"muon": of_matrices, "adamw": of_all_else}, labels)


def decays(params: Any, without: Sequence[str] = ()) -> Any:
    """Mark the parameters that weight decay applies to: all but norm scales, biases, DoRA's norms, and those named.

    Args:
        params: The parameter tree.
        without: Patterns of dotted names, as a shell matches file names.

    Example:
        >>> decays({"norm": {"scale": 1}, "embed": 2, "head": 3}, without=["emb*"])
        {'embed': False, 'head': True, 'norm': {'scale': False}}
    """

    def decay(path: tuple[Any, ...], _: Any) -> bool:
        name = ".".join(str(key.key) for key in path)
        last = str(path[-1].key)
        no_matrix = last in ("scale", "magnitude") or last.endswith("bias")
        return not (no_matrix or any(fnmatch.fnmatch(name, p) for p in without))

    return jax.tree_util.tree_map_with_path(decay, params)
