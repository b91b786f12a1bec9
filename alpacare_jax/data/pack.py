"""The work of ``alpacare pack``: a file of instructions becomes a packed, sharded data set.

The data set is built in a hidden folder beside its destination and moved into place when its manifest is
written, so a reader sees the whole of it or nothing.
"""

import contextlib
import dataclasses
import importlib.metadata
import io
import math
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alpacare_jax.data import manifest as manifests
from alpacare_jax.data.examples import Example, encode_examples
from alpacare_jax.data.manifest import Manifest, Statistics
from alpacare_jax.data.packing import Row, fill_row, plan_rows
from alpacare_jax.errors import ConfigError, DataError, is_full
from alpacare_jax.prompts import TEMPLATES, Template
from alpacare_jax.tokenizer import Tokenizer
from datagen.records import Instruction, holds_text, read_objects, write_objects
from datagen.replacing import moved_into_place, refuse_strangers

EXAMPLES_FILE = "examples.jsonl"
OWN_FILES = (
    EXAMPLES_FILE,
    manifests.FILE,
    "dataset_info.json",
    "features.json",
    "packed_instructions-*.array_record-*",
)
"""Patterns of the files of a packed data set."""

LISTED_IDS = 20
"""How many ids of left-out or truncated records the manifest lists."""

_BATCH = 1000
_SHARD_BYTES = 32 * 2**20
_PACKAGES = ("alpacare-jax", "array-record", "numpy", "tensorflow-datasets", "tokenizers", "transformers")

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, how much of it is done and how much there is."""


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """How to pack.

    Args:
        row_length: Tokens per row (T).
        template: "alpaca" or "chat".
        split: Name of the split.
        truncate: Cut examples longer than a row at the end instead of leaving them out.
        pack: Let examples share rows; otherwise one example a row.
        shards: Number of shards; chosen by size when None.
    """

    row_length: int
    template: Template = "alpaca"
    split: str = "train"
    truncate: bool = False
    pack: bool = True
    shards: int | None = None

    def __post_init__(self) -> None:
        problems = [
            (self.row_length < 8, "the sequence length is too small", self.row_length, "at least 8 tokens"),
            (self.template not in TEMPLATES, "unknown template", self.template, " or ".join(TEMPLATES)),
            (not self.split.isidentifier(), "not a name for a split", self.split, "letters, digits and _"),
            (
                self.shards is not None and self.shards < 1,
                "impossible shard count",
                self.shards,
                "at least 1",
            ),
        ]
        for wrong, what, found, expected in problems:
            if wrong:
                raise ConfigError(what, where="pack", found=found, expected=expected)


def pack(
    source: str | Path,
    out: str | Path,
    tokenizer: Tokenizer,
    config: PackConfig,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Pack a file of instructions into a data set.

    Args:
        source: Instructions, JSON Lines or a JSON list.
        out: Folder of the data set.
        tokenizer: The model's tokenizer.
        config: How to pack.
        overwrite: Replace a packed data set that is already at ``out``.
        progress: Told how far each stage is.

    Returns:
        The manifest as written.

    Raises:
        DataError: The source is broken or holds nothing that fits, or ``out`` is taken or holds what no
            earlier call wrote.
    """
    source, out = Path(source), Path(out)
    progress = progress or (lambda stage, done, total: None)
    check_source(source)
    _check_out(out, overwrite)
    unused: Counter[str] = Counter()
    examples = read_examples(source, tokenizer, config.template, progress, unused)
    kept, left_out, truncated = fit(examples, config.row_length, truncate=config.truncate)
    if not kept:
        raise DataError(
            "no record fits into a row",
            where=source,
            found=f"{len(examples)} records, the shortest of {min(map(len, examples))} tokens",
            expected=f"at most {config.row_length} tokens",
            remedy="choose a larger --seq-len, or cut with --truncate",
        )
    plan = plan_rows([len(example) for example in kept], config.row_length, pack=config.pack)
    rows = (fill_row([kept[i] for i in row], config.row_length, tokenizer.filler_id) for row in plan)
    ids = [[kept[i].id for i in row] for row in plan]
    cut = {id(example) for example in truncated}
    ends = {int(example.tokens[-1]) for example in kept if id(example) not in cut}
    largest = max(tokenizer.filler_id, *(int(example.tokens.max()) for example in kept))
    with moved_into_place(out, lambda: _check_out(out, overwrite)) as folder:
        _write_shards(_counted(rows, len(plan), progress), len(plan), folder, config)
        write_objects(folder / EXAMPLES_FILE, ({"row": i, "ids": names} for i, names in enumerate(ids)))
        written = Manifest(
            split=config.split,
            row_length=config.row_length,
            template=config.template,
            packing="best-fit" if config.pack else "one-per-row",
            tokenizer=manifests.describe_tokenizer(tokenizer, ends, largest),
            statistics=_statistics(examples, kept, left_out, truncated, len(plan), config.row_length),
            left_out_ids=[example.id for example in left_out[:LISTED_IDS]],
            truncated_ids=[example.id for example in truncated[:LISTED_IDS]],
            source={
                "file": source.name,
                "bytes": source.stat().st_size,
                "sha256": manifests.hash_file(source),
                "unused_fields": dict(unused.most_common()),
            },
            shards=_describe_shards(folder),
            versions=_versions(),
        )
        written.write(folder)
    return written


def read_examples(
    source: Path,
    tokenizer: Tokenizer,
    template: Template,
    progress: Progress | None = None,
    unused: Counter[str] | None = None,
) -> list[Example]:
    """Read and encode a file of instructions; a record without an id is named after its line.

    Args:
        source: Instructions, JSON Lines or a JSON list.
        tokenizer: The model's tokenizer.
        template: "alpaca" or "chat".
        progress: Told how far encoding is.
        unused: Counts, by field, the records with text in a field that no part of an example is made from.

    Raises:
        DataError: A record is broken or empty; the message names file and line.
    """
    places, records = [], []
    for where, row in read_objects(source):
        record = Instruction.from_dict(row, where=where)
        name = f"line-{where.rsplit(':', 1)[1]}" if record.id is None else str(record.id)
        if unused is not None:
            unused.update(k for k, v in record.extra.items() if k != "schema_version" and holds_text(v))
        places.append(where)
        records.append(dataclasses.replace(record, id=name))
    if not records:
        raise DataError("the file holds no record", where=source, expected="at least one instruction")
    examples: list[Example] = []
    for at in range(0, len(records), _BATCH):
        here = slice(at, at + _BATCH)
        examples += encode_examples(records[here], tokenizer, template, where=places[here])
        if progress:
            progress("encoding", len(examples), len(records))
    return examples


def fit(
    examples: Sequence[Example], row_length: int, *, truncate: bool
) -> tuple[list[Example], list[Example], list[Example]]:
    """Deal with examples longer than a row.

    Args:
        examples: The examples.
        row_length: T.
        truncate: Cut the end of the response (and with it the end token) instead of leaving the example
            out. An example whose prompt alone fills the row is left out all the same: nothing of it would
            be learnt.

    Returns:
        The examples that fit, those left out, and those (among the first) that were cut.
    """
    kept, left_out, truncated = [], [], []
    for example in examples:
        if len(example) <= row_length:
            kept.append(example)
        elif truncate and example.loss_mask[:row_length].any():
            kept.append(example.cut(row_length))
            truncated.append(kept[-1])
        else:
            left_out.append(example)
    return kept, left_out, truncated


def _statistics(
    examples: Sequence[Example],
    kept: Sequence[Example],
    left_out: Sequence[Example],
    truncated: Sequence[Example],
    rows: int,
    row_length: int,
) -> Statistics:
    tokens = sum(map(len, kept))
    return Statistics(
        records=len(examples),
        examples=len(kept),
        rows=rows,
        slots=rows * row_length,
        tokens=tokens,
        supervised_tokens=int(sum(example.loss_mask.sum() for example in kept)),
        fill=round(tokens / (rows * row_length), 6),
        longest_example=max(map(len, examples)),
        left_out=len(left_out),
        prompt_too_long=sum(not example.loss_mask[:row_length].any() for example in left_out),
        truncated=len(truncated),
    )


def check_source(source: Path) -> None:
    """Refuse a folder, and name the file in it that was surely meant.

    Raises:
        DataError: It is a folder.
    """
    if not source.is_dir():
        return
    meant = source / "instructions.jsonl"
    raise DataError(
        "a file of instructions was expected, not a folder",
        where=source,
        remedy=f"give {meant}" if meant.exists() else "name the JSON Lines file in it",
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
    if not (out / manifests.FILE).exists():
        raise DataError(
            "--overwrite replaces packed data sets alone, and this is none",
            where=out,
            remedy="choose another --out, or delete it yourself",
        )
    manifests.read_kind(out)
    refuse_strangers(out, patterns=OWN_FILES)


def _write_shards(rows: Iterator[Row], count: int, folder: Path, config: PackConfig) -> None:
    import tensorflow_datasets as tfds

    from alpacare_jax.data.dataset_builder import PackedInstructions

    size = count * config.row_length * 4 * 4
    shards = min(count, config.shards or math.ceil(size / _SHARD_BYTES))
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder = PackedInstructions(
            rows=rows,
            row_length=config.row_length,
            split=config.split,
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


def _counted(rows: Iterator[Row], total: int, progress: Progress) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        yield row
        if done % 100 == 0 or done == total:
            progress("writing", done, total)


def _describe_shards(folder: Path) -> list[dict[str, object]]:
    files = sorted(folder.glob("*.array_record-*"))
    return [{"file": f.name, "bytes": f.stat().st_size, "sha256": manifests.hash_file(f)} for f in files]


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }
