"""Reads the tasks out of a teacher's reply, however it is numbered, decorated or cut.

A reply may hold JSON objects or tables with a task in each (:mod:`datagen.replies.structures`). All else is searched
for **marks** (:mod:`datagen.replies.marks`): labels such as ``Type:`` (numbered, bold, bulleted, in any case) and
separators (``###``, rules, headings like "Task 5"), which end a task. Between two separators the marks are divided
into tasks by the cheapest reading (:mod:`datagen.replies.grouping`): a task without instruction is costly, a missing
or misplaced field less so, and a label inside an input ("Type: venous blood") may be taken as the text that it is.
Since a value runs from its own label to the next, a missing field cannot shift the others. Whatever is not a task is
returned as :class:`Rejected` with its text, so that reply = tasks + rejected + structure.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datagen.finish import read_finish
from datagen.phrases import compiled, search
from datagen.quality import refers_to_material
from datagen.records import NO_INPUT, SeedTask
from datagen.replies.grouping import divide, stretches_of
from datagen.replies.headings import is_bare_number
from datagen.replies.marks import FIELDS, HEADERS, OUTPUT, Mark, find_marks, holds_task
from datagen.replies.markup import as_plain_lines
from datagen.replies.structures import Structure, find_structures, mend, without_wrapper
from datagen.replies.thinking import without_thoughts
from datagen.replies.values import clean, is_block, unindent, unquote

__all__ = ["FIELDS", "Rejected", "parse_tasks", "read_tasks"]

REFUSED = "refusal"


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A part of a reply that is not a task.

    Reasons: ``prose`` (words around the tasks), ``stray-text`` (words after a finished field), ``unlabelled`` (a
    numbered item without labels), ``missing-instruction``, ``missing-input`` (the instruction speaks of a text that is
    not there), ``truncated`` (the reply was cut here), ``unasked-output`` (the teacher answered its own task),
    ``nested`` (a field still holds another task), ``surplus`` (beyond the number asked for).
    """

    reason: str
    text: str


def read_tasks(
    reply: str, *, first_number: int = 1, expected: int | None = None, finish_reason: str = "stop"
) -> list[SeedTask | Rejected]:
    """Find every task in a reply as :func:`parse_tasks` does; a reply without tasks gives the reason.

    Args:
        reply: The teacher's text.
        first_number: The number at which a reply in text goes on with the list.
        expected: How many tasks were asked for; more are returned as rejected "surplus". None takes all.
        finish_reason: As the service gave it; "refusal" if the text is from the reply's field for refusals.

    Returns:
        Tasks and rejected parts in the order of the reply; never empty.
    """
    text = without_thoughts(reply)
    if finish_reason == REFUSED:
        return [Rejected("refusal", text)]
    pieces = parse_tasks(text, first_number=first_number, expected=expected, finish_reason=finish_reason)
    whole = read_finish(finish_reason) == "whole"
    return pieces or [Rejected("no-task-in-reply" if whole else "truncated", reply)]


def parse_tasks(
    reply: str, *, first_number: int = 1, expected: int | None = None, finish_reason: str = "stop"
) -> list[SeedTask | Rejected]:
    """Find every task in a reply.

    Args:
        reply: The teacher's text. It may go on where the prompt stopped ("4. Type:"), with or without repeating that.
        first_number: The number that the prompt left open; a reply may begin with it.
        expected: How many tasks were asked for; more are returned as rejected "surplus". None takes all.
        finish_reason: As the service gave it; where the reply is not whole, a task that nothing closes is rejected
            "truncated".

    Returns:
        Tasks and rejected parts in the order of the reply.

    Example:
        >>> reply = "Chat\\nTopic: Gout\\nView: Patient\\nDifficulty: 1\\nInstruction: What is gout?\\nInput: none"
        >>> parse_tasks(reply)[0].type, parse_tasks(reply)[0].input
        ('Chat', '<noinput>')
        >>> parse_tasks("Sure! I can do that.")
        [Rejected(reason='prose', text='Sure! I can do that.')]
    """
    results: list[SeedTask | Rejected] = []
    found = 0
    text, cut = as_plain_lines(mend(reply)), read_finish(finish_reason) != "whole"
    if cut and search("hash heading", text):
        # Among labels such as "### Input", hashes at the very end are rather a label's beginning than a separator.
        text = compiled("last hashes").sub("", text)
    for result in _read(text, first_number, cut):
        if isinstance(result, SeedTask):
            found += 1
            if expected is not None and found > expected:
                result = Rejected("surplus", _as_text(result))
        results.append(result)
    return results


def _read(text: str, first_number: int, cut: bool) -> Iterator[SeedTask | Rejected]:
    shown = without_thoughts(text)
    if text.rstrip().endswith(shown):
        thoughts = text.rstrip().removesuffix(shown).strip()
        if any(map(str.isalnum, thoughts)):
            yield Rejected("prose" if shown or not cut else "truncated", thoughts)
    text = shown
    structures = find_structures(text)
    start = 0
    for place, structure in enumerate(structures):
        before = without_wrapper(text[start : structure.start], before=True, after=place > 0).rstrip()
        last_line = before[before.rfind("\n") + 1 :]
        if is_bare_number(last_line):
            before = before.removesuffix(last_line)
        yield from _read_plain(before, first_number if place == 0 else None, cut=False)
        yield from _read_structure(text, structure, cut)
        start = structure.end
    rest = without_wrapper(text[start:], before=False, after=True) if structures else text
    yield from _read_plain(rest, None if structures else first_number, cut=cut)


def _read_structure(text: str, structure: Structure, cut: bool) -> Iterator[SeedTask | Rejected]:
    """Turn a JSON object or a table row into a task; a table's header holds nothing."""
    whole = text[structure.start : structure.end].strip()
    if not structure.values and structure.whole:
        return
    if not structure.whole and (cut or not structure.values.get("input")):
        yield Rejected("truncated" if cut else "unlabelled", whole)
        return
    strays: list[tuple[str, str]] = []
    values: dict[str, str] = {}
    for kind, raw in structure.values.items():
        value, leftovers = clean(kind, raw, final=False)
        if kind == OUTPUT:
            strays += [("unasked-output", value)] if value else []
        else:
            values[kind] = value
            strays += leftovers
    yield from _as_task(values, whole, [*strays, *(("stray-text", other) for other in structure.others)])


def _read_plain(text: str, open_number: int | None, *, cut: bool) -> Iterator[SeedTask | Rejected]:
    stretches = list(stretches_of(text, find_marks(text, first_number=open_number or 1, cut=cut)))
    for place, (start, end, marks) in enumerate(stretches):
        last = place == len(stretches) - 1
        number = open_number if place == 0 else None
        yield from _read_stretch(text, start, end, marks, cut=cut and last, open_number=number)


def _read_stretch(
    text: str, start: int, end: int, marks: list[Mark], *, cut: bool, open_number: int | None
) -> Iterator[SeedTask | Rejected]:
    cut = cut and end == len(text)
    if not marks:
        piece = text[start:end].strip()
        if not any(map(str.isalnum, piece)) or (compiled("wrapper of tasks").fullmatch(piece) and not cut):
            return
        yield Rejected(
            "truncated" if cut else "unlabelled" if compiled("numbered task").match(piece) else "prose", piece
        )
        return
    lead, opened = _split_lead(text[start : marks[0].start], marks[0], open_number)
    if lead:
        yield Rejected("prose", lead)
    groups = divide(marks, cut, {"type"} if opened else set())
    for place, group in enumerate(groups):
        last = place == len(groups) - 1
        given = {"type": opened} if opened and place == 0 else {}
        yield from _build(text, group, end if last else groups[place + 1][0].start, given, cut=cut and last)


def _split_lead(lead: str, first: Mark, open_number: int | None) -> tuple[str, str]:
    """Divide the text before the first label into prose and the value of a ``Type:`` that has no label.

    At the reply's start the prompt may have left that label open (``open_number``, which the teacher may repeat);
    anywhere the teacher may write "5. Chat" for "5. Type: Chat".
    """
    lines = [line.strip() for line in lead.split("\n") if line.strip()]
    if not lines:
        return "", ""
    if first.kind == "topic" and (value := _unlabelled_type(lines[-1], open_number)):
        return "\n".join(lines[:-1]), value
    return "\n".join(
        line for line in lines if not (is_bare_number(line) or compiled("wrapper of tasks").fullmatch(line))
    ), ""


def _unlabelled_type(line: str, open_number: int | None) -> str:
    """Return the type in a line such as "5. Chat", or "Chat" where the prompt left the number open."""
    numbered = compiled("numbered task").match(line)
    if not numbered and open_number is None:
        return ""
    value = line[numbered.end() :] if numbered else re.sub(rf"^{open_number}\b", "", line)
    value = value.strip(" \t*_#")
    return value if value and len(value.split()) <= 8 and value[-1] not in ".:!?;：" else ""


def _build(
    text: str, group: Sequence[Mark], end: int, given: dict[str, str], *, cut: bool
) -> Iterator[SeedTask | Rejected]:
    """Build the task from its labels, or return the reason for rejecting it; leftovers follow as rejected."""
    whole = "\n".join([*given.values(), text[group[0].start : end].strip()])
    if cut and not (group[-1].kind == OUTPUT and {"instruction", "input"} <= {mark.kind for mark in group}):
        yield Rejected("truncated", whole)
        return
    # Keys of YAML and TOML are written in small letters.
    data = all(text[mark.start : mark.end].islower() for mark in group)
    values = dict(given)
    literal: dict[str, str] = {}
    strays: list[tuple[str, str]] = []
    for place, mark in enumerate(group):
        following = group[place + 1] if place + 1 < len(group) else None
        raw = text[mark.end : following.start if following else end]
        if following and following.inline:
            raw = raw.rstrip(" \t;|,/·." if mark.kind in HEADERS else " \t;|,/·")
        if text[mark.start : mark.end].rstrip().endswith('":'):
            raw = raw.rstrip(" \t\n,}]")  # of a JSON object that is broken elsewhere
        column = next(at for at, char in enumerate(text[mark.start : mark.end]) if char.isalnum())
        target = literal if is_block(raw) else values
        raw, below = unindent(raw, column, data=data)
        value, leftovers = clean(mark.kind, raw, final=following is None)
        leftovers += [("stray-text", below)] if any(map(str.isalnum, below)) else []
        if mark.kind == OUTPUT:
            leftovers = [("unasked-output", value), *leftovers] if value else leftovers
        else:
            target[mark.kind] = value
        strays += leftovers
    yield from _as_task(unquote(values, data=data) | literal, whole, strays)


def _as_task(
    values: Mapping[str, str], whole: str, strays: Sequence[tuple[str, str]]
) -> Iterator[SeedTask | Rejected]:
    """Yield the task of these values, or the reason for rejecting them; leftovers follow."""
    if not values.get("instruction"):
        yield Rejected("missing-instruction", whole)
        return
    if not values.get("input") and refers_to_material(values["instruction"]):
        yield Rejected("missing-input", whole)
        return
    if any(holds_task(value) for kind, value in values.items() if kind in ("instruction", "input")):
        yield Rejected("nested", whole)
        return
    kept: dict[str, Any] = {kind: values.get(kind, "") for kind in FIELDS}
    yield SeedTask(**{**kept, "input": kept["input"] or NO_INPUT})
    for reason, leftover in strays:
        yield Rejected(reason, leftover)


def _as_text(task: SeedTask) -> str:
    return "\n".join(f"{kind.capitalize()}: {getattr(task, kind)}" for kind in FIELDS)
