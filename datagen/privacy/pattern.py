"""What a pattern for one kind of identifier is."""

import dataclasses
import re
from collections.abc import Callable, Iterable

Check = Callable[["re.Match[str]"], bool]
Read = Callable[["re.Match[str]"], Iterable[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way to recognise one kind of identifier in a text in plain spelling (:mod:`datagen.privacy.spelling`).

    Attributes:
        kind: One of HIPAA's Safe Harbor list (45 CFR 164.514(b)(2)).
        regex: Matches the identifier in the group ``v``, or as a whole where there is no such group.
        check: Sees the match and may refuse it: a checksum, a calendar, the words around it.
        needs: Words, in lower case, of which a text must hold one to be searched; none for any text.
        digits: Whether to search only near digits. This and ``needs`` save most of the time.
        read: For what no regular expression bounds well: sees the match, and yields the spans of the identifiers.
    """

    kind: str
    regex: "re.Pattern[str]"
    check: Check | None = None
    needs: tuple[str, ...] = ()
    digits: bool = False
    read: Read | None = None


def pattern(
    kind: str,
    regex: str,
    check: Check | None = None,
    needs: str = "",
    flags: int = 0,
    digits: bool = False,
    read: Read | None = None,
) -> Pattern:
    """Compile a pattern; ``needs`` holds its words separated by ``|``."""
    return Pattern(
        kind, re.compile(regex, flags), check, tuple(needs.split("|")) if needs else (), digits, read
    )
