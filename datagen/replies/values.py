"""Cleans the value of a field and splits off what does not belong to it."""

import re
import unicodedata
from collections.abc import Mapping

import yaml

from datagen.labels import normalise_difficulty
from datagen.phrases import compiled, search
from datagen.records import NO_INPUT
from datagen.replies.marks import HEADERS

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"

# In other languages: a paragraph that speaks of the tasks, or a hope that ends in an exclamation.
_LONGEST_CLOSING = 300


def clean(kind: str, raw: str, *, final: bool) -> tuple[str, list[tuple[str, str]]]:
    """Strip a value of its decoration and split off what does not belong to it."""
    raw, below = _within_fences(raw)
    value = _undecorate(raw)
    strays: list[tuple[str, str]] = [("prose", below)] if any(map(str.isalnum, below)) else []
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
    if kind == "input" and (match := compiled("no input").match(value)):
        rest = value[match.end() :].strip()
        if rest:
            strays.insert(0, ("stray-text", rest))
        return NO_INPUT, strays
    return value, strays


def _undecorate(value: str) -> str:
    value = compiled("spaces at a line end").sub("", value.strip().strip(_INVISIBLE)).strip()
    value = compiled("closing tag").sub("", compiled("separator at an end").sub("", value).rstrip()).rstrip()
    for mark in ("**", "__"):
        if value.count(mark) % 2:
            value = value.removeprefix(mark) if value.startswith(mark) else value.removesuffix(mark)
        elif value.startswith(mark) and value.endswith(mark) and value.count(mark) == 2:
            value = value.removeprefix(mark).removesuffix(mark)
    return value.strip()


def _within_fences(raw: str) -> tuple[str, str]:
    """Take code fences off a value, and quotation marks off its lines; words below the last fence are not its own."""
    parts = compiled("fence of code").split(raw)
    if len(parts) % 2 and parts[0].strip() and any(part.strip() for part in parts[1:]):
        return raw, ""
    keep = max(1, len(parts) - 1) if parts[0].strip() else 2
    value, below = "".join(parts[:keep]), "".join(parts[keep:]).strip()
    lines = [line for line in value.split("\n") if line.strip()]
    if (
        value.lstrip(" \t").startswith("\n")
        and lines
        and all(line.lstrip().startswith(">") for line in lines)
    ):
        value = re.sub(r"(?m)^[ \t]*>[ ]?", "", value)
    return value, below


# --- values as YAML and TOML write them ---------------------------------------------------------------------------

_WRAPPED = 60
"""A line that is shorter ends where its author ended it; a longer one may have been wrapped."""


def is_block(raw: str) -> bool:
    """Say whether a value is a block scalar of YAML, whose quotation marks are its own."""
    return bool(compiled("block scalar").match(raw))


def unindent(raw: str, column: int, *, data: bool = False) -> tuple[str, str]:
    """Take off the indentation that a value owes to its label at ``column``; lines less indented than a block follow.

    Example:
        >>> unindent(" |\\n    A. rest\\n      at once\\n    B. run\\n```", 2)
        ('A. rest\\n  at once\\nB. run', '```')
        >>> unindent(" Choose.\\n  A. rest\\n  B. run", 2)
        (' Choose.\\nA. rest\\nB. run', '')
    """
    block = compiled("block scalar").match(raw)
    first, _, below = raw.partition("\n")
    lines = below.split("\n")
    filled = [line for line in lines if line.strip()]
    if not filled:
        return raw, ""
    depth = min(map(_depth, filled))
    if block:
        depth = _depth(filled[0])
        end = next((n for n, line in enumerate(lines) if line.strip() and _depth(line) < depth), len(lines))
        text = "\n".join(line[depth:] for line in lines[:end])
        return _unfold(text, 0) if block["style"] == ">" else text.rstrip(), "\n".join(lines[end:]).strip()
    wrapped = data and first.strip() and depth > column
    if first.strip() and not wrapped and (not column or first.rstrip().endswith(":")):
        depth = min(depth, column)
    text = "\n".join([first, *(line[min(depth, _depth(line)) :] for line in lines)])
    return _unfold(text, _WRAPPED) if wrapped and first.strip()[0] not in "\"'" else text, ""


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _unfold(text: str, wrapped: int) -> str:
    """Join lines of a paragraph that are ``wrapped`` characters long or more; items of a list stay on their lines."""
    lines: list[str] = []
    width = 0
    for line in text.strip().split("\n"):
        if lines and width > wrapped and line.strip() and not compiled("list item of YAML").match(line):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
        width = len(line.strip())
    return "\n".join(lines)


def unquote(values: Mapping[str, str], *, data: bool) -> dict[str, str]:
    """Read values as YAML or TOML: those in quotation marks where all of a task are, or where its labels are keys.

    Example:
        >>> unquote({"type": '"Chat"', "topic": '"Gout"', "instruction": '"Greet."'}, data=False)
        {'type': 'Chat', 'topic': 'Gout', 'instruction': 'Greet.'}
        >>> unquote({"type": "Chat", "input": '"Chest pain:\\\\nworse."'}, data=True)
        {'type': 'Chat', 'input': 'Chest pain:\\nworse.'}
    """
    said = [v for kind, v in values.items() if kind != "difficulty" and v and v != NO_INPUT]
    if data or (len(said) >= 3 and all(compiled("quoted string").fullmatch(value) for value in said)):
        return {kind: _text_of(value) for kind, value in values.items()}
    # An input may be what somebody said; an instruction is in quotation marks only for show.
    return {
        kind: _text_of(value) if kind == "instruction" or compiled("long string").fullmatch(value) else value
        for kind, value in values.items()
    }


def _text_of(value: str) -> str:
    if long := compiled("long string").fullmatch(value):
        return long["text"].strip()
    if not compiled("quoted string").fullmatch(value):
        return value
    try:
        return str(yaml.load(value, Loader=yaml.BaseLoader)).strip()
    except yaml.YAMLError:
        return value[1:-1]


# --- words behind the last value ----------------------------------------------------------------------------------


def _is_closing(paragraph: str) -> bool:
    if compiled("voice of the assistant").match(paragraph):
        return True
    short = len(paragraph) <= _LONGEST_CLOSING and "\n" not in paragraph.strip()
    if short and compiled("remark on a task").fullmatch(paragraph.strip()):
        return True
    return short and bool(search("speaks of tasks", paragraph) or compiled("hope expressed").match(paragraph))


def _split_closing(value: str) -> tuple[str, str]:
    """Split off last paragraphs in which the assistant speaks to its user."""
    paragraphs = compiled("end of a paragraph").split(value)
    keep = len(paragraphs)
    while keep > 1 and (_is_closing(paragraphs[keep - 1]) or not paragraphs[keep - 1].strip("-=*_~ \n")):
        keep -= 2
    closing = "".join(paragraphs[keep:]).strip()
    value = compiled("separator at an end").sub("", "".join(paragraphs[:keep]).strip()).rstrip()
    return value, closing


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
        level = normalise_difficulty(value)
        return level if level in ("1", "2", "3", "4", "5") else value, ""
    return level, "" if compiled("words beside a level").fullmatch(rest) else rest.strip()
