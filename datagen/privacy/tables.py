"""Identifiers in the columns of tables, where the label stands in the first row."""

import re
from bisect import bisect_right
from collections.abc import Callable

_Spans = list[tuple[int, int, str]]
_LINE = re.compile(r"[^\n]+")
_CELL = re.compile(r"[^|\t,;]+")
_HEADING = re.compile(r"[*_\s]*[^\W\d_][\w .#/*-]{1,30}")
_RULE = re.compile(r"[\s|:+=-]*")


def in_tables(text: str, find: Callable[[str], _Spans]) -> _Spans:
    """Find the identifiers in tables: each cell is read as a field with its column's heading as the label.

    Args:
        text: A text in plain spelling.
        find: Finds the identifiers in a text.

    Example:
        >>> in_tables("Name|MRN\\nJo|4471\\n", lambda fields: [(14, 18, "RECORD")] if "MRN: 4471" in fields else [])
        [(12, 16, 'RECORD')]
    """
    fields: list[str] = []
    headings: list[str] = []
    values: list[
        tuple[int, int, int]
    ] = []  # where each value begins and ends among the fields, and begins in the text
    at = 0
    for line in _LINE.finditer(text):
        cells = list(_CELL.finditer(text, *line.span()))
        if len(cells) != len(headings) or len(cells) < 2:
            named = all(_HEADING.fullmatch(cell[0]) for cell in cells)
            headings = [cell[0].strip(" *_") for cell in cells] if named else []
            continue
        for heading, cell in zip(headings, cells, strict=True):
            value = cell[0].strip()
            if len(value) > 1 and not _RULE.fullmatch(value):
                begin = at + len(heading) + 2
                values.append((begin, begin + len(value), cell.start() + cell[0].index(value)))
                fields.append(f"{heading}: {value}\n")
                at = begin + len(value) + 1
    found: _Spans = []
    for start, end, kind in find("".join(fields)) if fields else ():
        begin, last, place = values[bisect_right(values, start, key=lambda value: value[0]) - 1]
        if begin <= start and end <= last:
            found.append((place + start - begin, place + end - begin, kind))
    return found
