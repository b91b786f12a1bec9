"""Evaluation sets as they are published: questions, passages and choices read from JSON Lines, JSON or CSV files.

Every row becomes an :class:`Item` with the texts that would leak the test: the question, the passages that
belong to it and its choices. Answers of reference models and gold labels are not read. The field names of the common
sets are known; for others the user names them behind the file, as in ``exam.jsonl:stem,alternatives``.
"""

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datagen.decoding import Malformed, parse_json
from datagen.errors import DataError
from datagen.files import read_bytes
from datagen.records import normal_input, read_objects, shorten

QUESTION_FIELDS = ("instruction", "question", "query", "prompt", "problem", "qtext", "stem", "chq")
INPUT_FIELDS = ("input",)
PASSAGE_FIELDS = ("context", "contexts", "passage", "passages", "abstract", "article", "document", "vignette")
CHOICE_FIELDS = ("options", "choices", "answers", "endings", "opa", "opb", "opc", "opd", "ope", *"abcdefgh")

_NAMED = re.compile(r"[\w .-]+(?:,[\w .-]+)*")


@dataclasses.dataclass(frozen=True)
class Item:
    """One evaluation item.

    Attributes:
        where: The place it was read from, as ``medqa.jsonl:12``.
        id: Its own id, "" where it has none.
        question: What is asked.
        input: What an instruction is to be carried out on; without it the instruction says little.
        passages: Texts shown with the question.
        choices: The choices to pick from.
    """

    where: str
    id: str
    question: str
    input: str = ""
    passages: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class EvaluationFile:
    """An evaluation file that has been read: name, SHA-256, the fields that were used, its items, the other fields."""

    name: str
    path: str
    sha256: str
    fields: tuple[str, ...]
    items: tuple[Item, ...]
    others: tuple[str, ...] = ()


def split_fields(spec: str | Path) -> tuple[Path, tuple[str, ...]]:
    """Split ``FILE:FIELD,FIELD`` into path and field names; a file with a colon in its name stays whole.

    Example:
        >>> split_fields("exam.jsonl:stem,alternatives")
        (PosixPath('exam.jsonl'), ('stem', 'alternatives'))
    """
    text = str(spec)
    path, colon, names = text.rpartition(":")
    if not colon or not path or Path(text).exists() or not _NAMED.fullmatch(names):
        return Path(text), ()
    return Path(path), tuple(name.strip() for name in names.split(","))


def absolute(spec: str | Path) -> str:
    """Return the same file and field names with an absolute path."""
    path, names = split_fields(spec)
    return ":".join([str(path.absolute()), ",".join(names)] if names else [str(path.absolute())])


def content_hash(spec: str | Path) -> str:
    """Return the SHA-256 of an evaluation file.

    Raises:
        DataError: The file is missing or a folder.
    """
    return hashlib.sha256(read_bytes(split_fields(spec)[0], "the evaluation file")).hexdigest()


def read_evaluation(spec: str | Path) -> EvaluationFile:
    """Read an evaluation file.

    Args:
        spec: A path (``.jsonl``, ``.json`` with a list or an object of objects, ``.csv``, ``.tsv``), with the names
            of the fields to read behind a colon where they are not the usual ones; the first of them is the question.

    Raises:
        DataError: The file is missing, broken, of an unknown format, or no row has a question.
    """
    path, named = split_fields(spec)
    data = read_bytes(path, "the evaluation file")
    rows = list(_rows(path, data))
    items: list[Item] = []
    used: dict[str, None] = {}
    for where, row in rows:
        item, fields = _item(row, where, named)
        used |= dict.fromkeys(fields)
        items.append(item)
    if not items:
        raise DataError("the evaluation file contains no items", where=path, remedy="check the path")
    unused = [name for name in named if name.lower() not in {key.lower() for key in used}]
    if unused:
        raise DataError(
            "no row of the evaluation file has the named field",
            where=path,
            found=", ".join(map(repr, unused)),
            remedy="check the names of the fields",
        )
    others = tuple(dict.fromkeys(key for _, row in rows for key in row if key not in used))
    sha256 = hashlib.sha256(data).hexdigest()
    return EvaluationFile(path.name, str(path), sha256, tuple(used), tuple(items), others)


def _rows(path: Path, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    suffix = path.suffix.lower()
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if suffix in (".csv", ".tsv"):
        yield from _table(path, data)
    elif suffix == ".json" and start == b"{" and (whole := _one_object(data)) is not None:
        yield from _object_of_objects(path, whole)
    elif start in (b"{", b"["):
        yield from read_objects(path)
    else:
        raise DataError(
            "unknown format of an evaluation file",
            where=path,
            found=shorten(repr(data[:40])) if data else "an empty file",
            expected="JSON Lines, a JSON list, a JSON object of objects, or CSV/TSV with a header",
            remedy="convert it, for example to one JSON object a line with a field 'question'",
        )


def _one_object(data: bytes) -> dict[str, Any] | None:
    """Return the one JSON object that the file is; None for JSON Lines under the name .json."""
    try:
        value = parse_json(data)
    except Malformed:
        return None
    return value if isinstance(value, dict) else None


def _object_of_objects(path: Path, data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read what PubMedQA's own files are (id -> item), or a wrapper around one list (``{"data": [...]}``)."""
    lists = [value for value in data.values() if isinstance(value, list) and value]
    if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]):
        for number, row in enumerate(lists[0], start=1):
            yield f"{path}#{number}", row
    elif data and all(isinstance(row, dict) for row in data.values()):
        for key, row in data.items():
            yield f"{path}#{key}", {"id": key, **row}
    else:
        yield f"{path}:1", data


def _table(path: Path, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text", where=path, found=str(error)) from None
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ","
    )
    try:
        for row in reader:
            yield f"{path}:{reader.line_num}", {key: value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise DataError("the table is broken", where=f"{path}:{reader.line_num}", found=str(error)) from None


def _item(row: dict[str, Any], where: str, named: Sequence[str]) -> tuple[Item, list[str]]:
    """Build the item of one row and return the names of the fields that it came from."""
    keys = {key.lower(): key for key in row}

    def present(names: Sequence[str]) -> list[str]:
        return [keys[name.lower()] for name in names if name.lower() in keys]

    def texts(fields: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for field in fields for text in _texts(row[field]))

    asked = present(named[:1] or QUESTION_FIELDS)[:1]
    inputs = [] if named else present(INPUT_FIELDS)
    shown = present(named[1:] if named else PASSAGE_FIELDS)
    offered = [] if named else present(CHOICE_FIELDS)
    question = " ".join(texts(asked))
    if not question.strip():
        raise DataError(
            "the evaluation item has no question",
            where=where,
            found="fields " + ", ".join(map(repr, row)) if row else "no fields",
            expected=f"a text in {named[0]!r}" if named else "one of " + ", ".join(QUESTION_FIELDS),
            remedy="name the fields behind the file, the question first: "
            f"{where.rpartition(':')[0] or where}:FIELD,FIELD",
        )
    id = str(row.get(keys.get("id", ""), ""))
    item = Item(where, id, question, normal_input(" ".join(texts(inputs))), texts(shown), texts(offered))
    return item, [*asked, *inputs, *shown, *offered]


def _texts(value: object) -> list[str]:
    """Return the texts in a field: a string, a list, or a mapping of letters to choices."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in children for text in _texts(each)]
