"""The wording by which replies, labels, closing words and placeholders are known, from ``phrases.yaml``."""

import functools
import re
from importlib import resources
from typing import Any

_REFERENCE = re.compile(r"\{([a-z][a-z ]+)\}")


@functools.cache
def _lists() -> dict[str, Any]:
    import yaml

    text = (resources.files("datagen") / "phrases.yaml").read_text(encoding="utf-8")
    lists: dict[str, Any] = yaml.safe_load(text)
    return lists


def any_of(name: str) -> str:
    """Return a pattern that matches any phrase of a list; the phrases are patterns themselves.

    Example:
        >>> import re
        >>> re.fullmatch(any_of("generic texts"), "case reports", re.IGNORECASE) is not None
        True
    """
    pattern = f"(?:{'|'.join(_lists()[name])})"
    return _REFERENCE.sub(lambda reference: any_of(reference[1]), pattern)


def words_of_list(name: str) -> frozenset[str]:
    """Return the words of a list that holds words alone.

    Example:
        >>> "patient" in words_of_list("people of no name")
        True
    """
    return frozenset(_lists()[name].split())
