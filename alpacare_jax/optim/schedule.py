"""The learning rate by step."""

import math

import optax

from alpacare_jax.optim.settings import SCHEDULES, OptimConfig

__all__ = ["SCHEDULES", "make_schedule"]


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Return learning rate by step, counted from 0: the first step of a warm-up has rate 0, as in transformers.

    Args:
        config: The optimiser's settings.
        steps: Steps of the whole run.

    Example:
        >>> rate = make_schedule(OptimConfig(schedule="wsd", learning_rate=1.0, warmup_ratio=0.1), steps=100)
        >>> [float(rate(step)) for step in (0, 5, 10, 90, 95)]
        [0.0, 0.5, 1.0, 1.0, 0.5]
    """
    warmup = math.ceil(steps * config.warmup_ratio)
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    rest = max(1, steps - warmup)
    after = _after_warmup(config, rest, max(1, round(steps * config.decay_ratio)))
    return optax.join_schedules([rise, after], [warmup]) if warmup else after


def _after_warmup(config: OptimConfig, steps: int, last: int) -> optax.Schedule:
    """Return the rate after warm-up; of "wsd" it falls over the ``last`` of these steps."""
    rate = config.learning_rate
    match config.schedule:
        case "cosine":
            return optax.cosine_decay_schedule(rate, steps)
        case "linear":
            return optax.linear_schedule(rate, 0.0, steps)
        case "wsd":
            last = min(last, steps)
            return optax.linear_schedule(rate, 0.0, last, transition_begin=steps - last)
        case _:
            return optax.constant_schedule(rate)
