"""Seed tasks: what the teacher model is shown as examples, read strictly, errors by file and line."""

from importlib import resources
from pathlib import Path

from datagen.dedup import tokenize
from datagen.errors import DataError
from datagen.records import SeedTask, read_objects, shorten

SHIPPED = "seed_tasks.jsonl"


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
    if path is None:
        with resources.as_file(resources.files("datagen") / SHIPPED) as shipped:
            return load_seeds(shipped)
    places: list[str] = []
    seeds: list[SeedTask] = []
    for where, row in read_objects(path):
        seeds.append(SeedTask.from_dict(row, where=where))
        places.append(where)
    if not seeds:
        raise DataError(
            "the seed file holds no task", where=path, expected="at least one task", remedy="check the path"
        )
    _refuse_empty(seeds, places)
    _refuse_repeated(seeds, places)
    return seeds


def _refuse_empty(seeds: list[SeedTask], places: list[str]) -> None:
    empty = [where for seed, where in zip(seeds, places, strict=True) if not seed.instruction.strip()]
    if empty:
        raise DataError(
            "a seed task has an empty instruction",
            where=", ".join(empty),
            expected="a text in the field 'instruction'",
            remedy="write the instruction or delete the task",
        )


def _refuse_repeated(seeds: list[SeedTask], places: list[str]) -> None:
    first: dict[tuple[str, str], str] = {}
    repeated: list[str] = []
    example = ""
    for seed, where in zip(seeds, places, strict=True):
        key = _letters(seed.instruction), _letters(seed.normal_input())
        if key in first:
            repeated.append(f"{where} (as {first[key]})")
            example = example or seed.instruction
        first.setdefault(key, where)
    if repeated:
        raise DataError(
            "a seed task stands in the file more than once",
            where=", ".join(repeated),
            found=shorten(example),
            expected="every pair of instruction and input once",
            remedy="delete the repeats",
        )


def _letters(text: str) -> str:
    return " ".join(tokenize(text)) or " ".join(text.split())
