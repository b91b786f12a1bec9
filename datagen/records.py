"""The records that the stages exchange: JSON Lines, UTF-8, one object a line.

Every record is strict about the fields it knows (a missing field or a wrong type is an error that names file and
line) and keeps the fields it does not know in ``extra``, so that nothing is lost on the way. A record may
have a ``schema_version``; a number above ``SCHEMA_VERSION`` is refused.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from datagen.decoding import Malformed, parse_json, parse_json_at, skip_space
from datagen.errors import DataError
from datagen.files import read_bytes, write_text

SCHEMA_VERSION = 1
NO_INPUT = "<noinput>"
NUMBERED = ("id", "difficulty")
"""Fields that may be whole numbers, as in AlpaCare's files; all others are texts."""


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of every record: reads a JSON object with field checks, writes it back with unknown fields kept."""

    extra: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def from_dict(cls, row: object, *, where: str) -> Self:
        """Build the record from a decoded JSON object.

        Args:
            row: The decoded object.
            where: Place named in errors, such as ``tasks.jsonl:12``.

        Raises:
            DataError: The object lacks a field, holds a wrong type, or has a newer schema version.
        """
        if not isinstance(row, dict):
            raise DataError(
                f"a {cls.__name__} record must be a JSON object", where=where, found=type(row).__name__
            )
        version = row.get("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise DataError(
                "the record has a newer schema version",
                where=where,
                found=f"schema_version {version!r}",
                expected=f"at most {SCHEMA_VERSION}",
                remedy="update alpacare-jax",
            )
        known = {field.name: field for field in dataclasses.fields(cls) if field.name != "extra"}
        if "instruction" in known:
            _refuse_turns(row, known, where)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name, field in known.items():
            if name not in row:
                if field.default is dataclasses.MISSING:
                    problems.append(f"field {name!r} is missing")
                continue
            value = str(row[name]) if name in NUMBERED and type(row[name]) is int else row[name]
            allowed = get_args(field.type) or (field.type,)
            if field.type is not Any and type(value) not in allowed:
                problems.append(f"field {name!r} must be {allowed[0].__name__}, not {type(value).__name__}")
            values[name] = value
        if problems:
            raise DataError(
                f"the {cls.__name__} record is not valid: " + "; ".join(problems),
                where=where,
                found=shorten(json.dumps(row, ensure_ascii=False)),
                remedy="mend or delete the record",
            )
        return cls(**values, extra={key: value for key, value in row.items() if key not in known})

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON object: known fields first, then the unknown ones; None is left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        return {key: value for key, value in fields.items() if value is not None} | self.extra

    def normal_input(self) -> str:
        """Return the input, with ``<noinput>`` in any spelling mapped to the empty string."""
        return normal_input(getattr(self, "input", ""))


@dataclasses.dataclass(frozen=True)
class SeedTask(Record):
    """A clinician's or a teacher's task without an answer. ``input`` may be "" or ``<noinput>``.

    Source: AlpaCare's ``med_seed.json``, which this reads as it is.
    """

    instruction: str
    input: str = ""
    type: str = ""
    topic: str = ""
    view: str = ""
    difficulty: str = ""


@dataclasses.dataclass(frozen=True)
class Instruction(Record):
    """A task with its answer, in the format of MedInstruct-52k and Alpaca. ``source`` says where it comes from."""

    instruction: str
    output: str
    input: str = ""
    id: str | None = None
    type: str | None = None
    topic: str | None = None
    view: str | None = None
    difficulty: str | None = None
    source: Any = None


@dataclasses.dataclass(frozen=True)
class Prompt(Record):
    """Something to answer: an instruction with an optional input."""

    id: str
    instruction: str
    input: str = ""


@dataclasses.dataclass(frozen=True)
class Response(Record):
    """A model's answer to a prompt. ``prompt_tokens`` and ``response_tokens`` count tokens."""

    id: str
    instruction: str
    response: str
    input: str = ""
    model: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Verdict(Record):
    """A judge's verdict on one response against one reference, shown in one order.

    ``verdict`` is from the model's side: "win", "tie", "loss", or "invalid" where ``raw`` could not be read; None
    where the file holds raw texts alone, which ``score`` then parses.
    """

    id: str
    reference: str
    order: str
    raw: str = ""
    verdict: str | None = None
    model: str = ""
    judge: str = ""


R = TypeVar("R", bound=Record)

#: What other formats call earlier turns, or words before the first one; compared in lower case without - and _.
_TURNS = re.compile(
    r"(?:chat|conversation|dialog(?:ue)?|message)s?(?:history)?|history|turns|system(?:prompt|message|instruction)?"
)


def _refuse_turns(row: dict[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse a conversation: a single-turn record would drop its other turns.

    Raises:
        DataError: A field of turns holds text.
    """
    turns = [
        name
        for name in row
        if name not in known and _TURNS.fullmatch(re.sub("[-_ ]", "", name.lower())) and holds_text(row[name])
    ]
    if turns:
        answered = " and ".join(f"`{name}`" for name in ("instruction", "input", "output") if name in known)
        raise DataError(
            "the record holds a conversation or a system prompt; only single-turn records are supported",
            where=where,
            found=", ".join(
                f"{name}: {shorten(json.dumps(row[name], ensure_ascii=False), 60)}" for name in turns
            ),
            expected=f"one turn in the text fields {answered}",
            remedy="write one record for each turn, with what it needs from earlier turns in `input`, or delete "
            + ", ".join(turns),
        )


def holds_text(value: object) -> bool:
    """Say whether a JSON value holds any text besides blanks.

    Examples:
        >>> holds_text([["", " "], {"a": None}]), holds_text({"role": "user"})
        (False, True)
    """
    if isinstance(value, dict | list):
        return any(map(holds_text, value.values() if isinstance(value, dict) else value))
    return value is not None and value is not False and bool(str(value).strip())


def normal_input(text: str) -> str:
    """Map the marker ``<noinput>`` (any case, spaces and final stop allowed) to "" and strip the rest.

    Examples:
        >>> normal_input(" <NoInput>. "), normal_input("DNA from a NAFLD patient")
        ('', 'DNA from a NAFLD patient')
    """
    stripped = text.strip()
    return "" if stripped.lower().replace(" ", "").rstrip(".") == NO_INPUT else stripped


def read_objects(
    source: str | Path | Iterable[Any], text: str = "text"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(file:line, object)`` for a ``.jsonl`` file or a ``.json`` file that holds a list of objects.

    Args:
        source: The file, or the objects themselves: mappings, records or mere texts.
        text: The key under which such a text stands.

    Raises:
        DataError: The file is missing, empty, not UTF-8, or holds a broken line, or the source holds something else.
    """
    if not isinstance(source, str | Path):
        yield from _given(source, text)
        return
    path = Path(source)
    try:
        content = read_bytes(path, "the file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text", where=path, found=str(error)) from None
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if not content.strip():
        raise DataError("the file is empty", where=path, expected="one JSON object a line")
    yield from _read_list(path, content) if content.lstrip().startswith("[") else _read_lines(path, content)


def _given(rows: Iterable[Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for number, row in enumerate(rows, start=1):
        row = row.to_dict() if isinstance(row, Record) else row
        if not isinstance(row, str | Mapping):
            raise DataError("a row is not an object", where=f"row:{number}", found=type(row).__name__)
        yield f"row:{number}", {key: row} if isinstance(row, str) else dict(row)
    if not number:
        raise DataError("the list is empty", where="rows", expected="at least one")


def _read_lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # JSON strings may hold U+2028 raw, so lines end at "\n" alone, not where str.splitlines would.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        yield where, parse_line(line, where)


def _read_list(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    at = skip_space(text, text.index("[") + 1)
    closed, line, counted = text[at : at + 1] == "]", 1, 0
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, at = parse_json_at(text, at)
            at = skip_space(text, at)
            if text[at : at + 1] not in (",", "]"):
                raise Malformed("expected ',' or ']'", line + text.count("\n", counted, at))
        except Malformed as error:
            where = f"{path}:{error.line}"
            raise DataError(
                f"{path.name} is not a valid JSON list", where=where, found=error.reason
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                "a record must be a JSON object", where=f"{path}:{line}", found=type(row).__name__
            )
        yield f"{path}:{line}", row
        closed = text[at] == "]"
        at = at if closed else skip_space(text, at + 1)
    if rest := text[at + 1 :].strip():
        raise DataError(
            "text follows after the list",
            where=f"{path}:{text.count(chr(10), 0, text.rindex(rest)) + 1}",
            found=shorten(rest),
            remedy="delete it, or write one JSON object a line",
        )


def parse_line(line: str | bytes, where: str) -> dict[str, Any]:
    """Read one line of JSON Lines.

    Args:
        line: The line.
        where: Its place, named in errors.

    Raises:
        DataError: It is no JSON object.
    """
    try:
        row = parse_json(line)
    except Malformed as error:
        shown = line[:400].decode("utf-8", "replace") if isinstance(line, bytes) else line[:400]
        raise DataError(
            "the line is not valid JSON",
            where=where,
            found=f"{error.reason} at column {error.column}: {shorten(shown)}",
            remedy="mend or delete the line",
        ) from None
    if not isinstance(row, dict):
        raise DataError("a record must be a JSON object", where=where, found=type(row).__name__)
    return row


def read_records(path: str | Path, kind: type[R]) -> list[R]:
    """Read a whole file of records of one kind.

    Args:
        path: A ``.jsonl`` file, or ``.json`` holding a list.
        kind: The record class, such as ``Instruction``.

    Raises:
        DataError: The file or one of its records is broken; the message names file and line.
    """
    return [kind.from_dict(row, where=where) for where, row in read_objects(path)]


def write_objects(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write JSON Lines atomically: either the whole file appears under its name, or the old one stays.

    Returns:
        The number of rows written.
    """
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"

    write_text(path, lines())
    return count


def write_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write records atomically as JSON Lines and return their number."""
    return write_objects(path, (record.to_dict() for record in records))


def shorten(text: str, limit: int = 160) -> str:
    """Cut a text for a message: at most ``limit`` characters, with an ellipsis where something was left out."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
