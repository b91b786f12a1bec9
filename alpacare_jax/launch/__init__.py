"""Starting a verb on many devices: processes on this machine, workers of a TPU VM slice, a Slurm job."""

from collections.abc import Sequence

from alpacare_jax.errors import ConfigError, did_you_mean


def check_verb(arguments: list[str], verbs: Sequence[str]) -> list[str]:
    """Return a command that begins with one of the verbs that can run elsewhere.

    Raises:
        ConfigError: There is no such verb.
    """
    if arguments[0] not in verbs:
        raise ConfigError(
            "unknown verb",
            where="the command after --",
            found=arguments[0],
            expected=", ".join(verbs),
            remedy=did_you_mean(arguments[0], verbs),
        )
    return arguments
