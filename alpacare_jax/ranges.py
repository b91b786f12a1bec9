"""What a setting may be: declared in the annotation of its field, checked in one place."""

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import Any

from alpacare_jax.errors import ConfigError, UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may have; NaN is in no range.

    Args:
        low: The smallest.
        high: The largest.
        above: ``low`` itself is not among them.
        below: ``high`` itself is not among them.
        beside: One more number, which means something of its own.

    Example:
        >>> str(Range(0, 1, below=True)), 1.0 in Range(0, 1, below=True), -1 in Range(1, 8, beside=-1)
        ('at least 0 and below 1', False, True)
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    beside: float | None = None

    def __contains__(self, value: Any) -> bool:
        low = self.low < value if self.above else self.low <= value
        high = value < self.high if self.below else value <= self.high
        return (low and high) or value == self.beside

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:,}"
        beside = "" if self.beside is None else f", or {self.beside:,}"
        high = f" and {'below' if self.below else 'at most'} {self.high:,}" if self.high < math.inf else ""
        return f"{low}{high}{beside}"


def declared(kind: type) -> dict[str, Range | tuple[str, ...]]:
    """Return what the fields of a class may be: a :class:`Range`, or a tuple of names, as for a field of several.

    They stand in the annotation: ``rank: Annotated[int, Range(1, 65_536)]``, ``kind: Annotated[str, KINDS]``.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def check_settings(
    settings: Any, where: str, problems: Iterable[str] = (), *, error: type[UserError] = ConfigError
) -> None:
    """Check every field of a dataclass against what is declared; None is always allowed.

    Args:
        settings: The dataclass.
        where: The key that holds it, after a file or not (``FILE: key``), named in errors; "" at the top.
        problems: What else is wrong with it.
        error: The kind of error to raise.

    Raises:
        UserError: Of that kind, with all problems.
    """
    found, near, within = [], [], f"{where.rpartition(': ')[2]}." if where else ""
    for name, allowed in declared(type(settings)).items():
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else (value,):
            if each is None or each in allowed:
                continue
            if isinstance(allowed, Range):
                found.append(f"{within}{name} must be {allowed}, not {f'{each:,}'[:60]}")
            else:
                found.append(f"{within}{name}: {each!r} is not one of {', '.join(allowed)}")
                near.append(did_you_mean(each, allowed))
    if found := [*found, *problems]:
        raise error(
            "the settings are not valid",
            where=where or None,
            found="; ".join(found),
            remedy="; ".join(filter(None, near)) or None,
        )
