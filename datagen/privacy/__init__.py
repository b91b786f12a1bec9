"""Personal identifiers in texts: found by kind and place, reported, or masked so that the text stays readable.

The kinds follow HIPAA's Safe Harbor list. Patterns find what has a form: numbers with their labels, dates, addresses,
names with a title or a common given name. A name or place that only the sense gives away needs a model; a detector of
the extra ``privacy`` can be put beside the patterns (:mod:`datagen.privacy.detector`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from datagen.privacy.dates import DATE_PATTERNS
from datagen.privacy.names import NAME_PATTERNS, PLACE_PATTERNS
from datagen.privacy.numbers import NUMBER_PATTERNS
from datagen.privacy.words import NOT_NAMES, STATES, is_owned

Policy = Literal["off", "report", "drop", "mask"]
POLICIES: tuple[str, ...] = get_args(Policy)
PATTERNS = (*NUMBER_PATTERNS, *DATE_PATTERNS, *NAME_PATTERNS, *PLACE_PATTERNS)
KINDS = tuple(dict.fromkeys(pattern.kind for pattern in PATTERNS))
_DIGIT = re.compile(r"\d")
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
        detector: Finds more of them; see :mod:`datagen.privacy.detector`.

    Returns:
        Hits in the order of the text, none overlapping another.

    Example:
        >>> [(hit.kind, hit.text) for hit in find("Mr. Okafor, seen 3 May 2021, BP 120/80, MRN 88213.")]
        [('NAME', 'Okafor'), ('DATE', '3 May 2021'), ('RECORD', '88213')]
    """
    lower, digits = text.lower(), len(_DIGIT.findall(text))
    hits: list[tuple[Hit, int]] = []
    for rank, pattern in enumerate(PATTERNS):
        if digits < pattern.digits or (pattern.needs and not any(word in lower for word in pattern.needs)):
            continue
        for match in pattern.regex.finditer(text):
            if pattern.check is None or pattern.check(match):
                start, end = match.span("v") if "v" in pattern.regex.groupindex else match.span()
                hits.append((Hit(start, end, pattern.kind, text[start:end]), rank))
    if detector is not None:
        hits += [(hit, len(PATTERNS)) for hit in detector(text)]
    found = _without_overlaps(hits)
    repeats = [(hit, 0) for hit in _repeated_names(text, found)]
    return _without_overlaps([(hit, 0) for hit in found] + repeats) if repeats else found


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


def _without_overlaps(hits: Iterable[tuple[Hit, int]]) -> list[Hit]:
    """Keep, of hits that overlap, the one that begins first; of these the longest; of these the one of lowest rank."""
    kept: list[Hit] = []
    for hit, _ in sorted(hits, key=lambda pair: (pair[0].start, -pair[0].end, pair[1])):
        if not kept or hit.start >= kept[-1].end:
            kept.append(hit)
    return kept


def _repeated_names(text: str, hits: Sequence[Hit]) -> list[Hit]:
    """Find the other places where a name that was found once stands alone."""
    words = {word for hit in hits if hit.kind == "NAME" for word in re.findall(r"[^\W\d_]{3,}", hit.text)}
    words = {word for word in words if word[0].isupper() and word not in NOT_NAMES | STATES}
    # Who gave a disease its name is meant by most of the places where the name stands alone.
    words = {
        word
        for word in words
        if not any(is_owned(text[m.end() :]) for m in re.finditer(rf"\b{word}\b", text))
    }
    if not words:
        return []
    alternatives = "|".join(sorted(words))
    return [
        Hit(match.start(), match.end(), "NAME", match[0])
        for match in re.finditer(rf"\b(?:{alternatives})\b", text)
    ]
