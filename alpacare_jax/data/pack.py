"""Instructions become packed sequences: a sharded data set in a folder, or the same sequences in memory.

The data set is built in a hidden folder beside its destination and moved into place when its manifest is
written, so a reader sees the whole of it or nothing.
"""

import contextlib
import dataclasses
import importlib.metadata
import io
import logging
import math
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.data import manifest as manifests
from alpacare_jax.data.dataset import EXAMPLES_FILE, IN_MEMORY, PackedDataset, describe_memory
from alpacare_jax.data.examples import Example, encode_examples
from alpacare_jax.data.manifest import Manifest, Statistics
from alpacare_jax.data.packing import PackedSequence, fill_sequence, plan_sequences
from alpacare_jax.errors import ConfigError, DataError, is_full
from alpacare_jax.prompts import TEMPLATES, Template
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer
from datagen.configuration import Range
from datagen.decoding import read_json_object
from datagen.files import hash_file
from datagen.records import Instruction, holds_text, read_objects, write_objects
from datagen.replacing import moved_into_place, refuse_replacing

logger = logging.getLogger("alpacare.data")

OWN_FILES = (
    EXAMPLES_FILE,
    manifests.FILE,
    "dataset_info.json",
    "features.json",
    "packed_instructions-*.array_record-*",
)
"""Patterns of the files of a packed data set."""

LENGTHS, SHARDS = Range(8, 1_048_576), Range(1, 100_000)
LISTED_IDS = 20
"""How many ids of left-out or truncated records the manifest lists."""

_BATCH = 1000
_SHARD_BYTES = 32 * 2**20
_PACKAGES = ("alpacare-jax", "array-record", "numpy", "tensorflow-datasets", "tokenizers", "transformers")

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, how much of it is done and how much there is."""


Source = str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]]
"""A file of instructions, several of them, or records as dictionaries."""


def pack(
    source: Source,
    tokenizer: Tokenizer | str | Path,
    *,
    seq_len: int,
    out: str | Path | None = None,
    template: Template = "alpaca",
    split: str = "train",
    truncate: bool = False,
    share_rows: bool = True,
    shards: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PackedDataset:
    """Encode instructions and pack them into sequences for training.

    Args:
        source: Instructions: a file (JSON Lines or a JSON list), a list of files, or a list of records.
        tokenizer: The model's tokenizer, or its folder or file.
        seq_len: Tokens per sequence (T).
        out: Folder of the data set; in memory when None.
        template: Prompt around each task: "alpaca", or "chat" for the model's own chat template.
        split: Name of the split.
        truncate: Cut examples longer than a sequence at the end instead of leaving them out.
        share_rows: Let examples share sequences; otherwise one example a sequence, padded.
        shards: Number of files; chosen by size when None.
        overwrite: Replace a packed data set that is already at ``out``.
        progress: Called with the progress of each stage.

    Returns:
        The sequences, with the manifest that says what was done.

    Raises:
        ConfigError: An argument is invalid.
        DataError: The source is broken or holds nothing that fits, or ``out`` is taken or holds what no
            earlier call wrote.

    Examples:
        >>> data = pack("tasks.jsonl", model.tokenizer, seq_len=1024)
    """
    _check_arguments(seq_len, template, split, shards)
    files = _files(source)
    target = None if out is None else Path(out)
    if target is not None:
        _check_out(target, overwrite)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(tokenizer)
    unused: Counter[str] = Counter()
    examples = _encode(_read(source, files, unused), tokenizer, template, progress)
    kept, left_out = fit(examples, seq_len, truncate=truncate, where=_named(files))
    plan = plan_sequences([len(example) for example in kept], seq_len, pack=share_rows)
    sequences = (fill_sequence([kept[i] for i in row], seq_len, tokenizer.filler_id) for row in plan)
    ids = [[kept[i].id for i in row] for row in plan]
    described = Manifest(
        split=split,
        row_length=seq_len,
        template=template,
        packing="best-fit" if share_rows else "one-per-row",
        tokenizer=manifests.describe_tokenizer(tokenizer, kept),
        shards=[],
        source=_describe_source(files) | {"unused_fields": dict(unused.most_common())},
        versions={"python": platform.python_version()}
        | {n: importlib.metadata.version(n) for n in _PACKAGES},
        **_count(examples, kept, left_out, len(plan), seq_len),
    )
    _warn(described, tokenizer)
    if target is None:
        held = list(sequences)
        return PackedDataset(None, dataclasses.replace(described, shards=[describe_memory(held)]), held, ids)
    with moved_into_place(target, lambda: _check_out(target, overwrite)) as folder:
        counted = _counted(sequences, len(plan), progress)
        _write_shards(counted, len(plan), folder, seq_len, split, shards)
        write_objects(folder / EXAMPLES_FILE, ({"row": i, "ids": names} for i, names in enumerate(ids)))
        files = sorted(folder.glob("*.array_record-*"))
        described = dataclasses.replace(described, shards=[_describe_file(file) for file in files])
        described.write(folder)
    return PackedDataset.open(target)


def _warn(manifest: Manifest, tokenizer: Tokenizer) -> None:
    """Say what of the data the model does not know, and what was left out."""
    found = manifest.statistics
    if missing := tokenizer.describe_missing_ends(manifest.end_ids):
        logger.warning(
            "%s, with which the answers of this data end: a run on it and its export will list both as end tokens",
            missing,
        )
    place = Path(tokenizer.source)
    folder = place if place.is_dir() else place.parent
    for file in (folder / "config.json", folder / "hf" / "config.json"):
        known = read_json_object(file).get("max_position_embeddings") if file.is_file() else None
        longest = min(manifest.row_length, found.longest_example)
        if isinstance(known, int) and (overrun := manifests.describe_overrun(longest, known)):
            logger.warning("%s: %s", file, overrun)
    if found.left_out > found.prompt_too_long:
        logger.warning("Records longer than --seq-len were left out; a larger one or --truncate keeps them.")
    if unused := manifest.source["unused_fields"]:
        fields = ", ".join(f"{name} ({count:,} records)" for name, count in unused.items())
        logger.warning("Unused fields: %s", fields)


def _check_arguments(seq_len: int, template: str, split: str, shards: int | None) -> None:
    for wrong, where, found, expected in (
        (seq_len not in LENGTHS, "seq_len", seq_len, f"{LENGTHS} tokens"),
        (template not in TEMPLATES, "template", template, " or ".join(TEMPLATES)),
        (not split.isidentifier(), "split", split, "letters, digits and _"),
        (shards is not None and shards not in SHARDS, "shards", shards, SHARDS),
    ):
        if wrong:
            raise ConfigError(f"{where} is invalid", where=where, found=found, expected=expected)


def _files(source: Source) -> list[Path]:
    """Return the files that a source names, none where it is a list of records.

    Raises:
        DataError: One is a folder; the file in it that was surely meant is named.
    """
    if isinstance(source, str | Path):
        source = [source]
    files = [Path(each) for each in source if not isinstance(each, Mapping)]
    if files and len(files) < len(source):
        raise DataError("the list mixes files and records", where="source", expected="files or records")
    for file in files:
        if file.is_dir():
            meant = file / "instructions.jsonl"
            raise DataError(
                "a file of instructions was expected, not a folder",
                where=file,
                remedy=f"give {meant}" if meant.exists() else "name the JSON Lines file in it",
            )
    return files


def _read(source: Source, files: Sequence[Path], unused: Counter[str]) -> list[tuple[str, Instruction]]:
    """Read the records of a source, each with its place; one without an id is named after its place.

    Args:
        source: The source.
        files: Those that it names.
        unused: Counts, by field, the records with text in a field that no part of an example is made from.

    Raises:
        DataError: A record is broken; the message names file and line.
    """
    found = []
    sources: list[Any] = [*files] or [source]
    for each in sources:
        for where, row in read_objects(each):
            record = Instruction.from_dict(row, where=where)
            place, _, line = where.rpartition(":")
            name = f"{Path(place).stem}-line-{line}" if len(files) > 1 else f"line-{line}"
            unused.update(k for k, v in record.extra.items() if k != "schema_version" and holds_text(v))
            named = dataclasses.replace(record, id=name if record.id is None else str(record.id))
            found.append((where, named))
    if not found:
        raise DataError("the source is empty", where=_named(files), expected="at least one instruction")
    return found


def _encode(
    records: Sequence[tuple[str, Instruction]],
    tokenizer: Tokenizer,
    template: Template,
    progress: Progress | None,
) -> list[Example]:
    examples: list[Example] = []
    for at in range(0, len(records), _BATCH):
        places, here = zip(*records[at : at + _BATCH], strict=True)
        examples += encode_examples(here, tokenizer, template, where=places)
        if progress:
            progress("encoding", len(examples), len(records))
    return examples


def fit(
    examples: Sequence[Example], seq_len: int, *, truncate: bool, where: str
) -> tuple[list[Example], list[Example]]:
    """Return the examples that are no longer than a sequence, and those that are left out.

    Args:
        examples: The examples.
        seq_len: T.
        truncate: Cut the end of the response (and with it the end token) instead of leaving the example out. An
            example whose prompt alone fills the sequence is left out all the same: nothing of it would be learnt.
        where: The source, named in errors.

    Raises:
        DataError: None fits.
    """
    kept, left_out = [], []
    for example in examples:
        if len(example) <= seq_len:
            kept.append(example)
        elif truncate and example.loss_mask[:seq_len].any():
            kept.append(example.cut(seq_len))
        else:
            left_out.append(example)
    if not kept:
        raise DataError(
            "no record fits into a sequence",
            where=where,
            found=f"{len(examples)} records, the shortest of {min(map(len, examples))} tokens",
            expected=f"at most {seq_len} tokens",
            remedy="choose a larger --seq-len, or cut with --truncate",
        )
    return kept, left_out


def _count(
    examples: Sequence[Example], kept: Sequence[Example], left_out: Sequence[Example], rows: int, seq_len: int
) -> dict[str, Any]:
    """Return what a manifest says of the number and length of examples."""
    tokens, truncated = sum(map(len, kept)), [example for example in kept if example.truncated]
    statistics = Statistics(
        records=len(examples),
        examples=len(kept),
        rows=rows,
        slots=rows * seq_len,
        tokens=tokens,
        supervised_tokens=int(sum(example.loss_mask.sum() for example in kept)),
        fill=round(tokens / (rows * seq_len), 6),
        longest_example=max(map(len, examples)),
        left_out=len(left_out),
        prompt_too_long=sum(not example.loss_mask[:seq_len].any() for example in left_out),
        truncated=len(truncated),
    )
    left_out_ids, truncated_ids = ([e.id for e in listed[:LISTED_IDS]] for listed in (left_out, truncated))
    return {"statistics": statistics, "left_out_ids": left_out_ids, "truncated_ids": truncated_ids}


def _check_out(out: Path, overwrite: bool) -> None:
    refuse_replacing(out, overwrite, kind=manifests.KIND, what="a packed data set", patterns=OWN_FILES)


def _write_shards(
    rows: Iterator[PackedSequence], count: int, folder: Path, seq_len: int, split: str, shards: int | None
) -> None:
    import tensorflow_datasets as tfds

    from alpacare_jax.data.dataset_builder import PackedInstructions

    size = count * seq_len * 4 * 4
    shards = min(count, shards or math.ceil(size / _SHARD_BYTES))
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder = PackedInstructions(
            rows=rows,
            row_length=seq_len,
            split=split,
            data_dir=str(folder / "tfds"),
            file_format="array_record",
        )
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
        except RuntimeError as error:  # what the record writer raises, whatever the reason
            if not is_full(error):
                raise
            raise DataError(
                "no disk space is left for the packed data set",
                where=folder.parent.parent,
                remedy="free some disk space (or raise the file size limit) and run the same command again",
            ) from error
    for file in Path(builder.data_dir).iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / "tfds")


def _counted(
    rows: Iterator[PackedSequence], total: int, progress: Progress | None
) -> Iterator[PackedSequence]:
    for done, row in enumerate(rows, start=1):
        yield row
        if progress and (done % 100 == 0 or done == total):
            progress("writing", done, total)


def _describe_source(files: Sequence[Path]) -> dict[str, Any]:
    each = [_describe_file(file) for file in files]
    if not each:
        return {"file": IN_MEMORY}
    texts = {key: ", ".join(str(file[key]) for file in each) for key in ("file", "sha256")}
    return {"file": texts["file"], "bytes": sum(file["bytes"] for file in each), "sha256": texts["sha256"]}


def _describe_file(file: Path) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": hash_file(file)}


def _named(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files)) or "source"
