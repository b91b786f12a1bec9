"""How far a name goes: particles, initials, words in capitals or with one, a suffix; nothing that is no name.

A name is found by its context (:mod:`datagen.privacy.names`). It ends before the first word that
is one of everyday or clinical English, before a label, and at the end of a line unless the sentence goes on with it.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator

from datagen.privacy.spelling import bare
from datagen.privacy.words import (
    GIVEN_NAMES,
    compiled,
    is_condition,
    is_ordinary,
    is_owned,
    is_surname_too,
    search,
)

_WRAPPED = 50
_WORDS = 4


@dataclasses.dataclass(frozen=True)
class Name:
    """A name that was read: its place and its words, without initials and particles."""

    start: int
    end: int
    words: tuple[str, ...]

    @property
    def is_given(self) -> bool:
        """Whether one of its words is a common given name."""
        return any(is_given(word) for word in self.words)


@functools.lru_cache(1 << 14)
def is_given(word: str) -> bool:
    """Say whether a word, also in capitals, is a common given name or begins with one and a hyphen."""
    word = (word.title() if word.isupper() else word).partition("-")[0]
    return word in GIVEN_NAMES or (not word.isascii() and bare(word) in GIVEN_NAMES)


def read_name(text: str, at: int, titled: bool = False) -> Name | None:
    """Read the name that begins at a position of a text in plain spelling, or return None.

    Args:
        text: A text in plain spelling.
        at: The place.
        titled: Whether a title stands before it, so that "Young" and "May" are names.

    Example:
        >>> read_name("Mr. Jan van der Berg Jr. Plan: rest", 4)
        Name(start=4, end=24, words=('Jan', 'Berg'))
        >>> read_name("Dr. Appointment at noon", 4) is None
        True
    """
    words: list[str] = []
    end = at
    for token, gap in _tokens(text, at):
        if token.lastgroup != "word":
            continue
        word = token[0]
        first = not words
        named = titled if first else is_given(words[-1])
        if (
            _is_no_part(word, words, named)
            or compiled("label behind").match(text, token.end())
            or not _fits(words, word)
        ):
            break
        line_end = token.start() - len(gap)
        if "\n" in gap and not first and not _is_wrapped(text, line_end, token.end(), titled and named):
            break
        words.append(word)
        end = token.end()
    if not words or compiled("dose").match(text, end):
        return None
    suffix = compiled("suffix behind").match(text, end)
    return Name(at, suffix.end() if suffix else end, tuple(words))


def read_last_first(text: str, at: int) -> Name | None:
    """Read "SMITH, JOHN A." and the like."""
    last = read_name(text, at)
    comma = last and compiled("comma").match(text, last.end)
    first = comma and read_name(text, comma.end())
    if last is None or not first or "\n" in text[last.end : first.start] or is_ordinary(last.words[0]):
        return None
    initial = compiled("last initial").match(text, first.end)
    return Name(at, initial.end() if initial else first.end, last.words + first.words)


def read_small_name(text: str, at: int, given: bool = False) -> Name | None:
    """Read a name in small letters, as in chats: a word that is not everyday English, two if the first is given.

    Args:
        text: A text in plain spelling.
        at: The place.
        given: Whether it must begin with a common given name.

    Example:
        >>> read_small_name("dr. o'neil came", 4)
        Name(start=4, end=10, words=("o'neil",))
        >>> read_small_name("the dr. said so", 8) is None
        True
    """
    first = compiled("small word").match(text, at)
    if first is None or is_ordinary(first[0]) or (given and not is_given(first[0].title())):
        return None
    if not is_given(first[0].title()):
        return None if is_condition(first[0]) else Name(at, first.end(), (first[0],))
    second = (
        compiled("small word").match(text, first.end() + 1) if text.startswith(" ", first.end()) else None
    )
    if second is None or is_ordinary(second[0]) or is_condition(second[0]):
        return Name(at, first.end(), (first[0].title(),))
    return Name(at, second.end(), (first[0].title(), second[0]))


def is_owned_name(text: str, name: Name, words: int = 1) -> bool:
    """Say whether a name goes on to be that of a disease, a sign, a tool or an institution."""
    return is_owned(text[name.end : name.end + 60], words)


def _tokens(text: str, at: int) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the parts of a name, each with the space before it."""
    gap = ""
    for _ in range(2 * _WORDS):
        token = compiled("part of a name").match(text, at)
        if token is None:
            return
        yield token, gap
        at = token.end()
        between = compiled("gap").match(text, at)
        if between is None and token.lastgroup == "word":
            return
        gap = between[0] if between else ""
        at = between.end() if between else at


def _is_no_part(word: str, words: list[str], titled: bool) -> bool:
    first = not words
    if titled and words and not words[-1].isascii() and word.istitle():  # "Nguyễn Văn An"
        return False
    if titled and is_surname_too(word.title() if word.isupper() and first else word):
        return False
    # In a line of capitals, verbs have them too.
    verb = not first and search("verb in capitals", word)
    return is_ordinary(word) or (word.isupper() and (is_abbreviation(word) or bool(verb)))


def is_abbreviation(word: str) -> bool:
    """Say whether capitals cannot be spoken as a word."""
    return len(word) > 2 and not re.search("[AEIOUYÀ-ÖØ-Þ]", word) and word.isascii()


def _fits(words: list[str], word: str) -> bool:
    """Refuse capitals behind a word in small letters, unless that is a given name: "Mr. Smith COPD"."""
    if len(words) >= _WORDS:
        return False
    if not words or words[-1].isupper() == word.isupper():
        return True
    return word.isupper() and is_given(words[-1]) and len(word) > 3


def _is_wrapped(text: str, end_of_line: int, end: int, expected: bool) -> bool:
    """Say whether a name goes on behind the end of a line: the line is full, or a surname must follow."""
    full = "\n" not in text[max(0, end_of_line - _WRAPPED) : end_of_line] and end_of_line >= _WRAPPED
    return bool(compiled("sentence goes on").match(text, end) and full) or bool(
        expected and compiled("goes on or ends").match(text, end)
    )
