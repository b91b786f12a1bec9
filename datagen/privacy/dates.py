"""Patterns for dates finer than a year, and none for laboratory values, scores and genes."""

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


_NUMBERED = re.compile(
    r"(?:pmid|pmc|doi|nct|no\.?|number|id|ref\w*|accession|lot|code|[#/.:$€£=-])[\s:]*$", _I
)
_MEASURE = re.compile(r"\s*(?:cells|copies|units|iu|mg|g|ml|people|patients|cases|dollars|%)\b", _I)


def _is_compact_day(match: "re.Match[str]") -> bool:
    """Take eight digits for a day unless they count something or are a number of their own."""
    before = match.string[max(0, match.start() - 16) : match.start()]
    if len(match.string) == 8:
        return False
    return _is_day(match) and not _NUMBERED.search(before) and not _MEASURE.match(match.string, match.end())


def _is_short_day(match: "re.Match[str]") -> bool:
    """Take 03/14/23, not 2/2/2, 10/10/10 or 10-20-30."""
    a, b, year = match["a"], match["b"], match["y"]
    told = "0" in (a[0], b[0]) or (match["s"] == "/" and max(int(a), int(b)) > 12)
    return told and _is_day(match) and len({a, b, year}) > 1


_LONG = "January|February|March|April|May|June|July|August|September|October|November|December"
_SHORT = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
_MONTH = rf"(?:(?:{_LONG}|{_LONG.upper()})\b|(?:{_SHORT})\b\.?)"
# In capitals, short names are genes and tests as well (SEPT9, OCT): they count beside a year or a word for a day.
_ANY_MONTH = rf"(?i:{_LONG}|(?:{_SHORT})\b\.?)"
_COMPACT_MONTH = rf"(?i:{_LONG}|{_SHORT})"
_FOREIGN_MONTH = (
    "(?i:enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
    "|janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre"
    "|januar|jänner|februar|märz|april|juni|juli|august|september|oktober|november|dezember"
    "|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|novembre|dicembre"
    "|janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro"
    "|января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря)"
)
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th|ST|ND|RD|TH)?"
_YEAR = r"(?:1[89]|20)\d\d"
_GAP = r"[ \t]{1,4}"
_SEEN = (
    r"(?:on|since|dated?|dob|d\.o\.b\.?|born|birth(?:day|date)?|admitted|admission|adm|discharged?|d/c|visit|seen|until|from|dos"
    r"|doa|exam|surgery|collected|received|started|signed|service)"
)
_TIME = r"(?:T\d{2}:?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?(?:Z\b|[+-]\d{2}:?\d{2})?)?"

DATE_PATTERNS: tuple[Pattern, ...] = (
    pattern(
        "DATE",
        rf"\b(?P<v>{_MONTH}{_GAP}{_DAY}(?:[ \t]*(?:-|to|and)[ \t]*{_DAY})?(?:,?{_GAP}{_YEAR})?)"
        r"(?![\d%]|\.\d|\s?(?:mg|g|kg)\b)",
        digits=True,
    ),
    pattern(
        "DATE",
        rf"\b(?P<v>{_DAY}(?:{_GAP}(?:day{_GAP})?of)?(?:{_GAP}|-){_MONTH}(?:,?[ \t-]{{1,4}}(?:{_YEAR}|'?\d\d))?)(?!\w)",
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<!\w)(?P<v>(?:{_ANY_MONTH}(?:[ \t./-]{{1,3}}|[ ]?\n){_DAY}"
        rf"|{_DAY}[ \t./-]{{1,3}}(?:of{_GAP})?{_ANY_MONTH})(?:,?\s{{1,3}}|[./-]|,)(?:{_YEAR}|'\d\d))(?!\w)",
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<!\w)(?i:{_SEEN}\s*:?){_GAP}(?P<v>{_ANY_MONTH}{_GAP}{_DAY})(?![\w%]|\.\d|\s?(?:mg|g|kg)\b)",
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<!\w)(?P<v>(?:3[01]|[12]\d|0?[1-9]){_COMPACT_MONTH}(?:{_YEAR}|\d\d))(?=T?\d{{2}}:|(?!\w))",
        digits=True,
    ),
    pattern("DATE", rf"\b(?P<v>(?i:{_MONTH}),?{_GAP}(?:of{_GAP})?{_YEAR})\b", digits=True),
    pattern(
        "DATE",
        rf"(?<!\w)(?P<v>(?:3[01]|[12]\d|0?[1-9])(?:\.|er|º)?{_GAP}(?:de{_GAP})?{_FOREIGN_MONTH}"
        rf"(?:,?{_GAP}(?:de(?:l)?{_GAP})?{_YEAR})?)(?!\w)",
        digits=True,
    ),
    pattern(
        "DATE",
        r"(?<!\d)(?P<v>(?:1[89]|20)\d\d[年년][ ]?\d{1,2}[月월](?:[ ]?\d{1,2}[日号號일])?)",
        needs="年|년",
    ),
    pattern(
        "DATE",
        rf"(?<![\w/.-])(?P<v>(?P<a>\d{{1,2}})(?P<s>[/.-])(?P<b>\d{{1,2}})(?P=s)(?P<y>{_YEAR}))(?=T\d|(?![\w/-]|\.\d))",
        _is_day,
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<![\w/.-])(?P<v>(?P<y>{_YEAR})(?P<s>[/.-])(?P<a>\d{{1,2}})(?P=s)(?P<b>\d{{1,2}}){_TIME})(?![\w/-]|\.\d)",
        _is_day,
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<![\w/.-])(?P<v>(?P<y>(?:19|20)\d\d)(?P<a>0[1-9]|1[0-2])(?P<b>[0-3]\d){_TIME})(?![\w-]|[./]\d)",
        _is_compact_day,
        digits=True,
    ),
    pattern(
        "DATE",
        rf"(?<!\w)(?i:{_SEEN}(?:[ ]date|[ ]of[ ]birth)?)\s*+(?:(?:on|is|was)\b)?\s*+[:=]?\s*+"
        r"(?P<v>(?P<a>[0-3]\d)(?P<b>[0-3]\d)(?P<y>(?:19|20)\d\d))(?![\w/-]|\.\d)",
        _is_day,
        digits=True,
    ),
    pattern(
        "DATE",
        r"(?<![\w/.-])(?P<v>(?P<a>\d{2})(?P<s>[/-])(?P<b>\d{2})(?P=s)(?P<y>\d{2}))(?![\w/%-]|\.\d|\s?(?:mm|mg))",
        _is_short_day,
        digits=True,
    ),
    pattern(
        "DATE",
        rf"\b{_SEEN}\s*+(?:on\b)?\s*+:?\s*+(?P<v>(?P<a>\d{{1,2}})(?P<s>[/.-])(?P<b>\d{{1,2}})(?P=s)(?P<y>\d{{2}}))(?![\w/-]|\.\d)",
        _is_day,
        flags=_I,
        digits=True,
    ),
    pattern(
        "DATE",
        rf"\b(?:in|since|from|until|by|dated?)\s*+:?\s*+(?P<v>(?:0?[1-9]|1[0-2])/{_YEAR})\b",
        needs="/",
        flags=_I,
        digits=True,
    ),
)
