"""Patterns for dates finer than a year and for ages over 89, and none for laboratory values and scores."""

import calendar
import re

from datagen.privacy.pattern import Pattern, pattern

_I = re.IGNORECASE


def _is_day(match: "re.Match[str]") -> bool:
    """Check numbers against the calendar, in either order of day and month."""
    a, b, year = int(match["a"]), int(match["b"]), int(match["y"])
    if year < 100:
        year += 1900 if year > 30 else 2000
    orders = ((a, b), (b, a))
    return any(1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1] for day, month in orders)


_OPEN_ENDED = re.compile(
    r"[\s-]*(?:years?\s*)?(?:of age\s*|old\s*)?(?:(?:or|and)\s+(?:older|over|above|more|up)|\+)", _I
)
_BRACKET = re.compile(
    r"(?:over|above|than|least|under|until|beyond|before|to|up to|[<>≥≤–-])\s*(?:(?:the )?aged?(?: of)?\s*)?$",
    _I,
)


def _is_old(match: "re.Match[str]") -> bool:
    """Take the age of a person over 89, not a bracket such as "90 years or older"."""
    before, after = (
        match.string[max(0, match.start("v") - 16) : match.start("v")],
        match.string[match.end() :],
    )
    return 90 <= int(match["n"]) <= 125 and not _OPEN_ENDED.match(after) and not _BRACKET.search(before)


_MONTH = (
    r"(?:(?:January|February|March|April|May|June|July|August|September|October|November|December)\b"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?:1[89]|20)\d\d"
_DATES = (
    pattern(
        "DATE",
        rf"\b(?P<v>{_MONTH}[ \t]+{_DAY}(?:[ \t]*(?:-|–|to|and)[ \t]*{_DAY})?(?:,?[ \t]+{_YEAR})?)"
        r"(?![\d%]|\.\d|\s?(?:mg|g|kg)\b)",
        digits=1,
    ),
    pattern(
        "DATE",
        rf"\b(?P<v>{_DAY}(?:[ \t]+(?:day[ \t]+)?of)?[ \t-]+{_MONTH}(?:,?[ \t-]+(?:{_YEAR}|\d\d))?)(?!\w)",
        digits=1,
    ),
    pattern("DATE", rf"\b(?P<v>{_MONTH},?[ \t]+(?:of[ \t]+)?{_YEAR})\b", digits=1),
    pattern(
        "DATE",
        rf"(?<![\w/.-])(?P<v>(?P<a>\d{{1,2}})(?P<s>[/.-])(?P<b>\d{{1,2}})(?P=s)(?P<y>{_YEAR}))(?![\w/-]|\.\d)",
        _is_day,
        digits=5,
    ),
    pattern(
        "DATE",
        rf"(?<![\w/.-])(?P<v>(?P<y>{_YEAR})(?P<s>[/.-])(?P<a>\d{{1,2}})(?P=s)(?P<b>\d{{1,2}}))(?=T\d|(?![\w/-]|\.\d))",
        _is_day,
        digits=5,
    ),
    pattern(
        "DATE",
        r"\b(?:on|since|dated?|dob|born|birth|admitted|admission|discharged?|visit|seen|until|from)\s*(?:on\b)?\s*:?\s*"
        r"(?P<v>(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<y>\d{2}))(?![\w/-])",
        _is_day,
        needs="/",
        flags=_I,
        digits=4,
    ),
    pattern(
        "DATE",
        rf"\b(?:in|since|from|until|by|dated?)\s*:?\s*(?P<v>(?:0?[1-9]|1[0-2])/{_YEAR})\b",
        needs="/",
        flags=_I,
        digits=5,
    ),
)
_AGES = (
    pattern(
        "AGE",
        r"(?<![\w.,/])(?P<v>(?P<n>\d{2,3})[ -]*(?:years?|yrs?)\.?[ -]*old)\b",
        _is_old,
        "old",
        _I,
        digits=2,
    ),
    pattern(
        "AGE",
        r"\b(?:aged?|turned|turning)\s*:?\s*(?P<v>(?P<n>\d{2,3}))\b(?!\s*[-–/%.]\s*\d)",
        _is_old,
        "age|turn",
        _I,
        digits=2,
    ),
    pattern("AGE", r"(?<![\w.,/])(?P<v>(?P<n>\d{2,3})\s?(?:y/?o|yo))\b", _is_old, "yo|y/o", _I, digits=2),
    pattern("AGE", r"(?<![\w.,/])(?P<v>(?P<n>\d{2,3}) years of age)\b", _is_old, "of age", _I, digits=2),
    pattern(
        "AGE",
        r"\b(?P<v>(?:ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?|(?:one|a)[- ]hundred)"
        r"[- ]years?[- ]old)\b",
        needs="ninety|hundred",
        flags=_I,
    ),
)

DATE_PATTERNS: tuple[Pattern, ...] = (*_AGES, *_DATES)
