"""Answer files and how they are joined: by id, never by position."""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datagen.errors import DataError
from datagen.records import Response, Verdict, normal_input, read_objects, shorten

# Marks a response whose id is only its number in a file without ids.
_NUMBERED = "id_is_its_number"
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


Source = str | Path | Sequence[Mapping[str, Any] | Response]
"""A file of answers, or the answers themselves."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of one model, by id.

    ``instructions`` holds the task of each id (instruction and input) where the file has it, to prove that equal
    ids mean equal tasks.
    """

    name: str
    texts: dict[str, str]
    instructions: dict[str, str]
    path: str


def read_responses(path: Source) -> list[Response]:
    """Read a response file, AlpaCare's own among them; a row without an id gets its number in the file, from 0.

    Raises:
        DataError: The file is broken or an id is repeated.
    """
    responses = []
    for number, (where, row) in enumerate(read_objects(path)):
        own = _present(row)
        numbered = own if "id" in own else own | {"id": str(number), _NUMBERED: True}
        responses.append(Response.from_dict(numbered, where=where))
    _refuse_repeats(path, [response.id for response in responses])
    return responses


def as_answers(responses: Sequence[Response], path: Source, name: str = "") -> Answers:
    """Collect responses by id, under a name: ``name``, else the model's if there is only one, else the file's."""
    return Answers(
        name or _sole({response.model for response in responses}) or _stem(path),
        {response.id: response.response for response in responses},
        {each.id: _task(each.instruction, each.input) for each in responses},
        _place(path),
    )


def read_references(
    paths: Sequence[Source], fields: Sequence[str] = (), responses: Sequence[Response] = ()
) -> list[Answers]:
    """Read the reference answers, one set a file, or one set a field of a file with several answers a row.

    A file whose rows have no ids, as AlpaCare's reference files (``instruction, input, output``), or ids that no
    response has, is joined with the responses by instruction and input, or by input alone where its instruction is
    empty and no two responses share that input.

    Args:
        paths: Files whose rows hold ``response`` or ``output``; with ``fields``, files whose rows hold those fields.
        fields: Names of the answer fields, such as ``gpt-4-answer``; a closing ``-answer`` is cut from the
            set's name.
        responses: What the references are compared with.

    Raises:
        DataError: A file is broken, an id or the name of a set is a duplicate, a field is missing, or rows without
            known ids answer one question differently.
    """
    sets: list[Answers] = []
    for path in paths:
        sets += _read_sets(path, fields, responses)
    names = [answers.name for answers in sets]
    for answers in sets:
        if names.count(answers.name) > 1:
            raise DataError(
                "two sets of reference answers have the same name",
                where=answers.path,
                found=answers.name,
                remedy="give each file's records a different model, or the files different names",
            )
    return sets


def _read_sets(path: Source, fields: Sequence[str], responses: Sequence[Response]) -> list[Answers]:
    """Read one file of reference answers."""
    rows = [(where, _present(row)) for where, row in read_objects(path)]
    columns = list(fields) or ["response" if all("response" in row for _, row in rows) else "output"]
    for where, row in rows:
        if any(not isinstance(row.get(field), str) for field in columns):
            raise DataError(
                "a row lacks a reference answer",
                where=where,
                found=", ".join(row),
                expected="text fields " + ", ".join(columns) if fields else "a text output or response",
                remedy="name the fields of this file with --reference-fields",
            )
    known = {response.id for response in responses if _NUMBERED not in response.extra}
    named = [(str(row.get("id")), row) for _, row in rows]
    if any("id" not in row for _, row in rows) or (responses and known.isdisjoint(id_ for id_, _ in named)):
        named, instructions = _join_by_question(rows, responses, columns), {}
    else:
        _refuse_repeats(path, [id_ for id_, _ in named])
        instructions = {id_: _task(row.get("instruction"), row.get("input")) for id_, row in named}
    models = {str(row.get("model") or "") for _, row in rows}
    names = [field.removesuffix("-answer") for field in fields] or [_sole(models) or _stem(path)]
    return [
        Answers(name, {id_: row[field] for id_, row in named}, instructions, _place(path))
        for name, field in zip(names, columns, strict=True)
    ]


def _present(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without fields that are null, and without an empty id."""
    return {key: value for key, value in row.items() if value is not None and (key, value) != ("id", "")}


def _question(instruction: object, given: object) -> tuple[str, str]:
    """Return a question's key: instruction and input, with characters and spaces normalised."""
    first, second = (
        unicodedata.normalize("NFKC", str(text or "")).translate(_INVISIBLE) for text in (instruction, given)
    )
    return " ".join(first.split()), " ".join(normal_input(second).split())


def _task(instruction: object, given: object) -> str:
    return " ".join(_question(instruction, given)).strip()


def _sole(names: set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""


def _join_by_question(
    rows: Sequence[tuple[str, dict[str, Any]]], responses: Sequence[Response], columns: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Give rows the ids of the responses to the same questions.

    Returns:
        Id and row of every row; one that no response answers has its place as id.

    Raises:
        DataError: Two rows answer one question differently.
    """
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for where, row in rows:
        question = _question(row.get("instruction"), row.get("input"))
        before = found.setdefault(question if any(question) else ("\n", str(len(found))), (where, row))
        if any(before[1][column] != row[column] for column in columns):
            raise DataError(
                "two rows without ids answer the same question differently",
                where=f"{before[0]} and {where}",
                found=shorten(" ".join(question), 90),
                remedy="give the rows the ids of the questions, or delete one of them",
            )
    named, unused = [], dict(found.values())
    asked = [_question(response.instruction, response.input) for response in responses]
    sharing = Counter(question[1] for question in set(asked) - found.keys())
    for response, question in zip(responses, asked, strict=True):
        if sharing[question[1]] == 1 and question not in found:
            question = ("", question[1])
        if any(question) and question in found:
            where, row = found[question]
            named.append((response.id, row))
            unused.pop(where, None)
    return named + list(unused.items())


def read_reference_texts(path: Source) -> dict[str, str]:
    """Read one reference answer an id, from instruction records (``output``) or responses (``response``).

    A row without an id gets the number of its line, as prompts do when they are answered.

    Raises:
        DataError: The file is broken, a row has no answer, or an id is a duplicate.
    """
    ids, texts = [], {}
    for where, row in read_objects(path):
        text = row.get("output", row.get("response"))
        if not isinstance(text, str):
            raise DataError(
                "a row has no answer",
                where=where,
                found=", ".join(row),
                expected="a text output or response",
            )
        ids.append(where.rpartition(":")[2] if row.get("id") in (None, "") else str(row["id"]))
        texts[ids[-1]] = text
    _refuse_repeats(path, ids)
    return texts


def check_join(responses: Answers, reference: Answers, *, allow_missing: bool = False) -> tuple[int, int]:
    """Make sure that two sets of answers belong to the same questions.

    Args:
        responses: The model's answers.
        reference: The answers to compare with.
        allow_missing: Count responses that have no reference answer instead of refusing them.

    Returns:
        How many responses have no reference answer, and how many reference answers no response.

    Raises:
        DataError: A response has no reference answer, no id is shared, or an id has two different
            instructions.
    """
    missing = [id_ for id_ in responses.texts if id_ not in reference.texts]
    unused = len(reference.texts) - (len(responses.texts) - len(missing))
    if len(missing) == len(responses.texts) or (missing and not allow_missing):
        raise DataError(
            f"{len(missing)} of {len(responses.texts)} responses lack an answer of {reference.name!r}",
            where=reference.path,
            found="no answer for id "
            + shorten(", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")),
            expected=f"one answer for each id of {responses.path}",
            remedy="join files of the same questions, or leave such responses out with --allow-missing",
        )
    for id_, instruction in responses.instructions.items():
        other = reference.instructions.get(id_, "")
        shorter, longer = sorted((instruction, other), key=len)
        # A file may leave out the input, or an instruction that all its rows share.
        if not (longer.startswith(shorter) or longer.endswith(shorter)):
            raise DataError(
                f"id {id_!r} names two different instructions",
                where=f"{responses.path} and {reference.path}",
                found=f"{shorten(instruction, 70)} / {shorten(other, 70)}",
                expected="the same instruction under the same id",
                remedy="join files of the same questions",
            )
    return len(missing), unused


def count_words(text: str) -> int:
    """Count the words of an answer: runs of characters between white space.

    Example:
        >>> count_words("Take 5 mg,  twice a day.")
        6
    """
    return len(text.split())


def with_words(verdicts: Sequence[Verdict], model: Answers, references: Sequence[Answers]) -> list[Verdict]:
    """Return the verdicts with ``model_words`` and ``reference_words`` where the answers are known."""
    by_name = {answers.name: answers.texts for answers in references}
    counted = []
    for verdict in verdicts:
        sides = {"model_words": model.texts, "reference_words": by_name.get(verdict.reference, {})}
        words = {name: count_words(texts[verdict.id]) for name, texts in sides.items() if verdict.id in texts}
        counted.append(dataclasses.replace(verdict, extra=verdict.extra | words))
    return counted


def _stem(source: Source) -> str:
    return Path(source).stem if isinstance(source, str | Path) else "answers"


def _place(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "the answers given"


def _refuse_repeats(path: Source, ids: Sequence[str]) -> None:
    repeated = [id_ for id_, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            "duplicate ids in the file",
            where=_place(path),
            found=f"id {repeated[0]!r}; {len(repeated)} repeated in all",
            expected="one answer for each id",
            remedy="remove the repetitions",
        )
