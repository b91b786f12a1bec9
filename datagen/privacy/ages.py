"""Patterns for ages over 89, in the spelling of notes; none for brackets, temperatures and doses."""

import re

from datagen.privacy.pattern import Pattern, pattern

_I = re.IGNORECASE
_OPEN_ENDED = re.compile(
    r"[ \t-]{0,3}(?:years?\s?)?(?:of age\s?|old\s?)?(?:(?:or|and)\s(?:older|over|above|more|up)|\+"
    r"|(?:-|to)[ \t]?\d|(?:months?|weeks?|days?|hours?|percent)\b)",
    _I,
)
_BRACKET = re.compile(
    r"(?:over|above|than|least|under|until|beyond|before|to|up to|[<>≥≤-]|mean|median|average|gestational|bone"
    r"|m[áa]s de|mayor(?:es)? de|menor(?:es)? de|plus de|über|unter|mehr als|più di|mais de)"
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
    return 90 <= int(match["n"]) <= 125 and not _OPEN_ENDED.match(after) and not _BRACKET.search(before)


def _is_old_person(match: "re.Match[str]") -> bool:
    """Take "94F with cough", not 94 F in a sentence on a temperature, nor 94M cells."""
    text, start, end = match.string, match.start("v"), match.end("v")
    line = text[max(0, start - 40) : start].rpartition("\n")[2]
    if not _is_old(match) or _HEAT.search(line):
        return False
    return bool(_HEAD.search(text[max(0, start - 12) : start])) and bool(_person_follows(text, end))


def _person_follows(text: str, end: int) -> bool:
    if _PERSON_AFTER.match(text, end):
        return True
    return bool(_FIELD.match(text, end)) and not _HEAT.search(text[end : end + 60])


_ONES = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_WORDS = rf"(?:ninety(?:[- ](?:{_ONES}))?|(?:one|a)?[- ]?hundred(?:[- ]and)?(?:[- ](?:{_ONES}))?)"
_N = r"(?<![\w.,/])(?P<v>(?P<n>\d{2,3})"

AGE_PATTERNS: tuple[Pattern, ...] = (
    pattern(
        "AGE",
        rf"{_N}[ -]{{0,3}}(?:years?|yrs?|y|yr)\.?[ -]{{0,3}}(?:old\b|o\b\.?))(?!\w)",
        _is_old,
        "old|o",
        _I,
        digits=True,
    ),
    pattern(
        "AGE",
        rf"{_N}[ -]?(?:y[./]?[ ]?o\b\.?|yo|y/o|yom|yof|yow)[ ]?(?:[mf]\b)?)(?!\w)",
        _is_old,
        flags=_I,
        digits=True,
    ),
    pattern(
        "AGE",
        rf"{_N}[ -]?(?:years?|yrs?|y|yr)\.?,?[ -/]{{0,3}}(?:[mf]|male|female|man|woman|gentleman|lady|wm|wf|bm|bf))"
        r"(?!\w)",
        _is_old,
        flags=_I,
        digits=True,
    ),
    pattern("AGE", rf"{_N} (?:years?|yrs?) of age)\b", _is_old, "of age", _I, digits=True),
    pattern("AGE", rf"{_N}(?:st|nd|rd|th)[ ]birthday)\b", _is_old, "birthday", _I, digits=True),
    pattern(
        "AGE",
        r"\b(?:aged?|turned|turns|turning|age[ ]?/[ ]?sex|edad|alter|âge|idade|età|возраст)[ \t]{0,3}"
        r"(?:(?:of|is|was|in years)\b)?"
        r"[ \t]{0,3}[:=-]?[ \t*]{0,3}(?P<v>(?P<n>\d{2,3})(?:[ ]?(?:yrs?|y|yo|years?)\b\.?)?(?:[ ]?/?[ ]?[MF]\b)?)"
        r"(?!\w)(?!\s*[/%.]\s*\d)",
        _is_old,
        "age|turn|edad|alter|âge|idade|età|возраст",
        _I,
        digits=True,
    ),
    pattern(
        "AGE", r"(?<![\w.,/$€£%-])(?P<v>(?P<n>\d{2,3})[ ]?/?[ ]?[MF])(?![\w°])", _is_old_person, digits=True
    ),
    pattern(
        "AGE",
        r"(?<![\w.,/$€£%-])(?P<v>[MF]/?(?P<n>\d{2,3}))(?=[ \t]*(?:,|w/|with))",
        _is_old_person,
        digits=True,
    ),
    pattern(
        "AGE",
        rf"{_N}(?:[ -]?jährig(?:e[rnms]?)?|[ ]Jahre[ ]alt|[ ](?:años|anos|ans|anni)"
        r"(?=[ ](?:de (?:edad|idade)|d'âge)|[,.)])"
        r"|[ ](?:лет|года?)|[ ]?[岁歲歳](?![以\w]上)|[ ]?세(?!\w)))(?!\w)",
        _is_old,
        digits=True,
    ),
    pattern("AGE", r"(?P<v>(?<!\d)(?P<n>\d{2,3})[ ]?[岁歲歳])(?!以)", _is_old, "岁|歲|歳", digits=True),
    pattern(
        "AGE",
        r"\b(?:de|tiene|a|ha)[ ](?P<v>(?P<n>\d{2,3})[ ](?:años|ans|anni|anos))\b",
        _is_old,
        "años|ans|anni|anos",
        _I,
        2,
    ),
    pattern(
        "AGE",
        rf"\b(?P<v>{_WORDS}[- ]years?[- ]old|{_WORDS} years? of age|(?<=aged ){_WORDS}|(?<=turned ){_WORDS})\b"
        r"(?! (?:or|and) (?:older|over|above|more))",
        needs="ninety|hundred",
        flags=_I,
    ),
)
