"""The word lists of ``words.yaml`` and the patterns of ``patterns.yaml``, in which they are named."""

import functools
import re

from datagen.phrases import expand, read_table
from datagen.privacy.spelling import LETTER, UPPER, plain

_LISTS: dict[str, str] = read_table("datagen.privacy", "words.yaml")
_PATTERNS = read_table("datagen.privacy", "patterns.yaml")
_CLASSES = {"upper": UPPER, "letter": LETTER}


def _words(name: str) -> frozenset[str]:
    return frozenset(word.strip() for word in _LISTS[name].split(","))


@functools.cache
def part(name: str) -> str:
    """Return a part of the patterns, or one of a list's words, in which a space stands for any single space."""
    if name in _CLASSES:
        return _CLASSES[name]
    if name in _LISTS:
        words = sorted((plain(word).text for word in _words(name)), key=lambda word: (-len(word), word))
        return "(?:" + "|".join(map(re.escape, words)) + ")"
    return regex(_PATTERNS["parts"][name])


def regex(text: str) -> str:
    """Return a pattern with its parts in it, spelt plainly as the texts are that it reads."""
    return expand(plain(text).text, part)


@functools.cache
def compiled(name: str) -> re.Pattern[str]:
    """Compile a part of the patterns."""
    return re.compile(part(name))


def search(name: str, text: str) -> re.Match[str] | None:
    """Search a text for a part of the patterns."""
    return compiled(name).search(text)


STATES = _words("states")
COUNTRIES = _words("countries")
GIVEN_NAMES = _words("given names")
NOT_NAMES = _words("not names")
OWNED_NOUNS = _words("owned nouns")
_ORDINARY = frozenset(word.casefold() for word in NOT_NAMES) | _words("ordinary")
_SURNAMES_TOO = _words("surnames too")


@functools.lru_cache(1 << 14)
def is_ordinary(word: str) -> bool:
    """Say whether a capitalised word is one of everyday or clinical English, in any case of letters.

    Example:
        >>> is_ordinary("STABLE"), is_ordinary("Metformin"), is_ordinary("Well-Known"), is_ordinary("Okafor")
        (True, True, False, False)
    """
    word = word.casefold()
    parts = word.split("-")
    if len(parts) > 1:
        return word in _ORDINARY or all(map(is_ordinary, parts))
    return (
        word in _ORDINARY
        or word.removesuffix("s") in _ORDINARY
        or bool(search("end of a clinical term", word))
    )


def is_condition(word: str) -> bool:
    """Say whether a word ends as adjectives and words for states do.

    Example:
        >>> is_condition("Relapsing"), is_condition("UNSTABLE"), is_condition("Okafor")
        (True, True, False)
    """
    return bool(search("end of a state", word.casefold()))


def is_surname_too(word: str) -> bool:
    """Say whether an ordinary word is a common surname."""
    return word in _SURNAMES_TOO


def is_owned(after: str, words: int = 1) -> bool:
    """Say whether a name goes on to be that of a disease, a sign, a tool or an institution.

    Args:
        after: The text behind the name.
        words: Among how many of its words to look for the noun.

    Example:
        >>> is_owned("'s disease is rare"), is_owned(" syndromes"), is_owned(" came back")
        (True, True, False)
    """
    following = after[:60].replace("’", "'").lstrip().removeprefix("'s").replace("-", " ").split()
    stripped = [word.strip('.,;:?!()"').lower() for word in following[:words]]
    return any(word in OWNED_NOUNS or word.removesuffix("s") in OWNED_NOUNS for word in stripped)
