"""What a pattern for one kind of identifier is."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from functools import cached_property

Check = Callable[["re.Match[str]"], bool]
Read = Callable[["re.Match[str]"], Iterable[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way to recognise one kind of identifier in a text in plain spelling (:mod:`datagen.privacy.spelling`).

    Attributes:
        kind: One of HIPAA's Safe Harbor list (45 CFR 164.514(b)(2)).
        regex: Matches the identifier in the group ``v``, or as a whole where there is no such group.
        check: Sees the match and may refuse it: a checksum, a calendar, the words around it.
        needs: Words, in lower case and separated by ``|``, of which a text must hold one to be searched.
        digits: Whether to search only near digits. This and ``needs`` save most of the time.
        labelled: Whether it needs a label, such as the heading of a table's column.
        read: For what no regular expression bounds well: sees the match, and yields the spans of the identifiers.
    """

    kind: str
    regex: str
    check: Check | None = None
    needs: str = ""
    digits: bool = False
    labelled: bool = False
    read: Read | None = None

    @cached_property
    def compiled(self) -> "re.Pattern[str]":
        """The regular expression, compiled when it is first needed."""
        return re.compile(self.regex)

    def spans(self, text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        """Yield where identifiers of this kind stand between two places of a text."""
        for match in self.compiled.finditer(text, start, end):
            if self.read is not None:
                yield from self.read(match)
            elif self.check is None or self.check(match):
                yield match.span("v") if match.groupdict().get("v") else match.span()
