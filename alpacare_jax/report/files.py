"""Reading the files that a report draws on, each with an error that says what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.decoding import Malformed, parse_yaml, read_json_object
from datagen.errors import DataError
from datagen.records import read_objects


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; no rows where the file is missing or empty."""
    if not path.exists() or not path.stat().st_size:
        return []
    return [row for _, row in read_objects(path)]


def read_journal(path: Path) -> tuple[dict[str, float], list[str]]:
    """Read a journal of stages: seconds by stage, and the command lines.

    Raises:
        DataError: It is not ``{"seconds": {stage: number}, "commands": {stage: text}}``.
    """
    journal = read_json_object(path)
    seconds, commands = journal.get("seconds"), journal.get("commands")
    if not isinstance(seconds, dict) or not isinstance(commands, dict):
        raise DataError(
            "the file is no journal of stages", where=path, expected="objects seconds and commands"
        )
    return {str(name): float(s) for name, s in seconds.items()}, [str(line) for line in commands.values()]


def read_run(run: Path) -> str:
    """Return the text of a run's config.

    Raises:
        DataError: The folder holds neither config nor metrics.
    """

    config = run / "config.yaml"
    if not config.exists() and not (run / "metrics.jsonl").exists():
        kinds = "a run folder of `alpacare train`, or a work folder of `alpacare synthesize`"
        if not run.exists():
            raise DataError("the folder does not exist", where=run, expected=kinds, remedy="check the path")
        raise DataError(
            "this is neither a run folder nor a work folder",
            where=run,
            found="neither config.yaml nor metrics.jsonl (training), nor config.json (synthesis)",
            expected=kinds,
        )
    return config.read_text(encoding="utf-8") if config.exists() else ""


def config_data(config: str) -> list[Path]:
    """List the packed data sets that a run's config names and that are still there."""
    try:
        values = parse_yaml(config)
    except Malformed as error:
        raise DataError("the run's config.yaml is not valid YAML", found=str(error)) from None
    values = values if isinstance(values, dict) else {}
    named = [values.get(key) for key in ("train_data", "validation_data")]
    return [Path(name) for name in named if isinstance(name, str) and (Path(name) / "manifest.json").exists()]


def read_manifests(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read the manifest of each packed data set, by the folder's name (its whole path where names repeat)."""
    names = [folder.name for folder in folders]
    return {
        str(folder) if names.count(folder.name) > 1 else folder.name: read_json_object(
            folder / "manifest.json"
        )
        for folder in folders
    }
