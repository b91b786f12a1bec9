"""Personal identifiers in texts: found by kind and place, reported, or masked so that the text stays readable.

The kinds follow HIPAA's Safe Harbor list. Patterns find what has a form: numbers with their labels, dates, addresses,
names with a title or a common given name. A name or place that only the context reveals needs a model; a detector of
the extra ``privacy`` can complement the patterns (:mod:`datagen.privacy.detector`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, get_args

from datagen.privacy.patterns import PATTERNS, Pattern
from datagen.privacy.spelling import LETTER, plain, whole_words
from datagen.privacy.tables import in_tables
from datagen.privacy.words import STATES, is_ordinary, is_owned

Policy = Literal["off", "report", "drop", "mask"]
POLICIES: tuple[str, ...] = get_args(Policy)
_LABELLED = [pattern for pattern in PATTERNS if pattern.labelled]
KINDS = tuple(dict.fromkeys(pattern.kind for pattern in PATTERNS))
_DIGITS = re.compile(r"\d+")
_NEAR = 120
_NAME_WORD = re.compile(rf"(?<![^\W_]){LETTER}{{3,}}(?![^\W_])")
MASK = re.compile(r"\[(" + "|".join(KINDS) + r")\]")


@dataclasses.dataclass(frozen=True, order=True)
class Hit:
    """An identifier in a text: ``text[start:end]``, and its kind, one of :data:`KINDS`."""

    start: int
    end: int
    kind: str
    text: str


Detector = Callable[[str], Iterable[Hit]]


def find(text: str, detector: Detector | None = None) -> list[Hit]:
    """Find the identifiers in a text.

    Args:
        text: Any text.
        detector: Finds further identifiers; see :mod:`datagen.privacy.detector`.

    Returns:
        Hits in the order of the text, none overlapping another.

    Example:
        >>> [(hit.kind, hit.text) for hit in find("Mr. Okafor, seen 3 May 2021, BP 120/80, MRN 88213.")]
        [('NAME', 'Okafor'), ('DATE', '3 May 2021'), ('RECORD', '88213')]
    """
    said = plain(text)
    found = _matches(said.text)
    found = _without_overlaps(found + in_tables(said.text, partial(_matches, patterns=_LABELLED)))
    found = _without_overlaps(found + _repeated_names(said.text, found))
    spans = [(*said.span(start, end), kind) for start, end, kind in found]
    if detector is not None:
        spans += [(hit.start, hit.end, hit.kind) for hit in detector(text)]
    widened = [(*whole_words(text, start, end), kind) for start, end, kind in spans]
    return [Hit(start, end, kind, text[start:end]) for start, end, kind in _without_overlaps(widened)]


def mask(text: str, hits: Sequence[Hit]) -> str:
    """Put ``[KIND]`` in the place of every hit.

    Example:
        >>> text = "Call Mrs. Lind on 2 June."
        >>> mask(text, find(text))
        'Call Mrs. [NAME] on [DATE].'
    """
    parts, at = [], 0
    for hit in sorted(hits):
        parts += [text[at : hit.start], f"[{hit.kind}]"]
        at = hit.end
    return "".join([*parts, text[at:]])


def _matches(text: str, patterns: Sequence[Pattern] = PATTERNS) -> list[tuple[int, int, str]]:
    """Find what the patterns match in a text in plain spelling."""
    lower, near_digits = text.lower(), _near_digits(text)
    return _without_overlaps(
        (*span, pattern.kind)
        for pattern in patterns
        if not pattern.needs or any(word in lower for word in pattern.needs)
        for window in (near_digits if pattern.digits else [(0, len(text))])
        for span in pattern.spans(text, *window)
    )


def _near_digits(text: str) -> list[tuple[int, int]]:
    """Return the parts of a text that are near digits."""
    parts: list[tuple[int, int]] = []
    for digits in _DIGITS.finditer(text):
        start, end = max(0, digits.start() - _NEAR), min(len(text), digits.end() + _NEAR)
        if parts and start <= parts[-1][1]:
            start = parts.pop()[0]
        parts.append((start, end))
    return parts


def _without_overlaps(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join spans that overlap; the one that begins first, of these the longest, of these the first, says the kind."""
    kept: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]), kept[-1][2])
        else:
            kept.append((start, end, kind))
    return kept


def _repeated_names(text: str, found: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Find the other places where a word of a name that was found once stands alone."""
    names = {
        word
        for start, end, kind in found
        if kind == "NAME"
        for word in _NAME_WORD.findall(text[start:end])
        if word[0].isupper() and not is_ordinary(word) and word not in STATES
    }
    # Headers write in capitals what the text below them does not.
    names |= {word.title() for word in names if word.isupper()}
    if not names:
        return []
    places = [match for match in _NAME_WORD.finditer(text) if match[0] in names]
    # Who gave a disease its name is meant by most of the places where the name stands alone.
    owners = {match[0] for match in places if is_owned(text[match.end() : match.end() + 60])}
    return [(*match.span(), "NAME") for match in places if match[0] not in owners]
