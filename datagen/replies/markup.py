"""Writes a reply in HTML or XML, or within block quotes, as the plain lines that it stands for."""

import html
import re

from datagen.phrases import compiled
from datagen.replies.marks import FIELDS, name_of_field

_SHOWN_AS = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "\n### ") | {
    "hr": "\n---\n",
    "li": "\n- ",
}


def as_plain_lines(reply: str) -> str:
    """Take the markup off a reply whose field labels stand in it; any other reply is returned as it is.

    An element or attribute named like a field becomes its label, a block of HTML a line of its own.

    Example:
        >>> print(as_plain_lines('<p type="Chat"><topic>Gout</topic><input>pH &lt; 7</input></p>').strip())
        Type: Chat
        Topic: Gout
        Input: pH < 7
    """
    if len(_kinds(compiled("quoted label"), reply)) >= 3:
        reply = compiled("block quote").sub("", reply)
    named = {field for match in compiled("tag").finditer(reply) for field in _fields_of(match)}
    if (
        len(named) < 3
        and len(_kinds(compiled("label behind a tag"), reply)) < 3
        and not compiled("page").match(reply)
    ):
        return reply
    text = compiled("not shown").sub("", reply)
    text = compiled("label within a tag").sub(
        lambda match: f"{match['word']}: " if name_of_field(match["word"]) else match[0], text
    )
    text = compiled("label in a cell").sub(_as_label, text)
    closed = {match["name"].lower() for match in compiled("tag").finditer(text) if match["end"]}
    writer = _Writer(closed)
    text = compiled("tag").sub(writer.write, text)
    return re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", html.unescape(text))


def _as_label(cells: re.Match[str]) -> str:
    """Return the first of two cells as a label, unless both are names: then they head the columns of a table."""
    names = name_of_field(cells["word"]), name_of_field(cells["next"].strip(": "))
    return f"\n{cells['word']}: {cells['next']}" if names[0] and not names[1] else cells[0]


def _kinds(pattern: re.Pattern[str], text: str) -> set[str]:
    return {field for match in pattern.finditer(text) if (field := name_of_field(match["word"]))}


def _fields_of(tag: re.Match[str]) -> dict[str, str]:
    """Return the fields that a tag names, by its attributes or by itself, each with its value."""
    if tag["end"]:
        return {}
    values: dict[str, str] = {}
    for name, double, single in compiled("each attribute").findall(tag["attributes"]):
        if name.lower() in FIELDS:
            values[name.lower()] = double or single
        elif name.lower() in ("name", "key", "id", "label", "class") and (double or single).lower() in FIELDS:
            values[(double or single).lower()] = ""
    if tag["name"].lower() in FIELDS and not values:
        values[tag["name"].lower()] = ""
    return values


class _Writer:
    """Replaces each tag by plain text, in the order of the tags."""

    def __init__(self, closed: set[str]) -> None:
        self.closed = closed
        self.field = ""
        self.in_cell = False

    def write(self, tag: re.Match[str]) -> str:
        name, ends = tag["name"].lower(), bool(tag["end"])
        line_end = "\n" if tag["line_end"] else ""
        if fields := _fields_of(tag):
            lines = "\n".join(f"{field.capitalize()}: {value}" for field, value in fields.items())
            if all(fields.values()):
                # What stands in an element whose attributes are the other fields is its input.
                holds_input = (
                    "instruction" in fields and "input" not in fields and tag.string[tag.end() :][:1] != "<"
                )
                return f"\n{lines}\n{'Input: ' if holds_input else ''}"
            self.field = name
            return f"\n{lines}{line_end}"
        if ends and name == self.field:
            self.field = ""
            return "\n"
        if compiled("inline tags").fullmatch(name):
            return line_end
        if name in ("tr", "thead", "tbody", "tfoot"):
            return "\n" if name == "tr" and not ends else ""
        if name in ("td", "th"):
            self.in_cell = not ends
            return "" if ends else " | "
        if name == "br" and self.in_cell:
            return "<br>"
        if name in _SHOWN_AS:
            return "\n" if ends else _SHOWN_AS[name]
        if compiled("tags of blocks").fullmatch(name):
            return "\n"
        if self.field or name not in self.closed:
            return tag[0]
        # An element that holds tasks, or one of them, ends: what follows is no value.
        return "\n###\n" if ends else "\n"
