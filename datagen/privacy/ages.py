"""Patterns for ages over 89, in the spelling of notes; none for brackets, temperatures and doses."""

import re
from functools import partial

from datagen.privacy.pattern import Pattern
from datagen.privacy.spelling import plain

_I = re.IGNORECASE
_OPEN_ENDED = re.compile(
    r"[ \t-]{0,3}(?:years?\s?)?(?:of age\s?|old\s?)?(?:(?:or|and)\s(?:older|over|above|more|up)|\+"
    r"|(?:-|to)[ \t]?\d|(?:months?|weeks?|days?|hours?|percent|ago|later)\b|[ ]назад)",
    _I,
)
_BRACKET = re.compile(
    r"(?:over|above|than|least|under|until|beyond|before|to|up to|[<>≥≤-]|mean|median|average|gestational|bone"
    r"|m[áa]s de|mayor(?:es)? de|menor(?:es)? de|plus de|über|unter|mehr als|più di|mais de|старше|младше|до)"
    r"\s*(?:(?:the )?aged?(?: of)?\s*)?[:=]?\s*$",
    _I,
)
_HEAT = re.compile(
    r"temp|fever|febril|\bT(?:max|c|m)?\s*[:=]?\s*$|°|degree|heat|cool|warm|thermo|chill|celsius|fahrenheit|bath|oven"
    r"|\b[\d.]+\s?F\b",
    _I,
)
# What follows a person, and no temperature and no sum.
_PERSON_AFTER = re.compile(
    r"[ \t]*,?[ \t]*(?:w/|with|who|whose|c/o|s/p|h/o|hx|pmh|p/w|presents?|presenting|presented|admitted|brought|found"
    r"|here\b|from\b|lives|living|seen\b|status\b|complain|reports?|transferred|referred|pt\b|patient"
    r"|in\s(?:nad|ed|er)\b|s/f|known)",
    _I,
)
_HEAD = re.compile(r"(?:\A|[\n.,;:|(*-]|\b(?:a|an|the|is|pt|patient|this|our|age/sex|age))[ \t*]{0,4}$", _I)
_FIELD = re.compile(r"[ \t]*[,;/)|*]")


def _is_old(match: "re.Match[str]") -> bool:
    """Take the age of a person over 89, not a bracket such as "90 years or older"."""
    before = match.string[max(0, match.start("v") - 24) : match.start("v")]
    after = match.string[match.end() : match.end() + 40]
    in_words = not match["n"].isdigit()
    old = in_words or 90 <= int(match["n"]) <= 125
    return old and not _OPEN_ENDED.match(after) and not _BRACKET.search(before)


def _is_old_person(match: "re.Match[str]") -> bool:
    """Take "94F with cough", not 94 F in a sentence on a temperature, nor 94M cells."""
    text, start, end = match.string, match.start("v"), match.end("v")
    line = text[max(0, start - 40) : start].rpartition("\n")[2]
    if not _is_old(match) or _HEAT.search(line) or not _HEAD.search(text[max(0, start - 12) : start]):
        return False
    return bool(
        _PERSON_AFTER.match(text, end) or (_FIELD.match(text, end) and not _HEAT.search(text[end : end + 60]))
    )


_ONES = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_IN_WORDS = rf"ninety(?:[- ](?:{_ONES}))?|(?:one|a)?[- ]?hundred(?:[- ]and)?(?:[- ](?:{_ONES}))?"
_N = r"(?<![\w.,/])(?P<v>(?P<n>\d{2,3})"
_YEARS = r"(?:years?|yrs?|y|yr)"
_ENGLISH = (
    rf"[ -]?(?:y[./]?[ ]?o\b\.?|yo|yom|yof|yow)[ ]?(?:[mf]\b)?"
    rf"|[ -]{{0,3}}{_YEARS}\.?[ -]{{0,3}}(?:old\b|o\b\.?|of age\b)"
    rf"|[ -]?{_YEARS}\.?,?[ -/]{{0,3}}(?:[mf]|male|female|man|woman|gentleman|lady|wm|wf|bm|bf)"
    r"|(?:st|nd|rd|th)[ ]birthday"
)
# Years of age beyond doubt, and years that are an age only behind or before certain words.
_FOREIGN = (
    r"[ -]?jährig\w{0,2}|[ ](?:лет|года?|років|рок)|-летн\w{2,3}|[ -]?årig\w?|[ ]?[岁歲歳](?![以\w]上)|[ ]?[세살]"
    r"|[ ]?ปี|[ ](?:"
    + plain("वर्षीय|वर्ष|साल|سنة|عاما|عام").text
    + r")|[ ](?:años|anos|ans|anni|jaar|Jahre|lat)(?=[ ](?:de[ ]edad|de[ ]idade|d'âge|alt|oud)|[,.)]|\Z)"
    r"(?:[ ](?:alt|oud))?"
)

_age = partial(Pattern, "AGE")
AGE_PATTERNS: tuple[Pattern, ...] = (
    _age(rf"(?i){_N}(?:{_ENGLISH}|{_FOREIGN}))(?!(?<![岁歲歳])\w)", _is_old, digits=True),
    _age(rf"(?i)\b(?P<v>(?P<n>{_IN_WORDS})(?:{_ENGLISH}))(?!\w)", _is_old, "ninety|hundred"),
    _age(
        r"(?i)\b(?:aged?|turned|turns|turning|age[ ]?/[ ]?sex|edad|alter|âge|idade|età|возраст|年龄|年齢|나이"
        r"|(?:he|she|mother|father|grandmother|grandfather|who)[ ](?:is|was)"
        r"(?=[ ][\w-]+[ ]?(?:[.,;!]|and\b|\Z))"
        r"|(?:a|the|an)[ ](?:\w+[ ])?(?:man|woman|lady|gentleman|male|female)[ ]of)(?!\w)[ \t]{0,3}"
        rf"(?:(?:of|is|was|in years)\b)?[ \t]{{0,3}}[:=-]?[ \t*]{{0,3}}"
        rf"(?P<v>(?P<n>\d{{2,3}}|{_IN_WORDS})(?:[ ]?(?:yrs?|y|yo|years?)\b\.?)?(?:[ ]?/?[ ]?[MF]\b)?)"
        r"(?!\w)(?!\s*[/%.]\s*\d)",
        _is_old,
        labelled=True,
    ),
    _age(r"(?<![\w.,/$€£%-])(?P<v>(?P<n>\d{2,3})[ ]?/?[ ]?[MF])(?![\w°])", _is_old_person, digits=True),
    _age(r"(?<![\w.,/$€£%-])(?P<v>[MF]/?(?P<n>\d{2,3}))(?=[ \t]*(?:,|w/|with))", _is_old_person, digits=True),
    _age(
        r"(?i)\b(?:de|tiene|a|ha|di|van|von|mit|hat|ma)[ ]"
        r"(?P<v>(?P<n>\d{2,3})[ ](?:años|anos|ans|anni|jaar|Jahren|lat))\b",
        _is_old,
        digits=True,
    ),
    _age(
        r"(?i)\b(?:an?|the|this)[ ](?P<v>(?:nonagen|centen)arian)\b(?![ ](?:stud|cohort|group|population))",
        needs="narian",
    ),
)
