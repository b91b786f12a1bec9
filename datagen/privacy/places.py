"""Patterns for places smaller than a state: addresses, ZIP codes, towns with a state or a verb of living."""

import re

from datagen.privacy.pattern import Pattern
from datagen.privacy.spelling import LETTER, UPPER
from datagen.privacy.words import COUNTRIES, NOT_NAMES, STATES, is_ordinary, is_owned, one_of

_GAP = r"[ \t]+"
_STATE = one_of("state_codes")
_STATE_NAME = one_of("states")
_TOWN = rf"(?:{UPPER}(?![A-Z]){LETTER}+)"
_PLACE = rf"(?:(?:St|Ft|Mt)\.{_GAP})?{_TOWN}(?:[ -](?:{_TOWN}|(?:of|on|upon|de|la|del)[ -]{_TOWN})){{0,2}}"
_LANDS = ("County", "City", "Island", "Lake", "Bay", "Canyon")
_STREET = rf"{one_of('streets')}(?!\w)"


def _is_place(match: "re.Match[str]") -> bool:
    place = match["v"]
    ordinary = (
        place in COUNTRIES
        or place in STATES
        or place.split()[0] in NOT_NAMES
        or all(map(is_ordinary, place.split()))
    )
    return not ordinary and (place.endswith(_LANDS) or not is_owned(place.split()[-1]))


_POST = rf"(?:,?\s{{1,3}}(?:[A-Z]{{1,2}}-)?\d{{4,5}}[ ]{_TOWN}(?:[ -]{_TOWN})?)?"
_HEAD = rf"(?<!\w){one_of('street_heads')}[ ](?:(?:(?:de|du|des|della?|l[aeo]s?|d[ao]s?)[ ]){{1,2}}|[dl]')?{_PLACE}"
PLACE_PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "ADDRESS",
        rf"(?<![\w.])(?P<v>\d{{1,5}}[A-Za-z]?{_GAP}(?:(?:[NSEW]|North|South|East|West)\.?{_GAP})?"
        rf"(?:[A-Z][\w'’]*\.?{_GAP}|\d{{1,3}}(?:st|nd|rd|th){_GAP}){{1,3}}{_STREET}(?:[ ](?:[NS][EW]|[NSEW])\b)?"
        r"(?:,?\s*(?i:Apt|Apartment|Suite|Unit|Floor|#)\.?\s*\w+)?)",
        digits=True,
    ),
    # Abroad the number stands behind the street, or before a word such as "rue".
    Pattern(
        "ADDRESS",
        rf"(?<![\w.])(?P<v>\d{{1,4}}[a-z]?,?[ ](?:bis[ ]|ter[ ])?{_HEAD}{_POST})(?!\w)",
        digits=True,
    ),
    Pattern("ADDRESS", rf"(?P<v>{_HEAD},?[ ](?:n[º°.][ ]?)?\d{{1,4}}[a-z]?{_POST})(?![\w.]\d)", digits=True),
    Pattern(
        "ADDRESS",
        rf"(?<!\w)(?P<v>{UPPER}(?:{LETTER}|-){{1,30}}(?:[ -]?[Ss]tra(?:ß|ss)e|[ -]?[Ss]tr\.|weg|platz|gasse|allee)"
        rf"[ ]\d{{1,4}}[a-z]?{_POST})(?!\w)",
        digits=True,
    ),
    Pattern("ADDRESS", r"(?i)\b(?P<v>P\.?\s?O\.?\s?Box\s+\d+)\b", needs="box"),
    Pattern(
        "ZIP",
        r"(?i)\b(?:ZIP(?:\s?code)?|postal\s?code|post\s?code)\s*+(?:is|of|:)?\s*+"
        r"(?P<v>\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)\b",
        needs="zip|post",
        labelled=True,
    ),
    Pattern("ZIP", rf"\b(?:{_STATE}|{_STATE_NAME}){_GAP}(?P<v>\d{{5}}(?:-\d{{4}})?)\b", digits=True),
    Pattern(
        "PLACE",
        rf"\b(?:in|from|near|at|to|of){_GAP}(?P<v>{_TOWN}(?:{_GAP}{_TOWN})? County)\b",
        _is_place,
        "county",
    ),
    Pattern(
        "PLACE", rf"\b(?:in|from|near|at|to|of){_GAP}(?P<v>{_PLACE}), (?:{_STATE}|{_STATE_NAME})\b", _is_place
    ),
    Pattern("PLACE", rf"\b(?P<v>{_PLACE}), {_STATE}(?=\s*(?:[.,;:)\n]|$|\d{{5}}|USA\b))", _is_place),
    Pattern("PLACE", rf"\b(?P<v>{_PLACE}), {_STATE_NAME}\b(?! [A-Z])", _is_place),
    Pattern(
        "PLACE",
        r"\b(?i:lives? in|living in|resid(?:es|ed|ing) in|residents? of|born in|grew up in|moved (?:to|from)"
        rf"|hometown (?:is|of)|(?:city|town|village|county) of){_GAP}(?P<v>{_PLACE})\b",
        _is_place,
        "in|of|to|from",
    ),
)
