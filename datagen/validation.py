"""Checks of settings: numbers within their bounds, words among those that are known."""

from collections.abc import Mapping, Sequence

from datagen.errors import ConfigError


def check_ranges(settings: object, bounds: Mapping[str, tuple[float, float]], group: str = "") -> None:
    """See that numbers lie within their bounds, both included; None is no number.

    Args:
        settings: What has them as attributes.
        bounds: Lowest and highest value of each.
        group: Prefix of their names in messages.

    Raises:
        ConfigError: One does not.
    """
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{group}{name} is out of range", found=value, expected=f"{low:,g} to {high:,}")


def check_known(settings: object, choices: Mapping[str, Sequence[str]]) -> None:
    """See that words are among those that are known.

    Raises:
        ConfigError: One is not.
    """
    for name, known in choices.items():
        if (value := getattr(settings, name)) not in known:
            raise ConfigError(f"{name} is not known", found=value, expected=" or ".join(known))
