"""A judge's reply as plain lines of its own words: what decorates it is removed, what it only quotes is masked."""

import html
import json
import re
import unicodedata

from alpacare_jax.evaluate.verdict_patterns import pattern
from datagen.replies.thinking import without_thoughts

QUOTED = "quotation"

_HIDDEN = {"Mn", "Me", "Cf", "So", "Cs", "Co"}
_QUOTES = dict.fromkeys(map(ord, "“”„‟«»「」『』"), '"') | dict.fromkeys(map(ord, "‘’‚‛′‹›"), "'")
_MARKS = str.maketrans("_|", " :", "*~#$`")


def own_lines(raw: str) -> list[str]:
    """Bring a judge's reply into plain lines that hold its own words alone.

    Thoughts and control tokens are removed, compatibility characters (full-width letters) normalised,
    invisible ones dropped, JSON objects and tags turned into ``name: value`` lines, marks of Markdown and HTML
    taken off. A quotation inside a line, a quoted line and a code block become the word "quotation" or nothing,
    unless the reply begins or ends with them. A heading keeps a colon at its end.

    Args:
        raw: The judge's whole reply.

    Returns:
        Lines without outer or doubled white space, none of them empty.

    Example:
        >>> own_lines('One answer ends in "I prefer Output (a)".\\n\\n**Output (b)**</s>')
        ['One answer ends in quotation.', 'Output (b)']
        >>> own_lines('```json\\n{"winner": "b", "reason": "It is safer."}\\n```')
        ['winner: b', 'reason: It is safer.']
    """
    text = _fields_as_lines(_plain_characters(without_thoughts(raw)))
    lines = _without_quoted_blocks([line for line in text.splitlines() if line.strip()])
    last = len(lines) - 1
    plain = (
        _plain_line(line, edge=number in (0, last), last=number == last) for number, line in enumerate(lines)
    )
    return [line for line in plain if re.search(r"\w", line)]


def _plain_characters(text: str) -> str:
    if not text.isascii():
        text = text.translate(_QUOTES)
        text = "".join(c for c in text if unicodedata.category(c) not in _HIDDEN)
        text = unicodedata.normalize("NFKC", text)
    return html.unescape(text) if "&" in text else text


def _fields_as_lines(text: str) -> str:
    start, end = text.find("{"), text.rfind("}") if "}" in text else len(text)
    # An object on lines of its own is the judge's; one inside a sentence is only spoken of.
    if (
        0 <= start < end
        and pattern("before a quoted verdict").fullmatch(text[:start].rpartition("\n")[2])
        and pattern("end of an object").match(text, end + 1)
    ):
        text = f"{text[:start]}\n{_fields(text[start : end + 1])}\n{text[end + 1 :]}"
    text = pattern("boxed").sub(
        lambda hit: f"\nAnswer: {hit[1]}\n" if pattern("quoted label").fullmatch(hit[1]) else hit[1], text
    )
    text = pattern("field tag").sub(lambda hit: f"\n{hit[1] or hit[2]}: ", text)
    return pattern("escaped").sub(r"\1", pattern("tag").sub("\n", pattern("inline tag").sub("", text)))


def _fields(written: str) -> str:
    """Write the fields of an object as lines; one that is no JSON is split at what looks like its keys."""
    try:
        found = json.loads(written, strict=False)
    except (ValueError, RecursionError):
        return (
            pattern("key of an object")
            .sub(r"\n\1: ", written.strip("{}"))
            .replace("\\n", "\n")
            .rstrip("\"', \n")
        )
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            value = "; ".join(f"{inner}: {text}" for inner, text in value.items() if isinstance(text, str))
        if isinstance(value, str):
            lines.append(f"{key}: {value}")
    return "\n".join(lines)


def _without_quoted_blocks(lines: list[str]) -> list[str]:
    """Drop code blocks and quoted lines that stand between lines of the judge's own."""
    fences = [number for number, line in enumerate(lines) if pattern("fence").match(line)]
    quoted = set(fences)
    for opened, closed in zip(fences[::2], fences[1::2], strict=False):
        if opened > 0 and closed < len(lines) - 1:
            quoted.update(range(opened, closed))
    quoted.update(n for n in range(1, len(lines) - 1) if lines[n].lstrip().startswith(">"))
    return [line for number, line in enumerate(lines) if number not in quoted]


def _plain_line(line: str, *, edge: bool, last: bool) -> str:
    heading = pattern("heading").match(line) if line.lstrip().startswith("#") else None
    line = line.lstrip("> \t") if edge else line
    line = line.strip().strip("|") if line.lstrip().startswith("|") else line
    line = pattern("bullet").sub("", line, count=1) if pattern("bullet").match(line) else line
    line = line.replace("**", "").replace("__", "")
    line = pattern("quote").sub(lambda hit: _unquoted(hit, edge=edge), line)
    line = " ".join(line.translate(_MARKS).split()).lstrip(": ")
    return f"{line}:" if heading and not last and not line.endswith(":") else line


def _unquoted(hit: re.Match[str], *, edge: bool) -> str:
    inside = next(group for group in hit.groups() if group)
    label = pattern("quoted label").fullmatch(inside)
    closes_the_line = len(hit.string) - hit.end() < 20 and not hit.string[hit.end() :].strip(" .!*_")
    if edge and closes_the_line and pattern("before a quoted verdict").fullmatch(hit.string[: hit.start()]):
        return inside
    if label and label[1].lower() in "ab":
        return f"Output ({label[1]})"
    if label and label[1].lower() == "tie":
        return label[1]
    return QUOTED + (inside[-1] if inside[-1] in ".!" else "")
