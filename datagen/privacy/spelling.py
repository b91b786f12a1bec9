"""One spelling for the patterns: letters without loose combining marks, plain spaces, hyphens, apostrophes and digits.

Patterns are written for the plain spelling alone. A place in it is a place in the text as it was written, so that a
mask takes all marks of a letter with it.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence


def _characters(categories: Iterable[str], last: int = 0xFFFF) -> list[str]:
    return [chr(code) for code in range(last + 1) if unicodedata.category(chr(code)) in categories]


def _class(characters: Iterable[str]) -> str:
    """Write characters as the inside of a class of a regular expression, runs of them as ranges."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)


UPPER = f"[{_class(_characters(('Lu', 'Lt')))}]"
LETTER = r"[^\W\d_]"
# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"

# Format characters are soft hyphens, joiners, zero-width spaces and marks of direction.
_UNSEEN = _characters(("Mn", "Mc", "Me", "Cf")) + [chr(code) for code in range(0xE0100, 0xE01F0)]
_CLUSTER = re.compile(rf".?[{_class(_UNSEEN)}]+", re.DOTALL)
_IN_WORD = re.compile(rf"[^\W_]|[{_class(_UNSEEN)}]")
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_SAME = str.maketrans(
    dict.fromkeys(_characters(("Zs",)), " ")
    | dict.fromkeys("\u2028\u2029\x85", "\n")
    | dict.fromkeys("‐‑‒–−﹣﹘⁃", "-")
    | dict.fromkeys("‘’‛ʼʻʹ′`´＇", "'")
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {digit: str(unicodedata.decimal(digit)) for digit in _characters(("Nd",)) if not digit.isascii()}
)
_LONGEST_WORD = 100


@dataclasses.dataclass(frozen=True)
class Plain:
    """A text in plain spelling, and where its characters stand in the text as it was written."""

    text: str
    places: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the written text for one of the plain text."""
        return self.places[start], self.places[end]


def plain(text: str) -> Plain:
    """Spell a text plainly.

    Example:
        >>> plain("Nguye\u0302\u0303n\u00a0O\u2019Neil\u2011Soft\u00adly").text
        "Nguyễn O'Neil-Softly"
    """
    if text.isascii():
        return Plain(text, range(len(text) + 1))
    text = text.translate(_SAME)
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for cluster in _CLUSTER.finditer(text):
        parts.append(text[at : cluster.start()])
        places.extend(range(at, cluster.start()))
        base = unicodedata.normalize("NFC", cluster[0])[0]
        if not unicodedata.category(base).startswith(("M", "Cf")):
            parts.append(base)
            places.append(cluster.start())
        at = cluster.end()
    if not at:
        return Plain(text, range(len(text) + 1))
    return Plain("".join([*parts, text[at:]]), [*places, *range(at, len(text) + 1)])


def bare(word: str) -> str:
    """Take the marks off the letters of a word.

    Example:
        >>> bare("Mária")
        'Maria'
    """
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span that begins or ends inside a word; a word includes its combining marks.

    Example:
        >>> whole_words("Mr. Nguyễn", 4, 8)
        (4, 10)
    """
    first, last = max(0, start - _LONGEST_WORD), min(len(text), end + _LONGEST_WORD)
    while start > first and _is_inside(text, start):
        start -= 1
    while end < last and _is_inside(text, end):
        end += 1
    return start, end


def _is_inside(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    if _IS_UNSPACED.match(before) or _IS_UNSPACED.match(after):
        return unicodedata.category(after).startswith(("M", "Cf"))
    return bool(_IN_WORD.match(before) and _IN_WORD.match(after))
