"""The work folder of a synthesis run, and the configuration and seed tasks it is pinned to.

``seeds.jsonl`` in a work folder is a copy of the seed tasks, so a run can be resumed without the original file. The
configuration contains their hash, so that a changed copy or original is detected. Folders of an older version have no
copy until they are run again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.client import Service
from datagen.configuration import to_plain
from datagen.contamination.evaluation_files import content_hash, split_fields
from datagen.coverage import DRAW_VERSION
from datagen.decoding import read_json_object
from datagen.errors import DataError
from datagen.files import write_json
from datagen.records import SeedTask, write_records
from datagen.seeds import load_seeds
from datagen.settings import Settings, read_settings, to_mapping

CONFIG = "config.json"
LEDGER = "ledger.sqlite"
SEEDS = "seeds.jsonl"

_RESULTS = ("instructions.jsonl", "funnel.json")
_SEED_TASKS = "seed tasks"

# May change between runs of one work folder: they change the amount or speed of work, never an existing result.
_FREE = {"target", "max_requests", "seeds", "eager", "budget_usd", "prices", "mode", "batch"}
_FREE_OF_SERVICE = {field.name for field in dataclasses.fields(Service)} - {"model"}


def pin(
    work: Path,
    settings: Settings,
    seeds: Sequence[SeedTask],
    prompt_version: str,
    *,
    began: bool = True,
    derived_from: str | None = None,
) -> None:
    """Write the settings into the work folder; refuse a change of those that determine the result.

    Args:
        work: The work folder.
        settings: What the run is to do.
        seeds: Its seed tasks.
        prompt_version: Version of the prompts.
        began: Whether the ledger contains a request; a folder without requests accepts any configuration.
        derived_from: The folder that this one was derived from, for the record.

    Raises:
        DataError: The folder was made by another configuration; every difference is named.
    """
    fixed = _fixed(settings, seeds, prompt_version)
    pinned = _pinned(work)
    if pinned and began and (differences := _differences(pinned["fixed"], fixed)):
        other_seeds = pinned["fixed"].get(_SEED_TASKS) != fixed[_SEED_TASKS] and (work / SEEDS).exists()
        own = f" (its seed tasks: `seeds` {work / SEEDS})" if other_seeds else ""
        raise DataError(
            "the work folder was made by another configuration",
            where=work / CONFIG,
            found="; ".join(differences),
            remedy=f"go back to the values in the folder{own}, or use `derive` with a new folder, which "
            "takes over every reply that still applies",
        )
    keep_copy(work, seeds)
    content = {"version": 1, "fixed": fixed, "settings": to_mapping(settings)}
    if derived_from := derived_from or pinned.get("forked_from"):
        content["forked_from"] = derived_from
    write_json(work / CONFIG, content)


def differences(work: Path, settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> list[str]:
    """List the settings that determine the result and differ from those of the work folder; changes nothing."""
    pinned = _pinned(work)
    return _differences(pinned["fixed"], _fixed(settings, seeds, prompt_version)) if pinned else []


def pinned_settings(work: Path) -> dict[str, Any]:
    """Return the settings with which the work folder was last used, for :func:`read_settings`.

    Raises:
        DataError: The folder has no configuration, or an invalid one.
    """
    pinned = _pinned(work)
    if not pinned:
        raise DataError(
            "this is not the work folder of a synthesis run", where=work, expected="a config.json in it"
        )
    settings: dict[str, Any] = pinned["settings"]
    return settings


def recorded_settings(work: Path) -> Settings:
    """Return the settings of an earlier run, with the folder's copy of its seed tasks if it exists.

    Raises:
        DataError: The folder has no configuration, or an invalid one, or its copy was changed.
    """
    settings = read_settings([(str(work / CONFIG), pinned_settings(work))])
    return dataclasses.replace(settings, seeds=recorded_seeds(work) or settings.seeds)


def recorded_seeds(work: Path) -> Path | None:
    """Return the path of the work folder's copy of its seed tasks; None if it does not exist.

    Raises:
        DataError: The folder's configuration is invalid, or its copy was changed.
    """
    pinned, path = _pinned(work), work / SEEDS
    if not pinned or not path.exists():
        return None
    found, expected = fingerprint(load_seeds(path)), pinned["fixed"].get(_SEED_TASKS)
    if found != expected:
        raise DataError(
            "the work folder's copy of its seed tasks was changed",
            where=path,
            found=found,
            expected=expected,
            remedy="run the same command again with the original file as `seeds`, which writes the copy anew",
        )
    return path


def keep_copy(work: Path, seeds: Sequence[SeedTask]) -> None:
    """Write a copy of the seed tasks into the work folder, unless it has one."""
    path = work / SEEDS
    try:
        if load_seeds(path) == list(seeds):
            return
    except (DataError, OSError):
        pass
    write_records(path, seeds)


def fingerprint(seeds: Sequence[SeedTask]) -> str:
    """Return the number of seed tasks and the beginning of the SHA-256 of their content.

    Example:
        >>> fingerprint([SeedTask("Why rest?")])
        '1 tasks, ab7ef92ed2ff'
    """
    text = json.dumps([seed.to_dict() for seed in seeds], sort_keys=True)
    return f"{len(seeds)} tasks, {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def refuse_foreign(work: Path) -> None:
    """Refuse a folder with other files, or with a run whose ledger is missing: its files could be overwritten.

    Raises:
        DataError: It is a file, or contains other files, or the ledger of its run is missing.
    """
    if work.exists() and not work.is_dir():
        raise DataError("the work folder is a file", where=work, remedy="choose another `work` folder")
    if not work.exists():
        return
    if (work / CONFIG).exists() or (work / LEDGER).exists():
        refuse_lost(work)
        return
    foreign = sorted(path.name for path in work.iterdir())
    if foreign:
        raise DataError(
            "the work folder holds other files and no run of this command",
            where=work,
            found=", ".join(foreign[:5]),
            remedy="choose an empty `work` folder",
        )


def refuse_lost(work: Path) -> None:
    """Refuse a folder of an earlier run whose ledger is missing: every request would be sent and paid for again.

    A run creates the ledger before any other file, so it never leaves such a folder.

    Raises:
        DataError: The folder has settings or results of a run, but no ledger or an empty one.
    """
    left = [name for name in (CONFIG, *_RESULTS) if (work / name).exists()]
    path = work / LEDGER
    if not left or (path.exists() and path.stat().st_size > 0):
        return
    raise DataError(
        f"the work folder holds results but its ledger is {'empty' if path.exists() else 'missing'}",
        where=path,
        found=", ".join(left),
        expected="the requests that were paid for and what was spent",
        remedy="restore it from a copy, or choose a new folder",
    )


def _pinned(work: Path) -> dict[str, Any]:
    """Return the pinned configuration; {} if the folder has none."""
    path = work / CONFIG
    if not path.exists():
        return {}
    pinned = read_json_object(path)
    if not {"fixed", "settings"} <= pinned.keys() or pinned.get("version") != 1:
        raise DataError("the work folder's configuration is of another version", where=path)
    return pinned


def _differences(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the differences. A setting missing in the folder was at its default when the folder was created."""
    service = Service("http://localhost/v1", "")
    known = _flat(Settings(service, service)) | there
    return [
        f"{key}: {known.get(key)!r} in the folder, {now.get(key)!r} now"
        for key in sorted(there.keys() | now.keys())
        if known.get(key) != now.get(key)
    ]


def _fixed(settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> dict[str, Any]:
    """Return every setting that determines the result, under its dotted name."""
    fixed = {"prompts": prompt_version, "draws": DRAW_VERSION, _SEED_TASKS: fingerprint(seeds)}
    files = [f"{split_fields(spec)[0].name} {content_hash(spec)[:12]}" for spec in settings.evaluation_files]
    return fixed | _flat(settings) | {"evaluation_files": files}


def _flat(settings: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in to_plain(settings).items():
        if isinstance(value, dict) and name not in _FREE:
            flat |= {f"{name}.{key}": each for key, each in value.items() if key not in _FREE_OF_SERVICE}
        elif name not in _FREE:
            flat[name] = value
    return flat
