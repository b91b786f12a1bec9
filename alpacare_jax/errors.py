"""The errors a user can cause, with those that only the training side knows."""

import difflib
from collections.abc import Iterable

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
    "causes",
    "did_you_mean",
    "is_full",
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


def did_you_mean(found: object, known: Iterable[str]) -> str | None:
    """Return a remedy that names the known name nearest to an unknown one, or None where none is near.

    Example:
        >>> did_you_mean("offlod", ["none", "full", "offload"])
        'did you mean offload?'
    """
    near = difflib.get_close_matches(str(found).lower(), known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else None
