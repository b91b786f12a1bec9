"""The optimiser: AdamW behind gradient clipping, with warm-up and a cosine or linear decay."""

import dataclasses
import math
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError

SCHEDULES = ("cosine", "linear", "constant")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimiser; the defaults are AlpaCare's (paper, section 4 and published scripts).

    Args:
        learning_rate: Peak learning rate.
        schedule: Decay after warm-up: "cosine" or "linear" to zero at the last step, or "constant".
        warmup_ratio: Share of all steps over which the rate rises linearly from zero.
        weight_decay: Decoupled weight decay, applied to matrices and tables, not to norms and biases.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        clip_norm: Global gradient norm above which gradients are scaled down; 0 turns clipping off.
    """

    learning_rate: float = 2e-5
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if self.schedule not in SCHEDULES:
            problems.append(f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup_ratio <= 1:
            problems.append(f"warmup_ratio {self.warmup_ratio} is not within 0 and 1")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.clip_norm < 0:
            problems.append("learning_rate must be positive, weight_decay and clip_norm not negative")
        if problems:
            raise ConfigError(
                "the optimiser's settings are not valid", where="optim", found="; ".join(problems)
            )


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Return learning rate by step, counted from 0: the first step of a warm-up has rate 0, as in transformers.

    Args:
        config: The optimiser's settings.
        steps: Steps of the whole run.
    """
    warmup = math.ceil(steps * config.warmup_ratio)
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    rest = max(1, steps - warmup)
    fall: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, rest),
        "constant": optax.constant_schedule(config.learning_rate),
    }
    return optax.join_schedules([rise, fall[config.schedule]], [warmup]) if warmup else fall[config.schedule]


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Return the gradient transformation for a run of a number of steps."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    decay = optax.adamw(
        make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decays,
    )
    return optax.chain(clip, decay)


def decays(params: Any) -> Any:
    """Mark the parameters that weight decay applies to: all but norm scales and biases."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        name = path[-1].key
        return name != "scale" and not name.endswith("bias")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def state_shardings(optimizer: optax.GradientTransformation, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Return the shardings of the optimiser's state: moments lie where their parameters lie.

    Args:
        optimizer: The gradient transformation.
        params: Abstract parameters.
        shardings: The parameters' shardings, the same tree.
        mesh: The mesh on which everything else is replicated.
    """
    abstract = jax.eval_shape(optimizer.init, params)
    return optax.tree.map_params(
        optimizer,
        lambda _, where: where,
        abstract,
        shardings,
        transform_non_params=lambda _: sharding.replicated(mesh),
    )
