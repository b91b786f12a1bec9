"""Optimisers, their schedules, how their state is stored and where it lies."""

from alpacare_jax.optim.build import decays, make_optimizer
from alpacare_jax.optim.placement import place_state
from alpacare_jax.optim.rounding import apply_updates
from alpacare_jax.optim.schedule import SCHEDULES, make_schedule
from alpacare_jax.optim.settings import OPTIMIZERS, OptimConfig
from alpacare_jax.optim.storage import Blocks, stored

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Blocks",
    "OptimConfig",
    "apply_updates",
    "decays",
    "make_optimizer",
    "make_schedule",
    "place_state",
    "stored",
]
