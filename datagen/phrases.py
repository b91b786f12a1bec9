"""Loads and compiles the word lists and regular expressions of the package's ``*.yaml`` files."""

import functools
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

_REFERENCE = re.compile(r"\{([a-z][A-Za-z ]+)\}")


@functools.cache
def read_table(package: str, file: str) -> Any:
    """Return the parsed YAML file of a package."""
    import yaml

    text = (resources.files(package) / file).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def expand(pattern: str, part: Callable[[str], str]) -> str:
    """Join the lines of a pattern and replace each ``{name}`` by the pattern of that name."""
    return _REFERENCE.sub(lambda reference: part(reference[1]), pattern.replace("\n", ""))


def _phrases(name: str) -> Any:
    found = read_table("datagen.replies", "patterns.yaml").get(name)
    return found or read_table("datagen", "phrases.yaml")[name]


def any_of(name: str) -> str:
    """Return a pattern of ``phrases.yaml`` or ``replies/patterns.yaml``, or one that any pattern of a list matches.

    Example:
        >>> import re
        >>> re.fullmatch(any_of("generic texts"), "case reports", re.IGNORECASE) is not None
        True
    """
    phrases = _phrases(name)
    return expand(phrases if isinstance(phrases, str) else f"(?:{'|'.join(phrases)})", any_of)


@functools.cache
def compiled(name: str) -> re.Pattern[str]:
    """Compile a pattern, or any pattern of a list (:func:`any_of`); it ignores case unless it says ``(?-i:...)``.

    Example:
        >>> compiled("hopes").match("Espero que sirva.") is not None
        True
    """
    return re.compile(any_of(name), re.IGNORECASE)


def search(name: str, text: str, *places: int) -> re.Match[str] | None:
    """Search a text for a pattern (:func:`compiled`); ``places`` are the optional start and end."""
    return compiled(name).search(text, *places)


def words_of_list(name: str) -> frozenset[str]:
    """Return the words of a plain word list.

    Example:
        >>> "patient" in words_of_list("people of no name")
        True
    """
    return frozenset(_phrases(name).split())


def groups_of_words(name: str) -> dict[str, frozenset[str]]:
    """Return lists of words by the names of their groups.

    Example:
        >>> groups_of_words("common words")["es"] >= {"el", "los"}
        True
    """
    return {group: frozenset(words.split()) for group, words in _phrases(name).items()}
