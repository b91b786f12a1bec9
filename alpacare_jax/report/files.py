"""Reading the files that a report is made of."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.configuration import build
from datagen.decoding import Malformed, parse_yaml, read_json_object
from datagen.errors import DataError
from datagen.records import read_objects


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; no rows where the file is missing or empty."""
    if not path.exists() or not path.stat().st_size:
        return []
    return [row for _, row in read_objects(path)]


@dataclasses.dataclass(frozen=True)
class Journal:
    """Stages with the seconds they took, and their command lines."""

    seconds: dict[str, float]
    commands: dict[str, str]


def read_journal(path: Path) -> Journal:
    """Read a journal of stages.

    Raises:
        ConfigError: It is not ``{"seconds": {stage: number}, "commands": {stage: text}}``.
    """
    return build(Journal, (str(path), read_json_object(path)))


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
    """List the packed data sets that a run's config names and that still exist."""
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
    shown = [
        name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)
    ]
    manifests = [read_json_object(folder / "manifest.json") for folder in folders]
    return dict(zip(shown, manifests, strict=True))
