"""How providers differ, from the table ``providers.yaml``."""

import functools
import re
from typing import Any

from datagen.phrases import expand, read_table

_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


def table() -> dict[str, Any]:
    """Return the whole table."""
    read: dict[str, Any] = read_table("datagen", "providers.yaml")
    return read


def names(section: str, key: str) -> tuple[str, ...]:
    """Return the words under a key of a section.

    Example:
        >>> names("usage", "total")
        ('totaltokens', 'totaltokencount')
    """
    return tuple(table()[section][key].split())


@functools.cache
def pattern(section: str, key: str) -> re.Pattern[str]:
    """Return the pattern under a key of a section.

    Example:
        >>> pattern("content", "thoughts").search("Reasoning") is not None
        True
    """
    return re.compile(table()[section][key], re.IGNORECASE)


@functools.cache
def wording(name: str) -> re.Pattern[str]:
    """Return a pattern that finds any phrase of a list under ``wording``.

    Example:
        >>> wording("credit").search("Your balance is too low") is not None
        True
    """
    return re.compile(_any_of(name), re.IGNORECASE)


def _any_of(name: str) -> str:
    return expand(f"(?:{'|'.join(table()['wording'][name])})", _any_of)


def plain(name: object) -> str:
    """Return the letters and digits of a name, in lower case.

    Example:
        >>> plain("Retry-After")
        'retryafter'
    """
    return "".join(each for each in str(name).lower() if each.isalnum())


def words_of(name: str) -> list[str]:
    """Split a name in snake_case, camelCase or kebab-case into its words.

    Example:
        >>> words_of("stopReason_max-tokens")
        ['stop', 'reason', 'max', 'tokens']
    """
    return [word.lower() for word in _BETWEEN_WORDS.split(name) if word]
