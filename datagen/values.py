"""Cleans the value of a field and splits off what does not belong to it."""

import re

from datagen.marks import HEADERS
from datagen.records import NO_INPUT

_NO_INPUT = re.compile(
    r"^[\"'`*_]*(?:<\s*no[\s_-]*input\s*/?>|[\[({]?\s*no[\s_-]?input(?:\s+(?:is\s+)?(?:needed|required|necessary|given))?"
    r"\s*[\])}]?|n\s*/\s*a|none(?:\s+(?:needed|required))?|not\s+applicable|nil|-{1,2}|—)[\"'`*_.]*(?=\s*$|\s*\n|\s*[(\[])",
    re.IGNORECASE,
)
_ASSISTANT_VOICE = re.compile(
    r"^\W*(?:let me know if you|i hope (?:this|these|that|it) |hope (?:this|these) |feel free to "
    r"|would you like (?:me|more)|end of (?:the )?(?:list|tasks)|that(?:['’]s| is) (?:all|the (?:end|list))"
    r"|(?:please )?note(?: that|:).{0,80}\btasks?\b"
    r"|(?:these|the above|all(?: of)? (?:these|the)?|this list)\b.{0,40}\btasks?\b"
    r"|if you(?:['’]d like| need| want| would like)\b.{0,60}\b(?:more|further|tasks?|changes?|else)\b"
    r"|here (?:are|is)\b.{0,40}\b(?:tasks?|list)\b"
    r"|i(?:['’]ve| have) (?:written|created|generated|provided|listed|tried)\b)",
    re.IGNORECASE | re.DOTALL,
)


def clean(kind: str, raw: str, *, final: bool) -> tuple[str, list[tuple[str, str]]]:
    """Strip a value of its decoration and split off what does not belong to it."""
    value = _undecorate(re.sub(r"(?m)^[ \t]*`{3,}\w*[ \t]*$", "", raw))
    strays: list[tuple[str, str]] = []
    if final:
        value, prose = _split_closing(value)
        strays += [("prose", prose)] if prose else []
    if kind in HEADERS:
        first, _, rest = value.partition("\n")
        if rest.strip():
            strays.insert(0, ("stray-text", rest.strip()))
        first = re.sub(r"^\d{1,3}[.)]\s+(?=\D)", "", first.strip(" \t*_`[];|,"))
        if kind == "difficulty":
            first, remark = _split_difficulty(first)
            strays[:0] = [("stray-text", remark)] if remark else []
        return first, strays
    if kind == "input" and (match := _NO_INPUT.match(value)):
        rest = value[match.end() :].strip()
        if rest:
            strays.insert(0, ("stray-text", rest))
        return NO_INPUT, strays
    return value, strays


def _undecorate(value: str) -> str:
    value = value.strip().strip("\u200b\ufeff").strip()
    value = re.sub(r"\s*#{2,}$", "", value)
    if value.count("**") % 2:
        value = value[2:] if value.startswith("**") else value.removesuffix("**")
    elif value.startswith("**") and value.endswith("**") and value.count("**") == 2:
        value = value[2:-2]
    return value.strip()


def _split_closing(value: str) -> tuple[str, str]:
    """Split off last paragraphs in which the assistant speaks to its user."""
    paragraphs = re.split(r"(\n[ \t]*\n\s*)", value)
    keep = len(paragraphs)
    while keep > 1 and _ASSISTANT_VOICE.match(paragraphs[keep - 1]):
        keep -= 2
    return "".join(paragraphs[:keep]).strip(), "".join(paragraphs[keep:]).strip()


_LEVEL_WORDS = re.compile(
    r"(?:\W|\b(?:level|very|rather|easy|basic|simple|low|medium|moderate|intermediate|hard|difficult|challenging"
    r"|high|advanced|expert|complex|out|of|stars?|10|5)\b)*",
    re.IGNORECASE,
)
_WORD_LEVELS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}


def _split_difficulty(value: str) -> tuple[str, str]:
    """Read a level from 1 to 5 out of "3/5", "Level 3", "3 (moderate)" or stars; return it and any other words."""
    stars = value.count("★") + value.count("⭐")
    match = re.search(r"(?<![\d.])([1-5])(?![\d.]*\d)", value)
    if 1 <= stars <= 5:
        level, rest = str(stars), re.sub("[★☆⭐]", "", value)
    elif match:
        level, rest = match.group(1), value[: match.start()] + " " + value[match.end() :]
    else:
        return _WORD_LEVELS.get(value.lower().strip("."), value), ""
    return level, "" if _LEVEL_WORDS.fullmatch(rest) else rest.strip()
