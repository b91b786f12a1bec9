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
    starts, places, at = [0], [0], 0
    headings: list[str] = []
    for line in _LINE.finditer(text):
        cells = list(_CELL.finditer(text, *line.span()))
        if len(cells) != len(headings) or len(cells) < 2:
            named = all(_HEADING.fullmatch(cell[0]) for cell in cells)
            headings = [cell[0].strip(" *_") for cell in cells] if named else []
            continue
        for heading, cell in zip(headings, cells, strict=True):
            if len(cell[0]) < 2 or _RULE.fullmatch(cell[0]):
                continue
            fields.append(f"{heading}: {cell[0].strip()}\n")
            starts.append(at + len(heading) + 2)
            places.append(cell.start() + len(cell[0]) - len(cell[0].lstrip()))
            at += len(fields[-1])

    def place(spot: int) -> int:
        field = bisect_right(starts, spot) - 1
        return places[field] + spot - starts[field]

    return [(place(start), place(end), kind) for start, end, kind in find("".join(fields))] if fields else []
