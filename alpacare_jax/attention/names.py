"""The names of kernels, and their validation."""

from alpacare_jax.errors import ConfigError, did_you_mean

KERNELS = ("xla", "chunked", "splash", "cudnn", "tokamax")
"""Every kernel there is, on whatever platform it runs."""
AUTO = "auto"
"""Leaves the kernel to the platform."""
RESIDUALS = "attention_residuals"
"""What a kernel keeps for its own backward pass bears this name, for recomputation policies to save or not: the
attended values and the logarithm of each softmax's normaliser."""


def check_name(name: str, *, where: str = "compute.attention") -> None:
    """Check that a kernel of that name exists.

    Raises:
        ConfigError: It does not; the message names the nearest one that does.
    """
    known = (AUTO, *KERNELS)
    if name in known:
        return
    raise ConfigError(
        "there is no attention kernel of that name",
        where=where,
        found=name,
        expected=", ".join(known),
        remedy=did_you_mean(name, known),
    )
