"""Cleans the value of a field and splits off what does not belong to it."""

import re
import unicodedata
from collections.abc import Mapping

from datagen.records import NO_INPUT
from datagen.replies.marks import FIELDS, HEADERS, OUTPUT

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_MARKER = r"(?:<|&lt;|[\[({])\s*no[\s_-]*input\s*/?\s*(?:>|&gt;|[\])}]|$)"
_NEEDED = r"(?:\s+(?:is\s+)?(?:needed|required|necessary|given|provided))"
_NO_INPUT = re.compile(
    rf"^[\"'`*_]*(?:(?:{_MARKER}|[\[({{]?\s*no[\s_-]?(?:(?:additional|further|extra)\s+)?input{_NEEDED}?\s*[\])}}]?)"
    r"[\"'`*_.]*(?=\s*$|\s*\n|\s*[(\[]|</)"
    rf"|[\[(]?(?:n\s*/\s*a|none{_NEEDED}?|not{_NEEDED}|(?:left\s+)?(?:blank|empty)|<empty>|[\"'“”]{{2}}|∅"
    r"|this\s+task\s+(?:needs|requires|has)\s+no\s+(?:\w+\s+)?input|this\s+task\s+does\s+not\s+(?:need|require|have)"
    rf"\s+(?:an|any)?\s*(?:\w+\s+)?input|not\s+applicable|nil|null|-{{1,2}}|—)[\])]?[\"'`*_.]*"
    r"(?=\s*$|\s*\n\s*\n|\s*[(\[]))",
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
        first = re.sub(r"^\d{1,3}[.)]\s+(?=\D)", "", first.strip(f" \t*_`[];|,{_INVISIBLE}"))
        if kind == "difficulty":
            first, remark = _split_difficulty(first)
            strays[:0] = [("stray-text", remark)] if remark else []
        return first, strays
    value = _BLOCK_SCALAR.sub("", value)
    if kind == "input" and (match := _NO_INPUT.match(value)):
        rest = value[match.end() :].strip()
        if rest:
            strays.insert(0, ("stray-text", rest))
        return NO_INPUT, strays
    return value, strays


# How YAML announces a text over several lines.
_BLOCK_SCALAR = re.compile(r"\A[|>][+-]?[ \t]*\n\s*")
_BREAK = re.compile(r"\n[ \t]*(?:[-=*_~]{3,}|\**(?:\\?#[ ]?){2,}\**)[ \t]*\Z|(?<!#)#{2,}\Z")
_CLOSING_TAG = re.compile(
    rf"(?:</(?:{'|'.join((*FIELDS, OUTPUT))}|li|ul|ol|p|div)>\s*)+\Z|(?<!\\)\\\Z", re.IGNORECASE
)


def _undecorate(value: str) -> str:
    value = value.strip().strip(_INVISIBLE).strip()
    value = _CLOSING_TAG.sub("", _BREAK.sub("", value).rstrip()).rstrip()
    for mark in ("**", "__"):
        if value.count(mark) % 2:
            value = value.removeprefix(mark) if value.startswith(mark) else value.removesuffix(mark)
        elif value.startswith(mark) and value.endswith(mark) and value.count(mark) == 2:
            value = value.removeprefix(mark).removesuffix(mark)
    return value.strip()


def unquote(values: Mapping[str, str]) -> dict[str, str]:
    """Take off quotation marks where every value of a task stands in them, as in YAML.

    Example:
        >>> unquote({"type": '"Chat"', "topic": '"Gout"', "instruction": '"Greet."'})
        {'type': 'Chat', 'topic': 'Gout', 'instruction': 'Greet.'}
    """
    said = [v for kind, v in values.items() if kind != "difficulty" and v and v != NO_INPUT]
    for mark in ('"', "'"):
        if len(said) >= 3 and all(len(v) > 1 and v[0] == v[-1] == mark and mark not in v[1:-1] for v in said):
            return {kind: value.strip(mark) for kind, value in values.items()}
    return dict(values)


def _split_closing(value: str) -> tuple[str, str]:
    """Split off last paragraphs in which the assistant speaks to its user."""
    paragraphs = re.split(r"(\n[ \t]*\n\s*)", value)
    keep = len(paragraphs)
    while keep > 1 and (
        _ASSISTANT_VOICE.match(paragraphs[keep - 1]) or not paragraphs[keep - 1].strip("-=*_~ \n")
    ):
        keep -= 2
    closing = "".join(paragraphs[keep:]).strip()
    value = _BREAK.sub("", "".join(paragraphs[:keep]).strip()).rstrip()
    if number := _LONE_LAST_NUMBER.search(value):
        return value[: number.start()].strip(), f"{number.group().strip()}\n{closing}".strip()
    return value, closing


_LONE_LAST_NUMBER = re.compile(r"\n[ \t]*\n[ \t]*\d{1,3}[.)][ \t]*\Z")
_LEVEL_WORDS = re.compile(
    r"(?:\W|\b(?:level|very|rather|easy|basic|simple|low|medium|moderate|intermediate|hard|difficult|challenging"
    r"|high|advanced|expert|complex|out|of|stars?|10|5)\b)*",
    re.IGNORECASE,
)
_WORD_LEVELS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}


def _split_difficulty(value: str) -> tuple[str, str]:
    """Read a level from 1 to 5 out of "3/5", "Level 3", "3 (moderate)" or stars; return it and any other words."""
    value = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in value)
    stars = max(value.count("★") + value.count("⭐"), value.count("●"))
    match = re.search(r"(?<![\d.])([1-5])(?![\d.]*\d)", value)
    if 1 <= stars <= 5:
        level, rest = str(stars), re.sub("[★☆⭐●○]", "", value)
    elif match:
        level, rest = match.group(1), value[: match.start()] + " " + value[match.end() :]
    else:
        return _WORD_LEVELS.get(value.lower().strip("."), value), ""
    return level, "" if _LEVEL_WORDS.fullmatch(rest) else rest.strip()
