"""Patterns for places smaller than a state: addresses, ZIP codes, towns with a state or a verb of living."""

import re

from datagen.privacy.pattern import Pattern, pattern
from datagen.privacy.spelling import LETTER, UPPER
from datagen.privacy.words import COUNTRIES, NOT_NAMES, STATES, is_ordinary, is_owned

_GAP = r"[ \t]+"
_STATE = (
    "(?:AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK"
    "|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR)"
)
_STATE_NAME = "(?:" + "|".join(sorted(STATES, key=lambda name: (-len(name), name))) + ")"
_TOWN = rf"(?:{UPPER}(?![A-Z]){LETTER}+)"
_PLACE = rf"(?:(?:St|Ft|Mt)\.{_GAP})?{_TOWN}(?:[ -](?:{_TOWN}|(?:of|on|upon|de|la|del)[ -]{_TOWN})){{0,2}}"
_LANDS = ("County", "City", "Island", "Lake", "Bay", "Canyon")
_STREET = (
    r"(?:(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Place|Square|Terrace|Parkway|Highway|Way|Circle|Crescent"
    r"|Close|Alley|Turnpike|Broadway)\b|(?:St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Pkwy|Hwy)\b\.?)"
)


def _is_place(match: "re.Match[str]") -> bool:
    place = match["v"]
    ordinary = (
        place in COUNTRIES
        or place in STATES
        or place.split()[0] in NOT_NAMES
        or all(map(is_ordinary, place.split()))
    )
    return not ordinary and (place.endswith(_LANDS) or not is_owned(place.split()[-1]))


PLACE_PATTERNS: tuple[Pattern, ...] = (
    pattern(
        "ADDRESS",
        rf"\b(?P<v>\d{{1,5}}[A-Z]?{_GAP}(?:(?:[NSEW]|North|South|East|West)\.?{_GAP})?"
        rf"(?:[A-Z][\w'’]*\.?{_GAP}|\d{{1,3}}(?:st|nd|rd|th){_GAP}){{1,3}}{_STREET}"
        r"(?:,?\s*(?:Apt|Apartment|Suite|Unit|Floor|#)\.?\s*\w+)?)",
        digits=True,
    ),
    pattern("ADDRESS", r"\b(?P<v>P\.?\s?O\.?\s?Box\s+\d+)\b", needs="box", flags=re.IGNORECASE),
    pattern(
        "ZIP",
        r"\b(?:ZIP(?:\s?code)?|postal\s?code|post\s?code)\s*+(?:is|of|:)?\s*+"
        r"(?P<v>\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)\b",
        needs="zip|post",
        flags=re.IGNORECASE,
    ),
    pattern("ZIP", rf"\b(?:{_STATE}|{_STATE_NAME}){_GAP}(?P<v>\d{{5}}(?:-\d{{4}})?)\b", digits=True),
    pattern(
        "PLACE",
        rf"\b(?:in|from|near|at|to|of){_GAP}(?P<v>{_TOWN}(?:{_GAP}{_TOWN})? County)\b",
        _is_place,
        "county",
    ),
    pattern(
        "PLACE", rf"\b(?:in|from|near|at|to|of){_GAP}(?P<v>{_PLACE}), (?:{_STATE}|{_STATE_NAME})\b", _is_place
    ),
    pattern("PLACE", rf"\b(?P<v>{_PLACE}), {_STATE}(?=\s*(?:[.,;:)\n]|$|\d{{5}}|USA\b))", _is_place),
    pattern("PLACE", rf"\b(?P<v>{_PLACE}), {_STATE_NAME}\b(?! [A-Z])", _is_place),
    pattern(
        "PLACE",
        r"\b(?i:lives? in|living in|resid(?:es|ed|ing) in|residents? of|born in|grew up in|moved (?:to|from)"
        rf"|hometown (?:is|of)|(?:city|town|village|county) of){_GAP}(?P<v>{_PLACE})\b",
        _is_place,
        "in|of|to|from",
    ),
)
