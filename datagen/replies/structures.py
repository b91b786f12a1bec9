"""Finds tasks that a reply writes as JSON objects or table rows, and mends replies whose line ends are odd."""

import ast
import csv
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence

from datagen.phrases import compiled, search
from datagen.replies.marks import FIELDS, HEADERS, OUTPUT, name_of_field


@dataclasses.dataclass(frozen=True)
class Structure:
    """A JSON object or a table row at ``start:end`` of the reply.

    ``values`` holds the values of known fields, ``others`` any other text. ``whole`` is False if the text ends within
    the object or row.
    """

    start: int
    end: int
    values: dict[str, str]
    others: tuple[str, ...] = ()
    whole: bool = True


def mend(reply: str) -> str:
    r"""Write every line end as a newline.

    Line ends that are written out (``\n`` as two characters, ``<br>``) are line ends where labels follow them.

    Example:
        >>> mend("Type: Chat<br>Topic: Gout\r\nView: Nurse")
        'Type: Chat\nTopic: Gout\nView: Nurse'
    """
    text = compiled("escape sequence").sub("", reply.replace("\r\n", "\n"))
    text = _unquoted(text)
    text = compiled("next task").sub("\n", text)
    text = re.sub("[\r\u2028\u2029\x85]", "\n", text)
    if len(compiled("written line end before a label").findall(text)) >= 3:
        text = text.replace("\\n", "\n")
    text = compiled("break before a label").sub("\n", text)
    return compiled("table of a header").sub(_as_labels, text)


def _as_labels(table: re.Match[str]) -> str:
    names, cells = ([cell.strip(" *_`") for cell in row.split("|")] for row in table.groups())
    kinds = {name_of_field(name) for name in names if name}
    if len(names) != len(cells) or len(kinds) < 2 or not kinds <= HEADERS:
        return table[0]
    return "\n".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True) if name)


def _unquoted(text: str) -> str:
    """Read a reply that is one JSON string as what it says."""
    if text.lstrip()[:1] != '"':
        return text
    try:
        said = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text
    return said if isinstance(said, str) else text


def find_structures(text: str) -> list[Structure]:
    """Return the JSON objects and table rows that are tasks, in the order of the text."""
    found = sorted([*_objects(text), *_rows(text), *_records(text)], key=lambda structure: structure.start)
    return [s for place, s in enumerate(found) if place == 0 or s.start >= found[place - 1].end]


# --- JSON -------------------------------------------------------------------------------------------------------


def without_wrapper(text: str, *, before: bool, after: bool) -> str:
    """Strip what only joins JSON objects from the text before one (its end) and after one (its start)."""
    if after:
        text = compiled("wrapper after").sub("", text)
    return compiled("wrapper before").sub("", text) if before else text


def _objects(text: str) -> Iterator[Structure]:
    at = 0
    while opening := search("opening of JSON", text, at):
        structure = _object(text, opening.start())
        if structure is None:
            at = opening.end()
            continue
        yield structure
        at = structure.end


def _object(text: str, start: int) -> Structure | None:
    """Read an object whose values are plain, with either quotation marks and with commas too many or too few."""
    pairs: list[tuple[str, str]] = []
    at, whole = start + 1, False
    while key := compiled("key of JSON").match(text, at):
        name = _decode(key.group("key"))
        value = compiled("value of JSON").match(text, key.end())
        if value is not None:
            pairs.append((name, _decode(value.group())))
            at = value.end()
        elif nested := _nested(text, key.end(), name, [each for each, _ in pairs]):
            pairs += nested[0]
            at = nested[1]
        else:
            at = len(text) if text[key.end() : key.end() + 1] in ("", '"', "'") else key.end()
            pairs.append((name, ""))
            break
        after = compiled("behind a value of JSON").match(text, at)
        at = after.end() if after else at
        if after and after.group("close"):
            whole = True
            break
    values, others = _named(pairs)
    fields = [field for field in FIELDS if field in values]
    if not ("instruction" in fields and len(fields) > 1) and len(fields) < (4 if whole else 1):
        return None
    if not whole and not compiled("cut key of JSON").match(text, at):
        return None
    return Structure(start, at if whole else len(text), values, others, whole)


def _nested(text: str, at: int, name: str, before: Sequence[str]) -> tuple[list[tuple[str, str]], int] | None:
    """Read a value that is itself JSON: some fields of the task, or kept as it is written; None for other tasks."""
    try:
        said, end = json.JSONDecoder(strict=False).raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    written = text[at:end] if said else ""
    if kind := name_of_field(name):
        return [(name, written if kind in ("input", OUTPUT) else "")], end
    parts = [part for part in (said if isinstance(said, list) else [said]) if isinstance(part, dict)]
    kinds = {kind for part in parts for kind in map(name_of_field, part) if kind}
    if "instruction" in kinds and kinds & HEADERS:
        return None
    if isinstance(said, dict) and kinds and kinds.isdisjoint(map(name_of_field, before)):
        return [(key, str(value)) for key, value in said.items()], end
    return [(name, written)], end


def _named(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the values of fields, by their names or, where names are not known, by their order; and all else."""
    kinds = [name_of_field(name) for name, _ in pairs]
    for first in range(len(pairs) - len(FIELDS) + 1) if len(pairs) <= len(FIELDS) + 1 else ():
        said = [value for _, value in pairs[first:]]
        fits = all(kind in (None, field) for kind, field in zip(kinds[first:], FIELDS, strict=False))
        if fits and compiled("level in words").fullmatch(said[3]) and " " in said[4]:
            kinds[first : first + len(FIELDS)] = FIELDS
            break
    return _sorted_out(kinds, (value for _, value in pairs), map(": ".join, pairs))


def _sorted_out(
    kinds: Iterable[str | None], values: Iterable[str], written: Iterable[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the first value of each field, and whatever else has words as it is written."""
    fields: dict[str, str] = {}
    others: list[str] = []
    for kind, value, whole in zip(kinds, values, written, strict=False):
        if kind is not None and kind not in fields:
            fields[kind] = value
        elif re.search(r"[^\W\d]", value):
            others.append(whole)
    return fields, tuple(others)


def _decode(token: str) -> str:
    if token.lower() in ("null", "none", "true", "false"):
        return ""
    if token[0] not in "\"'[":
        return token.strip("“”")
    try:
        quoted = token[0] == "'"
        said = ast.literal_eval(token.replace("\n", "\\n")) if quoted else json.loads(token, strict=False)
    except (SyntaxError, ValueError, RecursionError):
        return token[1:-1] if token[0] != "[" else token
    return "\n".join(map(str, said)) if isinstance(said, list) else str(said)


# --- tables -----------------------------------------------------------------------------------------------------

_RULED = frozenset(" \t|:+=-")
_SheetRow = tuple[int, int, str | None, list[str]]
"""Start and end of a row that begins with the name of a field, that name, and the other cells."""


def _rows(text: str) -> Iterator[Structure]:
    """Read tables with a task in each row, or with a field in each row."""
    header, edged = list[str | None](), False
    sheet: list[_SheetRow] = []
    for match in compiled("any line").finditer(text):
        line = match.group()
        cells = _cells(line)
        if len(cells) < 2:
            header = []
            yield from _one(sheet)
            sheet = []
            continue
        if header and not _RULED.issuperset(line):
            fits, last = len(cells) == len(header), match.end() >= len(text.rstrip())
            if fits or last:
                whole = fits and (not last or line.rstrip().endswith("|") >= edged)
                yield _row(match.start(), match.end(), header, cells, whole)
            continue
        names = [name_of_field(cell.strip("*_`: ")) for cell in cells]
        if "instruction" in names and sum(name is not None for name in names) >= 3:
            header, edged = names, line.rstrip().endswith("|")
            yield Structure(match.start(), match.end(), {})
        elif header and _RULED.issuperset(line):
            yield Structure(match.start(), match.end(), {})
        else:
            if names[0] is not None and any(row[2] == names[0] for row in sheet):
                yield from _one(sheet)
                sheet = []
            sheet.append((match.start(), match.end(), names[0], cells[1:]))
    yield from _one(sheet)


def _records(text: str) -> Iterator[Structure]:
    """Read the rows below a line of names with commas, semicolons or tabs between them."""
    for match in compiled("csv header").finditer(text):
        header = [name_of_field(cell.strip(' "')) for cell in match.group().split(match["comma"])]
        if "instruction" not in header or sum(name is not None for name in header) < 4:
            continue
        yield Structure(match.start(), match.end(), {})
        lines = text[match.end() + 1 :].splitlines(keepends=True)
        reader = csv.reader(lines, delimiter=match["comma"], skipinitialspace=True)
        start = match.end() + 1
        read = 0
        for cells in reader:
            end = start + sum(map(len, lines[read : reader.line_num]))
            read = reader.line_num
            if len(cells) == len(header):
                yield _row(start, end, header, cells, True)
            elif cells:
                return
            start = end
        return


def _cells(line: str) -> list[str]:
    if "|" not in line:
        return []
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _break(cell: str) -> str:
    return re.sub(r"\s*<br\s*/?>(?:[ ](?![ ]))?", "\n", cell, flags=re.IGNORECASE)


def _row(start: int, end: int, header: list[str | None], cells: list[str], whole: bool) -> Structure:
    values, others = _sorted_out(header, map(_break, cells), cells)
    return Structure(start, end, values, others, whole)


def _one(sheet: list[_SheetRow]) -> Iterator[Structure]:
    """Read rows that begin with the name of a field: each further column is a task, if it is one."""
    rows = [row for row in sheet if row[2] and len(row[3]) == len(sheet[-1][3])]
    names = [name for _, _, name, _ in rows if name]
    if "instruction" in names and len(names) >= 3 and names[0] != OUTPUT:
        start, end = sheet[0][0], sheet[-1][1]
        for column in zip(*(cells for *_, cells in rows), strict=True):
            yield Structure(start, end, dict(zip(names, map(_break, column), strict=True)))
            start = end  # the columns share the rows
