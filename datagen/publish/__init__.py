"""Publishing: a finished work folder becomes a data set that others can read, check and trace.

The folder holds the instructions as JSON Lines, the same rows as a TFDS data set of ArrayRecord shards, a data
set card, where everything comes from, and last a manifest of all files. Nothing in it depends on when or where
it was written: every date is the ledger's, so the same work folder gives the same bytes.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from datagen.decoding import read_json_object
from datagen.errors import ConfigError, DataError
from datagen.files import write_text
from datagen.publish import card
from datagen.publish.provenance import gather
from datagen.records import Instruction, parse_line, write_objects
from datagen.replacing import moved_into_place, refuse_strangers
from datagen.work.folder import LEDGER, pinned_settings

KIND = "alpacare-instructions"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SPLITS = {"train": "instructions.jsonl", "validation": "validation.jsonl"}
"""Splits and their files."""

_FULL = ("No space left", "File too large", "Disk quota exceeded", "os_error_code='28'", "os_error_code='27'")
_PACKAGES = ("alpacare-jax", "array-record", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class PublishConfig:
    """How to publish.

    Attributes:
        license: Licence of the data as the user names it; None states that none was named.
        name: Name of the data set on its card.
        validation_share: Share of the rows, 0 to below 1, set aside as a validation split; a row's id alone
            decides, so that it stays on its side when the data set grows.
        beam_runner: Runner of Apache Beam that writes the shards, such as "DirectRunner"; None uses no Beam.
        beam_options: Flags for the runner, such as "--direct_num_workers=4".
        shards: Shards of each split; chosen by size when None.
    """

    license: str | None = None
    name: str = "Medical instructions"
    validation_share: float = 0.0
    beam_runner: str | None = None
    beam_options: tuple[str, ...] = ()
    shards: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(
                "the validation share is out of range",
                found=self.validation_share,
                expected="0 to less than 1",
            )
        if self.beam_options and self.beam_runner is None:
            raise ConfigError("options for Beam are given without a runner", remedy="name one, or drop them")
        if self.shards is not None and self.shards < 1:
            raise ConfigError("impossible shard count", found=self.shards, expected="at least 1")


def publish(work: Path, out: Path, config: PublishConfig, *, overwrite: bool = False) -> dict[str, Any]:
    """Publish the results of a finished work folder.

    Args:
        work: Work folder of a synthesis run.
        out: Folder to write; it appears whole or not at all.
        config: How to publish.
        overwrite: Replace what an earlier call wrote there.

    Returns:
        The manifest as written.

    Raises:
        DataError: The run is not finished or still writing, its files disagree, or ``out`` is taken, holds what
            no earlier call wrote, or lies in the work folder.
    """
    _check_place(work, out)
    _check_out(out, overwrite)
    beam = _describe_beam(config)
    with _nobody_writes(work):
        funnel = _read_finished(work)
        with moved_into_place(out, lambda: _check_out(out, overwrite)) as folder:
            return _fill(work, folder, config, funnel, beam)


def _fill(
    work: Path, folder: Path, config: PublishConfig, funnel: dict[str, Any], beam: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of the data set, the manifest last, and return it."""
    counts = _write_rows(work, folder, config, funnel)
    provenance = gather(work, funnel, counts, license=config.license, versions=_versions())
    _write_json(folder / "provenance.json", provenance)
    text = card.render(provenance, name=config.name, files={name: SPLITS[name] for name in counts})
    write_text(folder / "README.md", text)
    _write_tfds(folder, counts, config, beam)
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "rows": counts,
        "files": _describe_files(folder),
    }
    _write_json(folder / MANIFEST, manifest)
    return manifest


def in_validation(id: str, share: float) -> bool:
    """Say on which side a row lies; its id alone decides.

    Example:
        >>> sum(in_validation(f"t{number}", 0.1) for number in range(1000))
        91
    """
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") < share * 2**64


def _read_finished(work: Path) -> dict[str, Any]:
    path = work / "funnel.json"
    pinned_settings(work)
    if not path.exists():
        raise DataError(
            "the run is not finished",
            where=work,
            expected="a funnel.json in it, which `alpacare synthesize` writes last",
            remedy="go on with `alpacare synthesize --work` and the same folder, then publish",
        )
    funnel = read_json_object(path)
    if not isinstance(funnel.get("instructions"), int):
        raise DataError("the funnel is broken", where=path, expected="a count of instructions")
    if not funnel["instructions"]:
        raise DataError(
            "the run published no instruction",
            where=work / "rejected.jsonl",
            remedy="read the reasons there",
        )
    return funnel


def _write_rows(work: Path, folder: Path, config: PublishConfig, funnel: dict[str, Any]) -> dict[str, int]:
    """Write the rows of each split as JSON Lines, row by row, and return how many each has."""
    source = work / SPLITS["train"]
    total = _check_rows(source)
    if total != funnel["instructions"]:
        raise DataError(
            "the instructions and the funnel disagree",
            where=source,
            found=f"{total} rows",
            expected=f"{funnel['instructions']}, as funnel.json counts them",
            remedy="run `alpacare synthesize` on the folder again, which writes both anew",
        )
    counts = {}
    for name, file in SPLITS.items():
        aside = name == "validation"
        rows = (
            record.to_dict()
            for _, record in _read_rows(source)
            if in_validation(str(record.id), config.validation_share) == aside
        )
        counts[name] = write_objects(folder / file, rows)
    if not counts["train"]:
        raise DataError("no row is left for training", where=source, found=f"{total} rows, all set aside")
    if not counts["validation"]:
        (folder / SPLITS["validation"]).unlink()
    return {name: rows for name, rows in counts.items() if rows}


def _check_rows(source: Path) -> int:
    """See that every row is valid and has an id of its own; return how many there are."""
    seen: dict[str, str] = {}
    for where, record in _read_rows(source):
        id = record.id or ""
        if not id or id in seen:
            raise DataError(
                "two rows have the same id" if id else "a row has no id",
                where=where,
                found=f"{id}, also at {seen[id]}" if id else None,
                remedy="publish what `alpacare synthesize` wrote, unchanged",
            )
        seen[id] = where
    return len(seen)


def _read_rows(source: Path) -> Iterator[tuple[str, Instruction]]:
    """Read JSON Lines one by one: a corpus may be larger than the memory."""
    with source.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            where = f"{source}:{number}"
            yield where, Instruction.from_dict(parse_line(line, where), where=where)


def _describe_beam(config: PublishConfig) -> dict[str, Any]:
    """Return what TFDS is told about Beam: nothing, or a runner that exists and its options."""
    if config.beam_runner is None:
        return {}
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners import create_runner
    except ImportError:
        raise ConfigError(
            "Apache Beam is not installed",
            remedy="install the 'beam' extra: pip install 'alpacare-jax[beam]'",
        ) from None
    try:
        runner = create_runner(config.beam_runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            "there is no such Beam runner", found=config.beam_runner, expected=str(error)
        ) from None
    return {"beam_runner": runner, "beam_options": PipelineOptions(list(config.beam_options))}


def _write_tfds(folder: Path, counts: dict[str, int], config: PublishConfig, beam: dict[str, Any]) -> None:
    import tensorflow_datasets as tfds

    from datagen.publish.dataset_builder import MedicalInstructions, plan_chunks

    plans = {name: plan_chunks(folder / SPLITS[name], shards=config.shards) for name in counts}
    shards = min(max(chunks[0].shards for chunks in plans.values()), *counts.values())
    splits = {name: [dataclasses.replace(each, shards=shards) for each in plans[name]] for name in plans}
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder = MedicalInstructions(
            splits=splits, beam=bool(beam), data_dir=str(folder / "building"), file_format="array_record"
        )
        settings = tfds.download.DownloadConfig(num_shards=shards, **beam)
        try:
            builder.download_and_prepare(download_config=settings)
        except RuntimeError as error:  # what the record writer raises, whatever the reason
            if not any(sign in str(error) for sign in _FULL):
                raise
            raise DataError(
                "no disk space is left for the data set",
                where=folder.parent.parent,
                remedy="free some disk space (or raise the file size limit) and run the same command again",
            ) from error
    Path(builder.data_dir).rename(folder / "tfds")
    shutil.rmtree(folder / "building")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def _describe_files(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    described = []
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described.append(
            {
                "file": path.relative_to(folder).as_posix(),
                "bytes": path.stat().st_size,
                "sha256": digest,
            }
        )
    return described


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


@contextlib.contextmanager
def _nobody_writes(work: Path) -> Iterator[None]:
    """Hold off a run that would write to the work folder meanwhile, and refuse one that does."""
    lock = work / f"{LEDGER}.lock"
    if not lock.exists():
        yield
        return
    with lock.open("rb") as file:
        if not _share(file):
            raise DataError(
                "a run is writing to this work folder",
                where=work,
                remedy="wait until it has ended (`alpacare synthesize --status` tells), then publish",
            )
        yield


def is_written(work: Path) -> bool:
    """Say whether a run is writing to the work folder at this moment."""
    lock = work / f"{LEDGER}.lock"
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        return not _share(file)


def _share(file: BinaryIO) -> bool:
    """Take the lock that a writer holds alone, together with other readers, until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_place(work: Path, out: Path) -> None:
    if out.resolve().is_relative_to(work.resolve()):
        raise DataError(
            "the data set would lie in the work folder",
            where=out,
            expected=f"a folder outside {work}",
            remedy="choose another --out",
        )


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise DataError(
            "the output exists already",
            where=out,
            remedy="choose another --out, or give --overwrite to replace it",
        )
    # Replacing means deleting a folder, so it must be one that this command wrote.
    kind, names = None, [MANIFEST]
    with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        kind = manifest.get("kind")
        names += [file["file"] for file in manifest["files"]]
    if kind != KIND:
        raise DataError(
            "--overwrite replaces published data sets alone, and this is none",
            where=out,
            remedy="choose another --out, or delete it yourself",
        )
    refuse_strangers(out, names=names)
