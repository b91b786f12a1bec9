"""Patterns for dates finer than a year, and none for laboratory values, scores and genes."""

import calendar
import re
from functools import partial

from datagen.privacy.pattern import Pattern
from datagen.privacy.words import one_of

_I = re.IGNORECASE
_LONG = "January|February|March|April|May|June|July|August|September|October|November|December"
_SHORT = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
_ENGLISH = rf"(?:(?:{_LONG})(?!\w)|(?:{_SHORT})(?:(?!\w)\.?|(?=\d)))"
_IS_ENGLISH = re.compile(_ENGLISH, _I)
_MONTH = rf"(?=[^\W\d_])(?:{_ENGLISH}|{one_of('months')}(?!\w)\.?)"
_NUMERAL = r"(?:3[01]|[12]\d|0?[1-9])"
_DAY = rf"(?:{_NUMERAL}(?:st|nd|rd|th|er|[º.](?=[ ]))?)"
_SPELT = rf"(?:the\s)?(?:(?:twenty|thirty)-?)?{one_of('ordinals')}\sof"
_YEAR = r"(?:1[89]|20)\d\d"
_SEP = r"(?:[ \t]{1,4}|[ ]?\n|[ \t]{0,3}[./-][ \t]{0,3})"
_OF = r"(?:(?:day[ ])?of[ ]|de[ ]|del[ ])?"
_BEHIND = rf"(?:,?{_SEP}{_OF}(?P<y>{_YEAR}|'\d\d)|,(?P<y1>{_YEAR})|-(?P<y2>\d\d))?"
_TIME = r"(?:T\d{2}:?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?(?:Z\b|[+-]\d{2}:?\d{2})?)?"
_SEEN = re.compile(rf"\b{one_of('date_words')}\.?(?:\s{{1,4}}(?:on|is|was))?\s{{0,4}}[:=]?\s{{0,4}}$", _I)
_IN = re.compile(r"\bin[ \t]+$", _I)
_NUMBERED = re.compile(
    r"(?:pmid|pmc|doi|nct|no\.?|number|id|ref\w*|accession|lot|code|version|\bv|build|[#/.:$€£=-])[\s:]*$", _I
)
_VERSION = re.compile(r"(?:version|\bv|build|section|release)[\s.:]*$", _I)
_MEASURE = re.compile(
    r"[\d%]|\.\d|\s?(?:cells|copies|units|iu|mg|mcg|kg|g|ml|mm|people|men|women|patients|children|cases|dollars|%|gene|proteins?|mrna|expression|ligase|mutations?|variants?)(?!\w)",
    _I,
)
# "March 5 more men died", but "March 5 she was".
_COUNTED = re.compile(
    r"[ \t]+(?:[a-z]+[ ])?(?!(?:was|is|has|as|his|this|does|its|labs|visits|results|notes|reports|denies|presents"
    r"|states|feels|always|says)\b)[a-z]{3,}s\b"
)


def _before(match: "re.Match[str]") -> str:
    return match.string[max(0, match.start() - 28) : match.start()]


def _is_in_calendar(a: str, b: str, year: str) -> bool:
    """Check numbers against the calendar, in either order of day and month."""
    full = int(year) + (0 if int(year) > 99 else 1900 if int(year) > 30 else 2000)
    orders = ((int(a), int(b)), (int(b), int(a)))
    return any(1 <= month <= 12 and 1 <= day <= calendar.monthrange(full, month)[1] for day, month in orders)


def _is_date(match: "re.Match[str]") -> bool:
    """Take 03/14/2023 and 2023.3.14 by the calendar; 3/4/61 behind "seen"; 03/14/23 alone, not 2/2/2 or 10-20-30."""
    a, b, c, sign = match.group("a", "b", "c", "s")
    if len(a) > 2:
        return len(a) == 4 and len(c) < 3 and _is_in_calendar(b, c, a) and not _VERSION.search(_before(match))
    if len(c) == 4:
        return 1800 <= int(c) < 2100 and _is_in_calendar(a, b, c)
    if len(c) != 2 or match["t"] or not _is_in_calendar(a, b, c):
        return False
    padded = len(a) == len(b) == 2 and "0" in (a[0], b[0])
    long_month = sign == "/" and max(int(a), int(b)) > 12 and any(int(part) % 5 for part in (a, b, c))
    told = sign != "." and (padded or long_month) and len({a, b, c}) > 1
    return bool(_SEEN.search(_before(match))) or (told and not _MEASURE.match(match.string, match.end()))


def _is_compact_date(match: "re.Match[str]") -> bool:
    """Take eight digits for a day unless they count something or are a number of their own."""
    text, before = match["d"], _before(match)
    if _SEEN.search(before) and 1800 <= int(text[4:]) < 2100:
        return _is_in_calendar(text[:2], text[2:4], text[4:])
    if text[:2] not in ("19", "20") or not 1 <= int(text[4:6]) <= 12 or not 1 <= int(text[6:]) <= 31:
        return False
    counted = _NUMBERED.search(before) or _MEASURE.match(
        match.string[match.end() : match.end() + 40].replace("\n", " ")
    )
    return len(match.string) > 8 and _is_in_calendar(text[4:6], text[6:], text[:4]) and not counted


def _is_day_of_month(match: "re.Match[str]") -> bool:
    """Take "14 Mar" and "May 10" without a year unless the month is a gene, a verb or a count follows."""
    month, before = match["m"].rstrip("."), _before(match)
    if match["y"] or match["y1"] or match["y2"]:
        return True
    if _MEASURE.match(match.string, match.end()):
        return False
    # In capitals, short names are genes and tests as well (SEPT9, OCT); in small letters, verbs.
    day, english = match["d"] or "", _IS_ENGLISH.fullmatch(month)
    written = not english or month.istitle() or (month.isupper() and len(month) > 4)
    ordinal = day.endswith("of ")
    if written and day and not ordinal:
        return True
    if (
        written
        and english
        and not day
        and not (_IN.search(before) or _COUNTED.match(match.string, match.end()))
    ):
        return True
    return (ordinal and day[0].isdigit()) or bool(_SEEN.search(before))


_date = partial(Pattern, "DATE", labelled=True)
DATE_PATTERNS: tuple[Pattern, ...] = (
    _date(
        rf"(?i)(?<![\w.])(?P<v>(?P<d>{_DAY}(?:{_SEP}{_OF})|{_SPELT}[ ])(?P<m>{_MONTH}){_BEHIND})(?!\w|'\d)",
        _is_day_of_month,
    ),
    _date(
        rf"(?i)(?<!\w)(?P<v>(?P<m>{_MONTH}){_SEP}(?P<d>)?{_DAY}(?:[ \t]*(?:-|to|and)[ \t]*{_DAY}(?![\d.]))?"
        rf"{_BEHIND})(?!\w)",
        _is_day_of_month,
        digits=True,
    ),
    _date(
        rf"(?i)(?<!\w)(?P<v>{_NUMERAL}(?:{_LONG}|{_SHORT})(?:{_YEAR}|\d\d))(?=T?\d{{2}}:|(?!\w))", digits=True
    ),
    _date(rf"(?i)(?<!\w)(?P<v>{_MONTH}(?:,?[ \t]{{1,4}}{_OF}{_YEAR}|[ ]?'\d\d))(?!\w)", digits=True),
    _date(
        r"(?<!\d)(?P<v>(?:(?:1[89]|20)\d\d|(?:令和|平成|昭和)\d{1,2})[年년][ ]?\d{1,2}[月월]"
        r"(?:[ ]?\d{1,2}[日号號일])?)"
    ),
    _date(
        rf"(?<![\w/.-])(?P<v>(?P<a>\d{{1,4}})(?P<s>[/.-])(?P<b>\d{{1,2}})(?P=s)(?P<c>\d{{1,4}})(?P<t>{_TIME}))(?![\w/%-]|\.\d)",
        _is_date,
        digits=True,
    ),
    _date(rf"(?<![\w/.-])(?P<v>(?P<d>\d{{8}}){_TIME})(?![\w-]|[./]\d)", _is_compact_date, digits=True),
    _date(
        rf"(?i)\b(?:in|since|from|until|by|dated?)\s{{0,4}}:?\s{{0,4}}(?P<v>(?:0?[1-9]|1[0-2])/{_YEAR})\b",
        digits=True,
    ),
)
