"""Detects looping text: repeated words, phrases, lines or characters, in any script, in linear time.

One measure covers them: the longest stretch in which every unit equals the one a fixed distance before it. A unit is
a word, or a character of a word too long to be one (as in scripts without spaces). The shorter what repeats, the more
often it may. The bounds lie between the loops of models and 14,883 good texts (:file:`docs/filters.md`), in which no
phrase of two words or more stands three times in a row but in one form to fill in, four times.
"""

import itertools
import re
from collections.abc import Iterator

from datagen.phrases import compiled, search

ENOUGH = ((8, 16), (6, 24), (5, 50), (4, 120), (3, 300), (2, 800))
"""Pairs: a unit may not be repeated so many times in a row if the repeats have so many bytes of letters and digits."""

ENOUGH_BARE = ((4, 13), (3, 30))
"""The same for words without a mark between them: "pain pain pain pain", but not "Push, push, push, push!"."""

QUIET = 300
"""Maximum length, in characters, of rules, dotted lines, empty cells and digits, which repeat in good text, too."""

NUCLEOTIDES = 150
"""The same for a sequence of DNA or RNA: 40 times CAG is a disease, not a loop."""

COUNTED = 60
"""Maximum number of repeats that differ only in their numbers, such as the days of a table."""

RISING, RISING_ALONE = 40, 6
"""So many numbers in a row may not rise or fall by the same step: within a text, and in a text of numbers only."""

WINDOW, POOR = 60, 8
"""Every ``WINDOW`` words must contain more than ``POOR`` different words; good text has at least 12."""

_LONGEST_WORD = 20
_MARKS = ".,;:!?*\"'()，。；：！？、"
_NUCLEOTIDES = frozenset("acgtun -")


def is_caught_in_a_loop(text: str) -> bool:
    """Say whether a stretch of the text repeats itself more often than any good text does.

    Example:
        >>> is_caught_in_a_loop("The treatment is rest " + "rest " * 20), is_caught_in_a_loop("休息，喝水。" * 9)
        (True, True)
        >>> is_caught_in_a_loop("Row, row, row your boat. " * 2), is_caught_in_a_loop("| a | b |\\n" + "-" * 99)
        (False, False)
    """
    if search("empty lines", text) or _is_poor(text.casefold().split()):
        return True
    if _counts_alone(text) or any(
        _repeats(_units(bare.split()), ENOUGH_BARE)
        for bare in compiled("bare words").findall(text.casefold())
    ):
        return True
    without_counters = compiled("counters").sub("0.", text).casefold()
    if _repeats(_units(without_counters.split()), ENOUGH):
        return True
    numbers = compiled("any number").findall(without_counters)
    return len(numbers) >= COUNTED and _counts_on(
        _units(compiled("any number").sub("0", without_counters).split())
    )


def _units(words: list[str]) -> list[str]:
    units: list[str] = []
    for word in words:
        # Chinese, Japanese, Korean and Thai words are made of few characters, or have no spaces between them.
        longest = _LONGEST_WORD if word.isascii() else 3 if word[0] >= "\u0e00" else _LONGEST_WORD // 2
        if len(word) <= longest:
            units.append(word.strip(_MARKS) or word)
        else:
            units.extend(word)
    return units


def _loops(units: list[str]) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and distance of each stretch of at least two times the same units in a row."""
    last: dict[str, int] = {}
    distance = start = 0
    for place, unit in enumerate(units):
        if not distance or units[place - distance] != unit:
            if distance and place - start >= 2 * distance:
                yield start, place, distance
            start = last.get(unit, place)
            distance = place - start
        last[unit] = place
    if distance and len(units) - start >= 2 * distance:
        yield start, len(units), distance


def _repeats(units: list[str], enough: tuple[tuple[int, int], ...]) -> bool:
    return len(set(units)) < len(units) and any(
        _is_enough(units[start:end], distance, enough) for start, end, distance in _loops(units)
    )


def _is_enough(stretch: list[str], distance: int, bounds: tuple[tuple[int, int], ...]) -> bool:
    unit = " ".join(stretch[:distance])
    times = len(stretch) // distance
    # A list may give the same dose for each day.
    if "0" in stretch[:distance] and len(compiled("any letters").findall(unit)) < 2 and times < COUNTED // 3:
        return False
    size = sum(map(len, stretch))
    if not search("any letters", unit):
        return size >= QUIET
    if _NUCLEOTIDES.issuperset(unit):
        return size >= NUCLEOTIDES
    said = len("".join(compiled("letters and digits").findall(unit)).encode()) * times
    return any(times >= least and said >= enough for least, enough in bounds)


def _counts_alone(text: str) -> bool:
    """Say whether numbers and nothing else follow each other by the same step: 1 2 3 4 ..."""
    least = RISING if search("any letters", text) else RISING_ALONE
    for row in compiled("row of numbers").findall(text):
        numbers = [int(number) for number in re.findall(r"\d+", row)]
        run, step = 1, 0
        for before, number in itertools.pairwise(numbers):
            run = run + 1 if number - before == step else 2
            step = number - before
            if step and run >= least and (least == RISING or abs(step) <= 2):
                return True
    return False


def _counts_on(units: list[str]) -> bool:
    return any(
        end - start >= COUNTED * distance and search("any letters", " ".join(units[start : start + distance]))
        for start, end, distance in _loops(units)
    )


def _is_poor(words: list[str]) -> bool:
    if len(words) < WINDOW:
        return False
    parts = compiled("letters and digits")
    named = [word if word.isalnum() else "".join(parts.findall(word)) for word in words]
    named = [name for name in named if name]
    windows = (set(named[at : at + WINDOW]) for at in range(0, len(named) - WINDOW + 1, WINDOW // 4))
    return any(len(window) <= POOR and any(map(compiled("any letters").search, window)) for window in windows)
