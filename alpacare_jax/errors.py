"""The errors a user can cause, with those that only the training side knows."""

from datagen.errors import ConfigError, DataError, ServiceError, UserError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "ServiceError",
    "ShardingError",
    "TrainingError",
    "UserError",
]


class ShardingError(UserError):
    """A mesh does not fit the devices, or an array does not divide over the mesh."""


class CheckpointError(UserError):
    """A checkpoint is missing, broken, or of another architecture."""


class ConversionError(UserError):
    """Weights of a foreign format do not match the model they claim to hold."""


class TrainingError(UserError):
    """Training cannot go on: a loss that is not finite, or data that never arrives."""
