"""Synthesis from Python: the functions of ``import datagen`` that the command ``alpacare synthesize`` calls."""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datagen.client import Service
from datagen.configuration import to_plain
from datagen.decoding import read_yaml_mapping
from datagen.errors import ConfigError
from datagen.settings import Settings, beside, missing_files, read_settings
from datagen.synthesize import Funnel, Status
from datagen.synthesize import status as read_status
from datagen.synthesize import synthesize as run_synthesis
from datagen.synthesize.display import watching
from datagen.work import derive as derivation
from datagen.work.asking import cancel_all
from datagen.work.folder import CONFIG, pinned_settings, recorded_seeds
from datagen.work.plan import SynthesisPlan
from datagen.work.plan import plan as make_plan

log = logging.getLogger(__name__)


def synthesize(
    work: str | Path,
    *,
    teacher: Service | None = None,
    answerer: Service | None = None,
    config: str | Path | None = None,
    retry_failed: bool = False,
    wait: bool = True,
    progress: bool = True,
    **settings: Any,
) -> Funnel:
    """Write new tasks with a model, filter them and have them answered; or resume the run of a work folder.

    Every request and reply is kept in the work folder, so an interrupted call resumes without asking anything twice.

    Args:
        work: The work folder: ledger, and afterwards ``instructions.jsonl``, ``tasks.jsonl``, ``rejected.jsonl`` and
            ``funnel.json``.
        teacher: Writes the tasks; not needed where the configuration or the work folder names it.
        answerer: Answers them; the teacher when not given.
        config: YAML file of settings. Without one the settings hold with which the folder was last used.
        retry_failed: Ask again what an earlier run gave up on.
        wait: In batch mode, wait for replies; otherwise return as soon as everything that can be sent is under way.
        progress: Show how far the run is, in a terminal and in a notebook.
        settings: Fields of ``Settings``, which override the others; a group such as ``task_sampling`` may be a
            mapping of some of its fields.

    Returns:
        What became of every request, task and answer, as in ``funnel.json``.

    Raises:
        ConfigError: Unknown keys, wrong types or impossible values; all bad keys are named at once.
        DataError: The work folder belongs to something else, a seed is broken, or no task was kept.
        ServiceError: The service refuses or cannot be reached; what was answered is kept.
        BatchesUnderWay: Nothing more can be done without waiting, and ``wait`` is False.

    Examples:
        >>> teacher = Service("http://127.0.0.1:8000/v1", "my-model")
        >>> synthesize("work", teacher=teacher, target=200).instructions  # doctest: +SKIP
        196
    """
    services = {
        name: each for name, each in (("teacher", teacher), ("answerer", answerer)) if each is not None
    }
    with watching() if progress else contextlib.nullcontext() as watch:
        found = find_settings(work, config, {**services, **settings})
        return run_synthesis(found, Path(work), retry_failed=retry_failed, wait=wait, watch=watch)


def plan_synthesis(work: str | Path, *, config: str | Path | None = None, **settings: Any) -> SynthesisPlan:
    """Plan a run of ``synthesize``: sample prompts, requests, tokens and cost. Nothing is sent or written."""
    return make_plan(find_settings(work, config, settings), Path(work))


def derive(
    work: str | Path, new_work: str | Path, /, *, config: str | Path | None = None, **settings: Any
) -> derivation.Derived:
    """Make a new work folder for other settings, with every reply of a work folder that still applies.

    Args:
        work: The work folder of an earlier run; only read.
        new_work: The new folder, for ``synthesize`` to go on in.
        config: As for ``synthesize``.
        settings: As for ``synthesize``.

    Raises:
        DataError: `work` is no work folder, or the new folder holds a run or other files.
    """
    return derivation.derive(Path(work), Path(new_work), find_settings(work, config, settings))


def cancel_batches(
    work: str | Path, *, config: str | Path | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """End the batches of a work folder that are under way, bring in what they have done, and send nothing.

    Returns:
        The batches that were ended.
    """
    return cancel_all(find_settings(work, config, settings), Path(work))


def status(work: str | Path) -> Status:
    """Return how far a work folder is, also beside a running job."""
    return read_status(Path(work))


def find_settings(work: str | Path, config: str | Path | None, given: Mapping[str, Any]) -> Settings:
    """Lay given settings over a configuration file, or over what the work folder was last used with.

    A budget that the folder was given holds until another is named, and so do its prices: forgetting one must not lift
    a cap.

    Args:
        work: The work folder.
        config: The file.
        given: Fields of ``Settings``; groups may be mappings.

    Raises:
        ConfigError: A setting is not valid, or names a file that does not exist.
    """
    work = Path(work)
    given = {key: to_plain(value) for key, value in given.items()}
    pinned = pinned_settings(work) if (work / CONFIG).exists() else {}
    sources = [(str(work / CONFIG), pinned)]
    if config is not None:
        kept = {key: pinned[key] for key in ("budget_usd", "prices") if pinned.get(key) is not None}
        sources = [(str(work / CONFIG), kept), (str(config), beside(Path(config), read_yaml_mapping(config)))]
    settings = read_settings([*sources, ("the arguments", given)])
    replaced = set(given)
    if "seeds" not in given and settings.seeds is not None and not settings.seeds.exists():
        own = recorded_seeds(work)
        if own is not None:
            log.warning(
                "seeds: %s is not there; going on with the folder's own copy, %s", settings.seeds, own
            )
            settings = dataclasses.replace(settings, seeds=own)
            replaced.add("seeds")
    for where, mapping in reversed(sources):
        for key, path in missing_files(
            {key: each for key, each in mapping.items() if key not in replaced}
        ).items():
            raise ConfigError(
                f"{key}: the file does not exist",
                where=where,
                found=str(path.absolute()),
                remedy="put it back, or correct the path (a config's paths start from the config's own folder)",
            )
    return settings
