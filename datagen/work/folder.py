"""The work folder of a synthesis run: whose it is, and the configuration it is pinned to."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datagen.client import Service
from datagen.contamination.evaluation_files import content_hash, split_fields
from datagen.coverage import DRAW_VERSION
from datagen.decoding import read_json_object
from datagen.errors import DataError
from datagen.files import write_json
from datagen.records import SeedTask
from datagen.settings import Settings, read_settings, to_mapping
from datagen.work.own_seeds import PINNED_AS, SEEDS, fingerprint, keep_copy, own_seeds, with_own_seeds

CONFIG = "config.json"
LEDGER = "ledger.sqlite"

_RESULTS = ("instructions.jsonl", "funnel.json")

# Free to change between runs of one work folder: they move the work or its end, never a result already there.
_FREE = ("target", "max_requests", "seeds", "eager", "budget_usd", "prices", "mode", "batch")
_FREE_OF_SERVICE = (
    "base_url",
    "api_key_env",
    "timeout_s",
    "max_tries",
    "concurrency",
    "first_wait_s",
    "requests_per_minute",
    "tokens_per_minute",
    "patience_s",
    "heed_headers",
)


def pin(
    work: Path,
    settings: Settings,
    seeds: Sequence[SeedTask],
    prompt_version: str,
    *,
    began: bool = True,
    forked_from: str | None = None,
) -> None:
    """Write the settings into the work folder, or see that those that shape the result are the ones there.

    Args:
        work: The work folder.
        settings: What the run is to do.
        seeds: Its seed tasks.
        prompt_version: Version of the prompts.
        began: Whether the ledger holds a request; a folder that never asked anything takes any configuration.
        forked_from: The folder from which this one took its first rows, for the record.

    Raises:
        DataError: The folder was made by another configuration; every difference is named.
    """
    fixed = _fixed(settings, seeds, prompt_version)
    path = work / CONFIG
    if path.exists():
        pinned = _read_pinned(path)
        forked_from = forked_from or pinned.get("forked_from")
        differences = _differences(pinned["fixed"], fixed)
        if differences and began:
            other_seeds = pinned["fixed"].get(PINNED_AS) != fixed[PINNED_AS] and (work / SEEDS).exists()
            own = f" (its seed tasks: --seeds {work / SEEDS})" if other_seeds else ""
            raise DataError(
                "the work folder was made by another configuration",
                where=path,
                found="; ".join(differences),
                remedy=f"go back to the values in the folder{own}, or add --derive NEW_FOLDER to go on in a folder of "
                "its own with every reply that still applies",
            )
    keep_copy(work, seeds)
    content = {"version": 1, "fixed": fixed, "settings": to_mapping(settings)}
    if forked_from:
        content["forked_from"] = forked_from
    write_json(path, content)


def differences(work: Path, settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> list[str]:
    """Name the settings that shape the result and differ from those a work folder is pinned to; changes nothing."""
    path = work / CONFIG
    if not path.exists():
        return []
    return _differences(_read_pinned(path)["fixed"], _fixed(settings, seeds, prompt_version))


def pinned_settings(work: Path) -> dict[str, Any]:
    """Return the settings with which the work folder was last used, for :func:`read_settings`.

    Raises:
        DataError: The folder holds no configuration, or a broken one.
    """
    path = work / CONFIG
    if not path.exists():
        raise DataError(
            "this is not the work folder of a synthesis run", where=work, expected="a config.json in it"
        )
    settings: dict[str, Any] = _read_pinned(path)["settings"]
    return settings


def recorded_settings(work: Path) -> Settings:
    """Return the settings of a run to look back at it: with the folder's own copy of its seeds, where there is one.

    Raises:
        DataError: The folder holds no configuration, or a broken one, or its copy was changed.
    """
    settings = read_settings([(str(work / CONFIG), pinned_settings(work))])
    return with_own_seeds(settings, work, _read_pinned(work / CONFIG)["fixed"])


def recorded_seeds(work: Path) -> Path | None:
    """Return the work folder's own copy of its seed tasks, for when the original is gone; None where there is none.

    Raises:
        DataError: The folder's configuration is broken, or its copy was changed.
    """
    path = work / CONFIG
    return own_seeds(work, _read_pinned(path)["fixed"]) if path.exists() else None


def refuse_foreign(work: Path) -> None:
    """Refuse a folder that holds something but no run, or a run without its ledger: its files could be overwritten.

    Raises:
        DataError: It is a file, or holds other files, or the ledger of its run is gone.
    """
    if work.exists() and not work.is_dir():
        raise DataError("the work folder is a file", where=work, remedy="choose another --work folder")
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
            remedy="choose an empty --work folder",
        )


def refuse_lost(work: Path) -> None:
    """Refuse a folder in which a run was and whose ledger is gone: it would ask, and pay for, everything again.

    The ledger is made before everything else in the folder, so that no run leaves a folder like this.

    Raises:
        DataError: There are settings or results of a run, and no ledger or an empty one.
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


def _read_pinned(path: Path) -> dict[str, Any]:
    data = read_json_object(path)
    if not {"fixed", "settings"} <= data.keys() or data.get("version") != 1:
        raise DataError("the work folder's configuration is of another version", where=path)
    return data


def _differences(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what differs. A setting that the folder does not know was at its default when the folder was made."""
    known = _defaults() | there
    return [
        f"{key}: {known.get(key)!r} in the folder, {now.get(key)!r} now"
        for key in sorted(there.keys() | now.keys())
        if known.get(key) != now.get(key)
    ]


def _fixed(settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> dict[str, Any]:
    """Return every setting that shapes the result, under its dotted name."""
    fixed = {
        "prompts": prompt_version,
        "draws": DRAW_VERSION,
        PINNED_AS: fingerprint(seeds),
    }
    files = [f"{split_fields(spec)[0].name} {content_hash(spec)[:12]}" for spec in settings.evaluation_files]
    return fixed | _flat(dataclasses.asdict(settings)) | {"evaluation_files": files}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in _FREE:
            continue
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": _plain(v) for key, v in value.items() if key not in _FREE_OF_SERVICE}
        else:
            flat[name] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _defaults() -> dict[str, Any]:
    values = dataclasses.asdict(
        Settings(Service("http://localhost/v1", ""), Service("http://localhost/v1", ""))
    )
    return _flat(values)
