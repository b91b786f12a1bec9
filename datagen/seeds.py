"""Seed tasks, the examples shown to the teacher model: read strictly, with file and line in errors."""

from importlib import resources
from pathlib import Path

from datagen import labels
from datagen.dedup import tokenize
from datagen.errors import DataError
from datagen.records import SeedTask, read_objects, shorten

SHIPPED = "seed_tasks.jsonl"
#: Places named of a label that occurs more often.
SHOWN = 5


def load_seeds(path: Path | None = None) -> list[SeedTask]:
    """Read a seed file.

    Args:
        path: JSON Lines, or a JSON list such as AlpaCare's ``med_seed.json``; None reads the
            project's own seeds.

    Returns:
        The tasks in the order of the file.

    Raises:
        DataError: The file is missing, empty or broken, an instruction is empty, or two tasks have the same
            instruction and input; the message names every such place.

    Example:
        >>> len(load_seeds()) >= 60
        True
    """
    seeds, places = _read(path)
    empty = [where for seed, where in zip(seeds, places, strict=True) if not seed.instruction.strip()]
    if empty:
        raise DataError(
            "a seed task has an empty instruction",
            where=", ".join(empty),
            expected="a text in the field 'instruction'",
            remedy="write the instruction or delete the task",
        )
    first: dict[tuple[str, str], str] = {}
    repeated: dict[str, SeedTask] = {}
    for seed, where in zip(seeds, places, strict=True):
        key = _letters(seed.instruction), _letters(seed.normal_input())
        if key in first:
            repeated[f"{where} (as {first[key]})"] = seed
        first.setdefault(key, where)
    if repeated:
        raise DataError(
            "the seed file repeats a task",
            where=", ".join(repeated),
            found=shorten(next(iter(repeated.values())).instruction),
            expected="every pair of instruction and input once",
            remedy="delete the repeats",
        )
    return seeds


def odd_labels(path: Path | None = None) -> list[str]:
    """Find missing and unknown labels of a seed file; they do not prevent a run.

    Args:
        path: As for :func:`load_seeds`.

    Returns:
        One sentence a label, with its places and the known label that it is most like.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for seed, where in zip(*_read(path), strict=True):
        for field in labels.FIELDS:
            label = getattr(seed, field).strip()
            if not label or not labels.is_known(field, label):
                places.setdefault((field, label), []).append(where)
    return [_describe(field, label, found) for (field, label), found in places.items()]


def _describe(field: str, label: str, places: list[str]) -> str:
    where = ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
    if not label:
        return f"{where}: no {field} is given"
    near = labels.nearest_known(field, label)
    hint = (
        "expected 1 to 5"
        if field == "difficulty"
        else f"did you mean {near!r}?"
        if near
        else "it is kept as it is"
    )
    return f"{where}: {field} {shorten(label, 60)!r} is not known; {hint}"


def _read(path: Path | None) -> tuple[list[SeedTask], list[str]]:
    if path is None:
        with resources.as_file(resources.files("datagen") / SHIPPED) as shipped:
            return _read(shipped)
    places: list[str] = []
    seeds: list[SeedTask] = []
    for where, row in read_objects(path):
        seeds.append(SeedTask.from_dict(row, where=where))
        places.append(where)
    if not seeds:
        raise DataError(
            "the seed file contains no tasks",
            where=path,
            expected="at least one task",
            remedy="check the path",
        )
    return seeds, places


def _letters(text: str) -> str:
    return " ".join(tokenize(text)) or " ".join(text.split())
