"""Training: the step, the loop around it, and where its figures go."""

from alpacare_jax.train.loop import Checkpoints, Run, train
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.recorder import Yardstick
from alpacare_jax.train.settings import Progress, Schedule, TrainConfig
from alpacare_jax.train.sinks import JsonlSink, TensorBoardSink
from alpacare_jax.train.step import Step, Stepper, TrainState

__all__ = [
    "Checkpoints",
    "JsonlSink",
    "Profile",
    "Progress",
    "Run",
    "Schedule",
    "Step",
    "Stepper",
    "TensorBoardSink",
    "TrainConfig",
    "TrainState",
    "Yardstick",
    "train",
]
