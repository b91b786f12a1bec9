"""The errors a user can cause, with those that only the training side knows."""

from datagen.errors import ConfigError, DataError, ServiceError, UserError, did_you_mean, nearest

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "ServiceError",
    "ShardingError",
    "TrainingError",
    "UserError",
    "causes",
    "did_you_mean",
    "is_full",
    "nearest",
]


class ShardingError(UserError):
    """A mesh does not fit the devices, or an array does not divide over the mesh."""


class CheckpointError(UserError):
    """A checkpoint is missing, broken, or of another architecture."""


class ConversionError(UserError):
    """Weights of a foreign format do not match the model they claim to hold."""


class TrainingError(UserError):
    """Training cannot go on: a loss that is not finite, or data that never arrives."""


FULL = ("No space left", "File too large", "Disk quota exceeded", "os_error_code='28'", "os_error_code='27'")
FULL_NUMBERS = (27, 28, 122)  # EFBIG, ENOSPC, EDQUOT


def is_full(error: BaseException) -> bool:
    """Return whether a failure, or what caused it, is a disk or a quota that is full."""
    return any(
        getattr(cause, "errno", None) in FULL_NUMBERS or any(sign in str(cause) for sign in FULL)
        for cause in causes(error)
    )


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception followed by what it was raised from, down to the root."""
    found = [error]
    while found[-1].__cause__ is not None:
        found.append(found[-1].__cause__)
    return found
