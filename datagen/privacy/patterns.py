"""What identifiers look like: the patterns of ``patterns.yaml`` and the labels of ``labels.yaml``, compiled."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from datagen.phrases import read_table
from datagen.privacy.checks import CHECKS, digits_of, is_labelled, is_labelled_phone
from datagen.privacy.names import READERS
from datagen.privacy.spelling import LETTER, UNSPACED, plain
from datagen.privacy.words import part, regex

Check = Callable[[re.Match[str]], bool]
Read = Callable[[re.Match[str]], Iterable[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way to recognise one kind of identifier in a text in plain spelling (:mod:`datagen.privacy.spelling`).

    Attributes:
        kind: One of HIPAA's Safe Harbor list (45 CFR 164.514(b)(2)).
        regex: Matches the identifier in the group ``v``, or as a whole where there is no such group.
        check: Sees the match and may refuse it: a checksum, a calendar, the words around it.
        needs: Words, in lower case, of which a text must hold one to be searched.
        digits: Whether to search only near digits. This and ``needs`` save most of the time.
        labelled: Whether it needs a label, such as the heading of a table's column.
        read: For what no regular expression bounds well: sees the match, and yields the spans of the identifiers.
    """

    kind: str
    regex: str
    check: Check | None = None
    needs: tuple[str, ...] = ()
    digits: bool = False
    labelled: bool = False
    read: Read | None = None

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The regular expression, compiled when it is first needed."""
        return re.compile(self.regex)

    def spans(self, text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        """Yield where identifiers of this kind stand between two places of a text."""
        for match in self.compiled.finditer(text, start, end):
            if self.read is not None:
                yield from self.read(match)
            elif self.check is None or self.check(match):
                yield match.span("v") if match.groupdict().get("v") else match.span()


def _read(row: dict[str, Any]) -> Pattern:
    functions: dict[str, Any] = {"check": CHECKS, "read": READERS}
    needs = plain(row.get("needs", "")).text
    return Pattern(
        row["kind"],
        regex(row["pattern"]),
        needs=tuple(filter(None, needs.split("|"))),
        digits=row.get("digits", False),
        labelled=row.get("labelled", False),
        **{key: known[row[key]] for key, known in functions.items() if key in row},
    )


_SHAPES: dict[str, tuple[str, Check]] = {
    "SSN": ("number behind label", lambda match: len(digits_of(match)) in (4, 9, 13, 15)),
    "PHONE": ("phone behind label", is_labelled_phone),
    "FAX": ("phone behind label", is_labelled_phone),
    "VEHICLE": ("plate behind label", lambda match: len(digits_of(match)) > 1),
}


def _behind_labels(kind: str, labels: dict[str, str]) -> Pattern:
    """Recognise a number behind one of the kind's labels: "MRN: 88213", "member ID is K-2213-9"."""
    value, check = _SHAPES.get(kind, ("number behind label", is_labelled))
    names, nouns = (
        "|".join(
            re.escape(label).replace(r"\ ", r"(?:'?s)?[\s_-]{1,3}")
            for label in sorted(plain(labels.get(sort, "")).text.split(", "), key=len)[::-1]
        )
        for sort in ("names", "nouns")
    )
    start, end = rf"(?:(?<![^\W_])|(?<=[{UNSPACED}]))", rf"(?:'?s)?(?:(?!{LETTER})|(?<=[{UNSPACED}]))"
    label = rf"{start}(?:(?P<names>{names or '(?!)'})|{nouns or '(?!)'}){end}"

    def is_told(match: re.Match[str]) -> bool:
        return bool(match["names"] or match["n"] or match["c"]) and check(match)

    regex = f"(?i){label}{part('between label and number')}{part(value)}"
    return Pattern(kind, regex, is_told, digits=True, labelled=True)


_TABLE = read_table("datagen.privacy", "patterns.yaml")
_LABELS = read_table("datagen.privacy", "labels.yaml")
PATTERNS: tuple[Pattern, ...] = (
    *map(_read, _TABLE["shapes"]),
    *(_behind_labels(kind, labels) for kind, labels in _LABELS.items()),
    *map(_read, _TABLE["others"]),
)
