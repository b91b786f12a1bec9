"""What a pattern for one kind of identifier is."""

import dataclasses
import re
from collections.abc import Callable

Check = Callable[["re.Match[str]"], bool]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way to recognise one kind of identifier.

    Attributes:
        kind: One of HIPAA's Safe Harbor list (45 CFR 164.514(b)(2)).
        regex: Matches the identifier in the group ``v``, or as a whole where there is no such group.
        check: Sees the match and may refuse it: a checksum, a calendar, the words around it.
        needs: Words, in lower case, of which a text must hold one to be searched; none for any text. This and
            ``digits`` save most of the time.
        digits: Digits that a text must hold to be searched.
    """

    kind: str
    regex: "re.Pattern[str]"
    check: Check | None = None
    needs: tuple[str, ...] = ()
    digits: int = 0


def pattern(
    kind: str, regex: str, check: Check | None = None, needs: str = "", flags: int = 0, digits: int = 0
) -> Pattern:
    """Compile a pattern; ``needs`` holds its words separated by ``|``."""
    return Pattern(kind, re.compile(regex, flags), check, tuple(needs.split("|")) if needs else (), digits)
