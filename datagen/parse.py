"""Reads the tasks out of a teacher's reply, however it is numbered, decorated or cut.

The reply is searched for **marks**: labels such as ``Type:`` (numbered, bold, bulleted, in any case) and separators
(``###``, rules, headings like "Task 5"). Separators always end a task. Between two separators the marks are divided
into tasks by the cheapest reading: a task without an instruction is costly, a missing or misplaced field less so,
and a label inside an input ("Type: venous blood") may be taken as the text that it is. Since a value runs from its
own label to the next, a missing field cannot shift the others. Whatever is not a task is returned as
:class:`Rejected` with its text, so that reply = tasks + rejected + structure.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from datagen.quality import CUT, refers_to_material
from datagen.records import NO_INPUT, SeedTask

FIELDS = ("type", "topic", "view", "difficulty", "instruction", "input")
_HEADERS = frozenset(FIELDS[:4])
_OUTPUT = "output"
_SEPARATOR = "separator"


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A stretch of a reply that is no task.

    Reasons: ``prose`` (words around the tasks), ``stray-text`` (words after a finished field), ``unlabelled`` (a
    numbered item without labels), ``missing-instruction``, ``missing-input`` (the instruction speaks of a text that is
    not there), ``truncated`` (the reply was cut here), ``unasked-output`` (the teacher answered its own task),
    ``nested`` (a field still holds another task), ``surplus`` (beyond the number asked for).
    """

    reason: str
    text: str


@dataclasses.dataclass(frozen=True)
class _Mark:
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
    _OUTPUT: r"(?:(?:expected|sample|example)[ ]+)?outputs?|(?:expected[ ]+)?response",
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
_CAPITAL_NAME = "|".join(f"(?P<{kind}>{kind.capitalize()}|{kind.upper()})" for kind in (*FIELDS, _OUTPUT))
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
_NUMBERED = re.compile(r"^\W*(?:task|item)?\s*#?\d{1,4}\s*[.):：、．）]")
_LONE_NUMBER = re.compile(r"^[\s*#_(]*(?:task|item)?\s*#?(\d{1,4})\s*[.):：、．）]*[\s*#_]*$", re.IGNORECASE)
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


def parse_tasks(
    reply: str, *, first_number: int = 1, expected: int | None = None, finish_reason: str = "stop"
) -> list[SeedTask | Rejected]:
    """Find every task in a reply.

    Args:
        reply: The teacher's text. It may go on where the prompt stopped ("4. Type:"), with or without repeating that.
        first_number: The number that the prompt left open; a reply may begin with it.
        expected: How many tasks were asked for; more are returned as rejected "surplus". None takes all.
        finish_reason: As the service gave it; after "length" a task that nothing closes is rejected "truncated".

    Returns:
        Tasks and rejected stretches in the order of the reply.

    Example:
        >>> reply = "Chat\\nTopic: Gout\\nView: Patient\\nDifficulty: 1\\nInstruction: What is gout?\\nInput: none"
        >>> parse_tasks(reply)[0].type, parse_tasks(reply)[0].input
        ('Chat', '<noinput>')
        >>> parse_tasks("Sure! I can do that.")
        [Rejected(reason='prose', text='Sure! I can do that.')]
    """
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    results: list[SeedTask | Rejected] = []
    found = 0
    for result in _read(text, first_number, finish_reason in CUT):
        if isinstance(result, SeedTask):
            found += 1
            if expected is not None and found > expected:
                result = Rejected("surplus", _as_text(result))
        results.append(result)
    return results


def _read(text: str, first_number: int, cut: bool) -> Iterator[SeedTask | Rejected]:
    stretches = list(_stretches(text, _find_marks(text)))
    for place, (start, end, marks) in enumerate(stretches):
        last = place == len(stretches) - 1
        yield from _read_stretch(
            text, start, end, marks, cut=cut and last, open_number=first_number if place == 0 else None
        )


def _find_marks(text: str) -> list[_Mark]:
    """Return labels and separators in the order of the text, none overlapping another."""
    marks: list[_Mark] = []
    for pattern in (_LINE_LABEL, _HEADING_LABEL, _INLINE_LABEL):
        for match in pattern.finditer(text):
            kind = next(kind for kind in _NAMES if match.group(kind))
            number = match.group("number")
            mark = _Mark(kind, match.start(), match.end(), int(number) if number else None)
            if pattern is _INLINE_LABEL and match.group("fence"):
                marks.append(_Mark(_SEPARATOR, match.start("fence"), match.end("fence")))
                mark = dataclasses.replace(mark, start=match.end("fence"))
            marks.append(mark)
    marks += [_Mark(_SEPARATOR, match.start(), match.end()) for match in _HASHES.finditer(text)]
    marks += [_Mark(_SEPARATOR, match.start(), match.start()) for match in _TITLE.finditer(text)]
    starts = {mark.start for mark in marks}
    for match in _RULE.finditer(text):
        after = re.compile(r"\s*").match(text, match.end())
        if after and (
            after.end() == len(text) or after.end() in starts or _begins_line_label(text, after.end())
        ):
            marks.append(_Mark(_SEPARATOR, match.start(), match.end()))
    return _without_overlaps(text, sorted(marks, key=lambda mark: (mark.start, -mark.end)))


def _begins_line_label(text: str, at: int) -> bool:
    return _LINE_LABEL.match(text, text.rfind("\n", 0, at) + 1) is not None


def _without_overlaps(text: str, marks: Sequence[_Mark]) -> list[_Mark]:
    """Drop marks that lie in another one, inline labels that go on no line of labels, and a patient's "Output:"."""
    kept: list[_Mark] = []
    for mark in marks:
        if kept and mark.start < kept[-1].end:
            continue
        before = text[kept[-1].end : mark.start] if kept else text[: mark.start]
        line = text.rfind("\n", 0, mark.start) + 1
        inline = mark.kind != _SEPARATOR and text[line : mark.start].strip(" \t#") != ""
        if inline and mark.number is None and not (kept and _follows_on_line(kept[-1], mark, line)):
            continue
        if mark.kind == _OUTPUT and ("intake" in before.lower() or (kept and kept[-1].kind == _OUTPUT)):
            continue
        listed = mark.number is not None and re.search(
            rf"^\s*{mark.number - 1}[ \t]*[.)].*\s*\Z", before, re.M
        )
        kept.append(dataclasses.replace(mark, inline=inline, listed=bool(listed)))
    return kept


def _follows_on_line(before: _Mark, mark: _Mark, line: int) -> bool:
    """Say whether a label stands in the same line after a label that comes before it in the field order."""
    order = (*FIELDS, _OUTPUT)
    return before.end > line and before.kind in order and order.index(before.kind) < order.index(mark.kind)


def _stretches(text: str, marks: Sequence[_Mark]) -> Iterator[tuple[int, int, list[_Mark]]]:
    """Yield (start, end, labels) of each piece of text between two separators, blank ones left out."""
    start, labels = 0, []
    for mark in [*marks, _Mark(_SEPARATOR, len(text), len(text))]:
        if mark.kind != _SEPARATOR:
            labels.append(mark)
            continue
        if text[start : mark.start].strip():
            yield start, mark.start, labels
        start, labels = mark.end, []


def _read_stretch(
    text: str, start: int, end: int, marks: list[_Mark], *, cut: bool, open_number: int | None
) -> Iterator[SeedTask | Rejected]:
    cut = cut and end == len(text)
    if not marks:
        yield Rejected(_reason_without_labels(text[start:end], cut), text[start:end].strip())
        return
    lead, opened = _split_lead(text[start : marks[0].start], marks[0], open_number)
    if lead:
        yield Rejected("prose", lead)
    groups = _divide(marks, cut, {"type"} if opened else set())
    for place, group in enumerate(groups):
        group_end = groups[place + 1][0].start if place + 1 < len(groups) else end
        given = {"type": opened} if opened and place == 0 else {}
        yield from _build(text, group, group_end, given, cut=cut and place == len(groups) - 1)


def _reason_without_labels(text: str, cut: bool) -> str:
    if cut:
        return "truncated"
    return "unlabelled" if _NUMBERED.match(text) else "prose"


def _split_lead(lead: str, first: _Mark, open_number: int | None) -> tuple[str, str]:
    """Divide the text before the first label into prose and the value of a ``Type:`` that has no label.

    At the reply's start the prompt may have left that label open (``open_number``, which the teacher may repeat);
    anywhere the teacher may write "5. Chat" for "5. Type: Chat".
    """
    lines = [line.strip() for line in lead.split("\n") if line.strip()]
    if not lines:
        return "", ""
    numbered = _NUMBERED.match(lines[-1])
    if first.kind == "topic" and (numbered or open_number is not None):
        value = lines[-1][numbered.end() :] if numbered else re.sub(rf"^{open_number}\b", "", lines[-1])
        value = value.strip()
        if value and len(value.split()) <= 8 and value[-1] not in ".:!?;：":
            return "\n".join(lines[:-1]), value
    if len(lines) == 1 and (_LONE_NUMBER.match(lines[0]) or re.fullmatch(r"`{3,}\w*", lines[0])):
        return "", ""
    return "\n".join(lines), ""


def _divide(marks: list[_Mark], cut: bool, given: set[str]) -> list[list[_Mark]]:
    """Divide the labels of a stretch into tasks by the cheapest reading (dynamic programme over the cuts).

    ``given`` names fields of the first task that stood before its first label.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(marks) + 1):
        unfinished = cut and stop == len(marks)
        best.append(
            min(
                (best[start][0] + _cost(marks[start:stop], set() if start else given, unfinished), start)
                for start in range(max(0, stop - 2 * len(FIELDS) - 2), stop)
            )
        )
    groups: list[list[_Mark]] = []
    stop = len(marks)
    while stop:
        start = best[stop][1]
        groups.append(_without_absorbed(marks[start:stop], set() if start else given))
        stop = start
    return groups[::-1]


def _cost(group: Sequence[_Mark], given: set[str], unfinished: bool) -> float:
    """Price reading these labels as one task; the weights order the readings and mean nothing by themselves."""
    cost, absorbed, highest = 0.0, 0, -1
    seen = set(given)
    order = (*FIELDS, _OUTPUT)
    for place, mark in enumerate(group):
        if mark.kind == _OUTPUT:
            continue
        if mark.kind in seen:
            absorbed += 1
            cost += 5 if absorbed == 1 else 9
            if mark.number is not None and not mark.listed:
                cost += 6 if mark.inline else 20
            if mark.kind == "instruction" and not ("input" in seen and len(seen & _HEADERS) >= 3):
                cost += 50
            continue
        if place and mark.number is not None:
            # Fields numbered as a list, "2. Topic:", are one task; any other number begins a new one.
            cost += 0.5 if mark.number == order.index(mark.kind) + 1 else 14
        rank = order.index(mark.kind)
        cost += 0.3 * (rank < highest)
        highest = max(highest, rank)
        seen.add(mark.kind)
    cost += len(_HEADERS - seen)
    if "input" not in seen:
        cost += 0.2 if unfinished else 1.5
    if "instruction" not in seen:
        cost += 1 if unfinished else 8
    return cost


def _without_absorbed(group: Sequence[_Mark], given: set[str]) -> list[_Mark]:
    """Return the first label of each kind, and every "Output:"; other repeats are text."""
    seen = set(given)
    kept: list[_Mark] = []
    for mark in group:
        if mark.kind not in seen:
            kept.append(mark)
            seen |= {mark.kind} - {_OUTPUT}
    return kept


def _build(
    text: str, group: Sequence[_Mark], end: int, given: dict[str, str], *, cut: bool
) -> Iterator[SeedTask | Rejected]:
    """Turn the labels of one task into the task, or say why there is none; leftovers follow as rejected."""
    whole = "\n".join([*given.values(), text[group[0].start : end].strip()])
    if cut and not (group[-1].kind == _OUTPUT and {"instruction", "input"} <= {mark.kind for mark in group}):
        yield Rejected("truncated", whole)
        return
    values = dict(given)
    strays: list[tuple[str, str]] = []
    for place, mark in enumerate(group):
        following = group[place + 1] if place + 1 < len(group) else None
        raw = text[mark.end : following.start if following else end]
        if following and following.inline:
            raw = raw.rstrip(" \t;|,")
        value, leftovers = _clean(mark.kind, raw, final=following is None)
        if mark.kind == _OUTPUT:
            leftovers = [("unasked-output", value), *leftovers] if value else leftovers
        else:
            values[mark.kind] = value
        strays += leftovers
    if not values.get("instruction"):
        yield Rejected("missing-instruction", whole)
        return
    if not values.get("input") and refers_to_material(values["instruction"]):
        yield Rejected("missing-input", whole)
        return
    if any(_holds_task(value) for kind, value in values.items() if kind in ("instruction", "input")):
        yield Rejected("nested", whole)
        return
    kept: dict[str, Any] = {kind: values.get(kind, "") for kind in FIELDS}
    yield SeedTask(**{**kept, "input": kept["input"] or NO_INPUT})
    for reason, leftover in strays:
        yield Rejected(reason, leftover)


def _clean(kind: str, raw: str, *, final: bool) -> tuple[str, list[tuple[str, str]]]:
    """Strip a value of its decoration and split off what does not belong to it."""
    value = _undecorate(re.sub(r"(?m)^[ \t]*`{3,}\w*[ \t]*$", "", raw))
    strays: list[tuple[str, str]] = []
    if final:
        value, prose = _split_closing(value)
        strays += [("prose", prose)] if prose else []
    if kind in _HEADERS:
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


def _holds_task(value: str) -> bool:
    kinds = {next(kind for kind in _NAMES if match.group(kind)) for match in _LINE_LABEL.finditer(value)}
    return "instruction" in kinds and len(kinds) > 1


def _as_text(task: SeedTask) -> str:
    return "\n".join(f"{kind.capitalize()}: {getattr(task, kind)}" for kind in FIELDS)
