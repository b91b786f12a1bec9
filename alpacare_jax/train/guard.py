"""The guard against spikes: stops at or skips a gradient that is not finite or far larger than earlier ones."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from datagen.configuration import Range, check

GuardState = dict[str, jax.Array]
"""``norms`` [window] of the last steps taken, ``taken``, ``skipped``, ``in_a_row``: int32 counts."""

FIRST = 8
"""Steps taken before a norm can be called large."""


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """Settings of the guard.

    Args:
        action: What happens to a step whose loss or gradient is not finite, or whose gradient norm is a spike: "stop"
            ends the run and names step and rows, "skip" leaves parameters and optimiser as they were and goes on.
        factor: A norm above this many times the median of the last steps' is a spike; 0 for none. Sensible: 10.
        window: Over how many of the last steps the median is taken.
        patience: Steps skipped in a row after which the run stops.
    """

    action: Annotated[str, ("stop", "skip")] = "stop"
    factor: Annotated[float, Range(1, 1_000_000_000, above=True, beside=0)] = 0.0
    window: Annotated[int, Range(FIRST, 65_536)] = 64
    patience: Annotated[int, Range(1, 1_000_000_000)] = 5

    def __post_init__(self) -> None:
        check(self, "train.guard")

    @property
    def on(self) -> bool:
        """Whether steps are judged on the device; a loss that is not finite stops a run in any case."""
        return self.action == "skip" or self.factor > 0

    def start(self, before: GuardState | None = None) -> GuardState:
        """Return the state before the first step, or after one of another window: norms anew, counts go on."""
        counts = {name: jnp.int32(0) for name in ("taken", "skipped", "in_a_row")}
        if before is not None:
            counts |= {name: before[name] for name in ("skipped", "in_a_row")}
        return {"norms": jnp.full((self.window,), jnp.inf, jnp.float32), **counts}

    def is_sound(self, state: GuardState, loss: jax.Array, norm: jax.Array) -> jax.Array:
        """Say whether a step's loss and gradient norm are finite and no spike."""
        sound = jnp.isfinite(loss) & jnp.isfinite(norm)
        if self.factor:
            spike = (state["taken"] >= FIRST) & (norm > self.factor * self.median(state))
            sound = sound & ~spike
        return sound

    def median(self, state: GuardState) -> jax.Array:
        """Return the median of the last norms; of an even number of them the lower middle one."""
        known = jnp.minimum(state["taken"], self.window)
        return jnp.sort(state["norms"])[jnp.maximum(known - 1, 0) // 2]

    def after(self, state: GuardState, sound: jax.Array, norm: jax.Array) -> GuardState:
        """Return the state after a step; only sound norms are remembered."""
        at = state["taken"] % self.window
        norms = state["norms"].at[at].set(jnp.where(sound, norm, state["norms"][at]))
        good, bad = sound.astype(jnp.int32), (~sound).astype(jnp.int32)
        return {
            "norms": norms,
            "taken": state["taken"] + good,
            "skipped": state["skipped"] + bad,
            "in_a_row": (state["in_a_row"] + 1) * bad,
        }
