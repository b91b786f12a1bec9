"""Publishing: a finished work folder becomes a documented, traceable dataset.

The folder holds the instructions as JSON Lines, the same rows as a TFDS dataset of ArrayRecord shards, a dataset card,
where everything comes from, and last a manifest of all files. Nothing in it depends on when or where it was written:
every date is the ledger's, so the same work folder gives the same bytes.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import io
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from datagen.configuration import Range, check
from datagen.decoding import read_json_object
from datagen.errors import ConfigError, DataError
from datagen.files import hash_file, write_json, write_text
from datagen.publish import card
from datagen.publish.provenance import gather
from datagen.records import Instruction, parse_line, write_objects
from datagen.replacing import MANIFEST, moved_into_place, refuse_replacing
from datagen.work.folder import LEDGER, pinned_settings

KIND = "alpacare-instructions"
FORMAT_VERSION = 1
SPLITS = {"train": "instructions.jsonl", "validation": "validation.jsonl"}
"""Splits and their files."""

_FULL = ("No space left", "File too large", "Disk quota exceeded", "os_error_code='28'", "os_error_code='27'")
_PACKAGES = ("alpacare-jax", "array-record", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class _Settings:
    validation_share: Annotated[float, Range(0, 1, below=True)]
    shards: Annotated[int | None, Range(1, 10**6)]

    def __post_init__(self) -> None:
        check(self)


def publish(
    work: str | Path,
    out: str | Path,
    *,
    license: str | None = None,
    name: str = "Medical instructions",
    validation_share: float = 0.0,
    shards: int | None = None,
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Publish the results of a finished work folder: JSON Lines, ArrayRecord shards (TFDS), card and manifest.

    The same work folder gives the same bytes. Nothing is uploaded.

    Args:
        work: Work folder of a synthesis run.
        out: Folder to write; it appears whole or not at all.
        license: Licence of the data as you name it; without one the card states that none was named.
        name: Name of the dataset on its card.
        validation_share: Share of the rows, 0 to below 1, set aside as a validation split; a row's id alone decides,
            so that it stays on its side when the dataset grows.
        shards: Shards of each split; one for each 64 MiB when None.
        beam_runner: Runner of Apache Beam that writes the shards, such as "DirectRunner"; None uses no Beam.
        beam_options: Flags for the runner, such as "--direct_num_workers=4".
        overwrite: Replace what an earlier call wrote there.

    Returns:
        The manifest as written: ``rows`` of each split, and ``files``.

    Raises:
        ConfigError: An argument has an impossible value.
        DataError: The run is not finished or still writing, its files disagree, or ``out`` is taken, holds what no
            earlier call wrote, or lies in the work folder.
    """
    work, out, license = Path(work), Path(out), (license or "").strip() or None
    _Settings(validation_share, shards)
    if out.resolve().is_relative_to(work.resolve()):
        raise DataError(
            "the output folder is inside the work folder",
            where=out,
            expected=f"a folder outside {work}",
            remedy="choose another `out`",
        )
    check_out = partial(refuse_replacing, out, overwrite, kind=KIND, what="a published dataset")
    check_out()
    beam = _describe_beam(beam_runner, beam_options)
    with _no_writer(work) as quiet:
        if not quiet:
            raise DataError(
                "a run is writing to this work folder",
                where=work,
                remedy="wait until it has ended (`alpacare synthesize --status` tells), then publish",
            )
        funnel = _read_finished(work)
        with moved_into_place(out, check_out) as folder:
            counts = _write_rows(work, folder, validation_share, funnel["instructions"])
            versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
            provenance = gather(work, funnel, counts, license=license, versions=versions)
            write_json(folder / "provenance.json", provenance)
            files = {split: SPLITS[split] for split in counts}
            write_text(folder / "README.md", card.render(provenance, name=name, files=files))
            _write_tfds(folder, counts, shards, beam)
            manifest = {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "rows": counts,
                "files": _describe_files(folder),
            }
            write_json(folder / MANIFEST, manifest)
    return manifest


def in_validation(id: str, share: float) -> bool:
    """Say on which side a row lies; its id alone decides.

    Examples:
        >>> sum(in_validation(f"t{number}", 0.1) for number in range(1000))
        91
    """
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") < share * 2**64


def is_written(work: Path) -> bool:
    """Say whether a run is writing to the work folder at this moment."""
    with _no_writer(work) as quiet:
        return not quiet


@contextlib.contextmanager
def _no_writer(work: Path) -> Iterator[bool]:
    """Keep runs from writing to the work folder meanwhile; yield False if one is already writing."""
    lock = work / f"{LEDGER}.lock"
    if not lock.exists():
        yield True
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a writer holds it alone, readers together
            quiet = True
        except BlockingIOError:
            quiet = False
        yield quiet


def _read_finished(work: Path) -> dict[str, Any]:
    path = work / "funnel.json"
    pinned_settings(work)
    if not path.exists():
        raise DataError(
            "the run is not finished",
            where=work,
            expected="a funnel.json in it, which `alpacare synthesize` writes last",
            remedy="resume it with `alpacare synthesize --work` and the same folder, then publish",
        )
    funnel = read_json_object(path)
    if not isinstance(funnel.get("instructions"), int):
        raise DataError("funnel.json is broken", where=path, expected="a count of instructions")
    if not funnel["instructions"]:
        raise DataError(
            "the run produced no instructions",
            where=work / "rejected.jsonl",
            remedy="read the reasons there",
        )
    return funnel


def _write_rows(work: Path, folder: Path, validation_share: float, expected: int) -> dict[str, int]:
    """Write the rows of each split as JSON Lines, row by row, and return how many each has."""
    source = work / SPLITS["train"]
    counts = {
        split: write_objects(
            folder / file,
            (
                record.to_dict()
                for record in _read_rows(source)
                if in_validation(str(record.id), validation_share) == (split == "validation")
            ),
        )
        for split, file in SPLITS.items()
    }
    total = sum(counts.values())
    if total != expected:
        raise DataError(
            "instructions.jsonl and funnel.json disagree",
            where=source,
            found=f"{total} rows",
            expected=f"{expected}, as funnel.json counts them",
            remedy="run `alpacare synthesize` on the folder again, which writes both anew",
        )
    if not counts["train"]:
        raise DataError("no row is left for training", where=source, found=f"{total} rows, all set aside")
    if not counts["validation"]:
        (folder / SPLITS["validation"]).unlink()
    return {split: rows for split, rows in counts.items() if rows}


def _read_rows(source: Path) -> Iterator[Instruction]:
    """Read valid rows with ids of their own one by one: a dataset may be larger than the memory."""
    seen: dict[str, int] = {}
    with source.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            where = f"{source}:{number}"
            record = Instruction.from_dict(parse_line(line, where), where=where)
            id = record.id or ""
            if not id or id in seen:
                raise DataError(
                    "two rows have the same id" if id else "a row has no id",
                    where=where,
                    found=f"{id}, also at line {seen[id]}" if id else None,
                    remedy="publish what `alpacare synthesize` wrote, unchanged",
                )
            seen[id] = number
            yield record


def _describe_beam(name: str | None, options: Sequence[str]) -> dict[str, Any]:
    """Return the Beam arguments for TFDS: none, or an existing runner and its options."""
    if name is None and options:
        raise ConfigError(
            "beam_options are given without beam_runner", remedy="name a runner, or drop the options"
        )
    if name is None:
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
        runner = create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError("there is no such Beam runner", found=name, expected=str(error)) from None
    return {"beam_runner": runner, "beam_options": PipelineOptions(list(options))}


def _write_tfds(folder: Path, counts: dict[str, int], shards: int | None, beam: dict[str, Any]) -> None:
    import tensorflow_datasets as tfds

    from datagen.publish.dataset_builder import MedicalInstructions, plan_chunks

    plans = {split: plan_chunks(folder / SPLITS[split], shards=shards) for split in counts}
    shards = min(max(chunks[0].shards for chunks in plans.values()), *counts.values())
    splits = {split: [dataclasses.replace(each, shards=shards) for each in plans[split]] for split in plans}
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


def _describe_files(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {"file": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in files
    ]
