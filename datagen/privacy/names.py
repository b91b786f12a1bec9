"""Patterns for names of persons and for places smaller than a state.

A name counts with a title, a label ("named", "Name:", "Dear"), a degree behind it, an age behind a common given name,
or as a common given name with a surname. What names a disease, a sign, a tool or an institution ("Charles Bonnet
syndrome", "Fred Hutchinson Center") is no person here.
"""

import re

from datagen.privacy.pattern import Pattern, pattern
from datagen.privacy.words import COUNTRIES, GIVEN_NAMES, NOT_NAMES, STATES, is_owned

_GAP = r"[ \t]+"
_TITLE = (
    r"(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Doctor|Sir|Madam|Nurse|Rev|Father|Sister|Brother|Aunt|Uncle|Sgt|Capt"
    r"|Judge|Señora?|Herr|Frau)\b\.?"
)
_WORD = r"(?:(?:O['’]|D['’]|Mc|Mac|De|La|Le)?[A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ]+(?:[-'’][A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ]+)?)"
_PARTICLES = rf"(?:(?:van|von|der|den|de|la|del|bin|al){_GAP})*"
_INITIAL = rf"(?:{_GAP}[A-Z]\.?(?={_GAP}))?"
_NAME = rf"{_PARTICLES}{_WORD}{_INITIAL}(?:{_GAP}{_PARTICLES}{_WORD}){{0,2}}"
_INITIALS = rf"(?:[A-Z]\.[ \t]*){{1,2}}{_WORD}"
_FULL_NAME = rf"{_WORD}{_INITIAL}{_GAP}{_PARTICLES}{_WORD}"
_DEGREE = r"(?:MD|DO|RN|NP|PA-C|PhD|M\.D\.|D\.O\.|Ph\.D\.|DDS|FACP|MBBS)(?!\w)"

_STATE = (
    "(?:AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK"
    "|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR)"
)
_STATE_NAME = "(?:" + "|".join(sorted(STATES, key=lambda name: (-len(name), name))) + ")"
_TOWN = r"[A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ]+"
_PLACE = rf"(?:(?:St|Ft|Mt)\.{_GAP})?{_TOWN}(?:[ -](?:{_TOWN}|(?:of|on|upon|de|la|del)[ -]{_TOWN})){{0,2}}"
_LANDS = ("County", "City", "Island", "Lake", "Bay", "Canyon")
_STREET = (
    r"(?:(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Place|Square|Terrace|Parkway|Highway|Way|Circle|Crescent"
    r"|Close|Alley|Turnpike|Broadway)\b|(?:St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Pkwy|Hwy)\b\.?)"
)


def _stands_alone(match: "re.Match[str]", words: int = 1) -> bool:
    return not is_owned(match.string[match.end("v") : match.end("v") + 60], words)


def _is_name(match: "re.Match[str]") -> bool:
    """Refuse a title or label that is followed by an ordinary word ("Dr. Google" stays a name)."""
    return match["v"].split()[0] not in NOT_NAMES and _stands_alone(match)


def _is_labelled_name(match: "re.Match[str]") -> bool:
    """Take a name behind "Patient:" and the like; without the colon only one with a common given name."""
    words = re.findall(r"[^\W\d_]{2,}", match["v"])
    if ":" not in match.string[match.start() : match.start("v")] and not GIVEN_NAMES & set(words):
        return False
    return not NOT_NAMES & set(words) and _stands_alone(match)


def _has_given_name(match: "re.Match[str]") -> bool:
    """Take a name that begins with a common given name and whose other words are no ordinary ones."""
    first, *others = match["v"].split()
    before = match.string[max(0, match.start("v") - 4) : match.start("v")]
    return (
        first in GIVEN_NAMES
        and not before.endswith(("St. ", "St "))
        and not any(word in NOT_NAMES or word in STATES or is_owned(word) for word in others)
        and _stands_alone(match, 2)
    )


def _is_place(match: "re.Match[str]") -> bool:
    place = match["v"]
    ordinary = place in COUNTRIES or place in STATES or place.split()[0] in NOT_NAMES
    return not ordinary and (place.endswith(_LANDS) or not is_owned(place.split()[-1]))


NAME_PATTERNS: tuple[Pattern, ...] = (
    pattern("NAME", rf"\b{_TITLE}{_GAP}(?P<v>{_INITIALS}|{_NAME})", _is_name),
    pattern(
        "NAME",
        r"\b(?:[Mm]y name(?: is|['’]s)|(?:[Hh]is|[Hh]er|[Tt]heir) name (?:is|was)|[Nn]amed|by the name of|signed by"
        r"|(?:[Pp]atient|[Ff]ull|[Ll]ast|[Ff]irst|[Mm]aiden)(?:'s)? [Nn]ame(?: is)?:?|Name:|[Dd]ear)"
        rf"{_GAP}(?P<v>{_NAME})",
        _is_name,
        "name|signed|dear",
    ),
    pattern(
        "NAME",
        rf"\b(?i:patient|pt|name|attending|surgeon|physician|an(?:a)?esthetist|provider|guardian|next of kin"
        rf"|emergency contact|(?:dictated|transcribed|signed) by)[ \t]*:?{_GAP}"
        rf"(?P<v>{_WORD},{_GAP}{_WORD}|{_INITIALS}|{_FULL_NAME})",
        _is_labelled_name,
    ),
    pattern(
        "NAME",
        rf"(?:[Rr]egards|[Ss]incerely|[Ff]aithfully|[Tt]ruly|[Bb]est wishes|[Ss]igned|[Yy]ours)[,:]\s+"
        rf"(?P<v>{_INITIALS}|{_NAME})",
        _is_name,
        "regards|sincerely|faithfully|truly|wishes|signed|yours",
    ),
    pattern(
        "NAME",
        r"\b(?:[Mm]y|[Hh]is|[Hh]er|[Tt]heir|[Oo]ur)[ \t]+(?:husband|wife|partner|son|daughter|brother|sister|mother"
        r"|father|friend|neighbou?r|cousin|aunt|uncle|grand(?:mother|father|son|daughter))"
        rf",?{_GAP}(?P<v>{_WORD})(?=,|[ \t]+[a-z]|\.)",
        _is_name,
    ),
    pattern(
        "NAME",
        r"\b(?:I['’]m|I am|[Tt]his is)[ \t]+(?P<v>"
        rf"{_WORD})(?=,{_GAP}(?:an?{_GAP})?\d{{1,3}}\b)",
        _is_name,
        "i'm|i’m|i am|this is",
        digits=1,
    ),
    pattern(
        "NAME",
        r"\b(?i:husband|wife|partner|spouse|son|daughter|brother|sister|mother|father|friend|neighbou?r)[ \t]+"
        rf"\((?P<v>{_WORD}(?:{_GAP}{_WORD})?)\)",
        _has_given_name,
        "(",
    ),
    pattern("NAME", rf"\b(?P<v>{_INITIALS}|{_FULL_NAME}),?{_GAP}{_DEGREE}(?!\s*\d{{5}})", _is_name),
    pattern(
        "NAME",
        rf"\b(?P<v>{_WORD}{_INITIAL}(?:{_GAP}{_WORD})?)(?:,|{_GAP}is|{_GAP}was)?{_GAP}an?{_GAP}(?:\w+[ -]){{0,2}}"
        r"\d{1,3}[ -]?(?:year|month|week|day|yo\b|y/o)",
        _has_given_name,
        "year|month|week|day|yo|y/o",
        digits=1,
    ),
    pattern("NAME", rf"\b(?P<v>{_FULL_NAME})\b", _has_given_name),
)

PLACE_PATTERNS: tuple[Pattern, ...] = (
    pattern(
        "ADDRESS",
        rf"\b(?P<v>\d{{1,5}}[A-Z]?{_GAP}(?:(?:[NSEW]|North|South|East|West)\.?{_GAP})?"
        rf"(?:[A-Z][\w'’]*\.?{_GAP}|\d{{1,3}}(?:st|nd|rd|th){_GAP}){{1,3}}{_STREET}"
        r"(?:,?\s*(?:Apt|Apartment|Suite|Unit|Floor|#)\.?\s*\w+)?)",
        digits=1,
    ),
    pattern("ADDRESS", r"\b(?P<v>P\.?\s?O\.?\s?Box\s+\d+)\b", needs="box", flags=re.IGNORECASE),
    pattern(
        "ZIP",
        r"\b(?:ZIP(?:\s?code)?|postal\s?code|post\s?code)\s*(?:is|of|:)?\s*"
        r"(?P<v>\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)\b",
        needs="zip|post",
        flags=re.IGNORECASE,
    ),
    pattern("ZIP", rf"\b(?:{_STATE}|{_STATE_NAME}){_GAP}(?P<v>\d{{5}}(?:-\d{{4}})?)\b", digits=5),
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
