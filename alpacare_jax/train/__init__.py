"""Training: the trainer, its configuration, the training step, and callbacks."""

from alpacare_jax.train import callbacks
from alpacare_jax.train.config import LoRA, RunConfig, TrainConfig, load_config
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.recorder import Throughput
from alpacare_jax.train.settings import LoopConfig, Progress, Schedule
from alpacare_jax.train.step import StepFunction, TrainState, TrainStep
from alpacare_jax.train.trainer import Trainer

__all__ = [
    "LoRA",
    "LoopConfig",
    "Profile",
    "Progress",
    "RunConfig",
    "Schedule",
    "StepFunction",
    "Throughput",
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "Trainer",
    "callbacks",
    "load_config",
]
