"""Finds labels (``Type:``) and separators (``###``) in a teacher's reply, however they are decorated."""

import dataclasses
import re
from collections.abc import Sequence

FIELDS = ("type", "topic", "view", "difficulty", "instruction", "input")
HEADERS = frozenset(FIELDS[:4])
OUTPUT = "output"
SEPARATOR = "separator"


@dataclasses.dataclass(frozen=True)
class Mark:
    """A label or a separator at ``start:end`` of the reply.

    ``number`` is the item's number where one stands; ``inline`` says that other text precedes it in its line,
    ``listed`` that its number only goes on with a list ("1. Site: colon", "2. Type: ...").
    """

    kind: str
    start: int
    end: int
    number: int | None = None
    inline: bool = False
    listed: bool = False


_NAMES = {
    "type": r"(?:task[ ]+)?type|type[ ]+of[ ]+task",
    "topic": r"(?:(?:medical|clinical)[ ]+)?topic",
    "view": r"view[ ]?point|view|point[ ]+of[ ]+view|perspective",
    "difficulty": r"difficulty(?:[ ]+(?:level|rating))?|level[ ]+of[ ]+difficulty",
    "instruction": r"(?:task[ ]+)?instructions?",
    "input": r"(?:task[ ]+)?inputs?(?:[ ]+text)?",
    OUTPUT: r"(?:(?:expected|sample|example)[ ]+)?outputs?|(?:expected[ ]+)?response",
}
_ANY_NAME = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _NAMES.items())
_DECOR = r"(?:[ \t\xa0\u200b\ufeff>•·●▪◦‣|*_`#+\-–—\[]|</?(?:b|strong|i|em|u)>)*+"
_NUMBER = (
    r"(?:(?:task|item|example|question|no\.?|number)[ \t]*)?[#(]?(?P<number>\d{1,4})(?!\d)[ \t]*"
    r"(?:[.):：、．）\]/]|[-–—](?=[ ]))?[ \t]*[*_]*"
)
_CLOSE = r"[ \t]*(?:[*_`\]]|</(?:b|strong|i|em|u)>)*"
_COLON = r"[ \t]*[:：﹕︰](?:[*_`\]]|</(?:b|strong|i|em|u)>)*"
_LINE_LABEL = re.compile(
    rf"^{_DECOR}(?:{_NUMBER}(?:(?<=[.):：、．）\]*])(?:[ \t]*\n){{0,3}})?{_DECOR})?"
    rf"(?:{_ANY_NAME}){_CLOSE}(?:{_COLON}|[ ]+[-–—=][ ]+)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING_LABEL = re.compile(
    rf"^[ \t]*(?:#{{1,6}}[ \t]*|\*\*[ \t]*)(?:{_NUMBER})?(?:{_ANY_NAME})[ \t]*(?:\*\*)?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_CAPITAL_NAME = "|".join(f"(?P<{kind}>{kind.capitalize()}|{kind.upper()})" for kind in (*FIELDS, OUTPUT))
_INLINE_LABEL = re.compile(
    rf"(?<=[\s;,|.>/*])(?P<fence>\#{{2,}}[ \t]*)?(?:(?P<number>\d{{1,4}})[ \t]*[.)）．、][ \t]*)?[*_`]*"
    rf"(?:{_CAPITAL_NAME}){_COLON}"
)
_HASHES = re.compile(r"[ \t]*#{2,}[ \t]*(?=\n|$)|^[ \t]*#{3,}(?=[ \t]*\d{1,4}[ \t]*[.)])", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:-{3,}|={3,}|\*{3,}|_{3,}|~{3,}|(?:[-*_] ){2,}[-*_])[ \t]*$", re.MULTILINE)
_TITLE = re.compile(
    r"^[ \t]*(?:[#*>_\-•][ \t#*_]*)?(?:task|item|example)[ \t]*(?:no\.?[ \t]*|#)?\d{1,4}\b[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
NUMBERED = re.compile(r"^\W*(?:task|item)?\s*#?\d{1,4}\s*[.):：、．）]")
LONE_NUMBER = re.compile(r"^[\s*#_(]*(?:task|item)?\s*#?(\d{1,4})\s*[.):：、．）]*[\s*#_]*$", re.IGNORECASE)


def find_marks(text: str) -> list[Mark]:
    """Return labels and separators in the order of the text, none overlapping another."""
    marks: list[Mark] = []
    for pattern in (_LINE_LABEL, _HEADING_LABEL, _INLINE_LABEL):
        for match in pattern.finditer(text):
            kind = next(kind for kind in _NAMES if match.group(kind))
            number = match.group("number")
            mark = Mark(kind, match.start(), match.end(), int(number) if number else None)
            if pattern is _INLINE_LABEL and match.group("fence"):
                marks.append(Mark(SEPARATOR, match.start("fence"), match.end("fence")))
                mark = dataclasses.replace(mark, start=match.end("fence"))
            marks.append(mark)
    marks += [Mark(SEPARATOR, match.start(), match.end()) for match in _HASHES.finditer(text)]
    marks += [Mark(SEPARATOR, match.start(), match.start()) for match in _TITLE.finditer(text)]
    starts = {mark.start for mark in marks}
    for match in _RULE.finditer(text):
        after = re.compile(r"\s*").match(text, match.end())
        if after and (
            after.end() == len(text) or after.end() in starts or _begins_line_label(text, after.end())
        ):
            marks.append(Mark(SEPARATOR, match.start(), match.end()))
    return _without_overlaps(text, sorted(marks, key=lambda mark: (mark.start, -mark.end)))


def _begins_line_label(text: str, at: int) -> bool:
    return _LINE_LABEL.match(text, text.rfind("\n", 0, at) + 1) is not None


def _without_overlaps(text: str, marks: Sequence[Mark]) -> list[Mark]:
    """Drop marks that lie in another one, inline labels that go on no line of labels, and a patient's "Output:"."""
    kept: list[Mark] = []
    for mark in marks:
        if kept and mark.start < kept[-1].end:
            continue
        before = text[kept[-1].end : mark.start] if kept else text[: mark.start]
        line = text.rfind("\n", 0, mark.start) + 1
        inline = mark.kind != SEPARATOR and text[line : mark.start].strip(" \t#") != ""
        if inline and mark.number is None and not (kept and _follows_on_line(kept[-1], mark, line)):
            continue
        if mark.kind == OUTPUT and ("intake" in before.lower() or (kept and kept[-1].kind == OUTPUT)):
            continue
        listed = mark.number is not None and re.search(
            rf"^\s*{mark.number - 1}[ \t]*[.)].*\s*\Z", before, re.M
        )
        kept.append(dataclasses.replace(mark, inline=inline, listed=bool(listed)))
    return kept


def _follows_on_line(before: Mark, mark: Mark, line: int) -> bool:
    """Say whether a label stands in the same line after a label that comes before it in the field order."""
    order = (*FIELDS, OUTPUT)
    return before.end > line and before.kind in order and order.index(before.kind) < order.index(mark.kind)


def holds_task(value: str) -> bool:
    """Say whether a value has lines that are labels of another task."""
    kinds = {next(kind for kind in _NAMES if match.group(kind)) for match in _LINE_LABEL.finditer(value)}
    return "instruction" in kinds and len(kinds) > 1
