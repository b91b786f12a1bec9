"""Packed rows that training reads at random: in the folder that packing wrote, or in memory."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from alpacare_jax.data.manifest import Manifest, Statistics, read_manifest
from alpacare_jax.data.packing import COLUMNS, PackedSequence
from alpacare_jax.errors import DataError
from alpacare_jax.tokenizer import Tokenizer
from datagen.files import hash_file

EXAMPLES_FILE = "examples.jsonl"
"""Which records are in which row: a line for each row."""
IN_MEMORY = "(packed in memory)"
"""What replaces the folder's name for sequences in memory."""


class SequenceSource(Protocol):
    """Anything that gives rows by number: a ``PackedDataset``, or a list of rows in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> PackedSequence: ...


class PackedDataset:
    """Packed rows, read at random.

    Args:
        folder: The folder that packing wrote; None where the rows lie in memory.
        manifest: What it says of them.
        source: The rows.
        ids: The ids of the records in each row; None where they stand in the folder.
    """

    def __init__(
        self,
        folder: Path | None,
        manifest: Manifest,
        source: Sequence[PackedSequence],
        ids: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.folder, self.manifest, self._source, self._listed = folder, manifest, source, ids

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a packed data set.

        Raises:
            DataError: The folder is missing, incomplete (no manifest), damaged, or of another format.
        """
        import tensorflow_datasets as tfds

        folder = Path(folder)
        manifest = read_manifest(folder)
        source = tfds.builder_from_directory(str(folder)).as_data_source(manifest.split)
        if len(source) != manifest.statistics.rows:
            raise DataError(
                "the number of sequences in the shards differs from the manifest",
                where=folder,
                found=len(source),
                expected=manifest.statistics.rows,
                remedy="run `alpacare pack` again",
            )
        return cls(folder, manifest, source)

    @classmethod
    def from_sequences(cls, rows: Sequence[PackedSequence]) -> Self:
        """Take sequences of your own packing, whose tokenizer is not known.

        Args:
            rows: int32 arrays [T] by the names of ``alpacare_jax.data.packing.COLUMNS``, T the same in all.

        Raises:
            DataError: There is no row, or one lacks an array or has another length.
        """
        shapes = {tuple(np.shape(row.get(name, 0)) for name in COLUMNS) for row in rows}
        if len(shapes) != 1 or len(set(min(shapes))) != 1 or len(min(shapes)[0]) != 1:
            raise DataError(
                "every sequence must hold arrays of one length",
                where="data",
                found="no row" if not shapes else f"shapes {sorted(shapes)[:4]}",
                expected=f"{', '.join(COLUMNS)} in every row, each of shape [T]",
            )
        length, segments = len(rows[0]["tokens"]), [int(np.max(row["segment_ids"])) for row in rows]
        tokens = sum(int(np.count_nonzero(row["segment_ids"])) for row in rows)
        longest = max(int(np.max(row["positions"])) + 1 for row in rows)
        statistics = Statistics(
            records=sum(segments),
            examples=sum(segments),
            rows=len(rows),
            slots=len(rows) * length,
            tokens=tokens,
            supervised_tokens=sum(int(np.sum(row["loss_mask"])) for row in rows),
            fill=round(tokens / (len(rows) * length), 6),
            longest_example=longest,
        )
        largest = max(int(np.max(row["tokens"])) for row in rows)
        manifest = Manifest(
            split="train",
            row_length=length,
            tokenizer={"fingerprint": None, "vocab_size": largest + 1, "pad_id": 0, "end_ids": []},
            statistics=statistics,
            source={"file": IN_MEMORY},
            shards=[describe_memory(rows)],
        )
        return cls(None, manifest, rows, [[str(number)] * found for number, found in enumerate(segments)])

    @property
    def where(self) -> str:
        """Its name in messages: its folder, if it has one."""
        return IN_MEMORY if self.folder is None else str(self.folder)

    @property
    def row_length(self) -> int:
        """Tokens per sequence (T)."""
        return self.manifest.row_length

    @property
    def pad_id(self) -> int:
        """The token id of the padding."""
        return int(self.manifest.tokenizer["pad_id"])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> PackedSequence:
        row = self._source[index]
        return {name: row[name] for name in COLUMNS}

    def __repr__(self) -> str:
        found = self.manifest.statistics
        return (
            f"PackedDataset({self.where}: {found.examples:,} examples in {found.rows:,} rows of "
            f"{self.row_length:,} tokens, {found.fill:.1%} full)"
        )

    def example_ids(self, index: int) -> list[str]:
        """Return the ids of the records in a row, in the order of its segments, to name them in messages."""
        for number, ids in enumerate(self._ids()):
            if number == index:
                return list(ids)
        raise IndexError(index)

    def most_segments(self) -> int:
        """Return the number of segments in the fullest row, the padding at its end counted as one."""
        return 1 + max(map(len, self._ids()))

    def _ids(self) -> Iterator[Sequence[str]]:
        if self.folder is None:
            yield from self._listed or ()
            return
        with (self.folder / EXAMPLES_FILE).open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["ids"]

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Check that the rows were made with this tokenizer.

        Raises:
            DataError: They were made with another one.
        """
        found, expected = tokenizer.fingerprint, self.manifest.tokenizer["fingerprint"]
        if expected is not None and found != expected:
            raise DataError(
                "the data set was packed with another tokenizer than the model's",
                where=self.where,
                found=f"model: fingerprint {found[:16]}, vocabulary {tokenizer.vocab_size:,}",
                expected=f"data: fingerprint {expected[:16]}, "
                f"vocabulary {self.manifest.tokenizer['vocab_size']:,}",
                remedy="run `alpacare pack` with the model's own tokenizer",
            )

    def verify(self) -> None:
        """Check every shard against its SHA-256 in the manifest; this reads the whole data set.

        Raises:
            DataError: A shard differs.
        """
        if self.folder is None:
            return
        for shard in self.manifest.shards:
            found = hash_file(self.folder / shard["file"])
            if found != shard["sha256"]:
                raise DataError(
                    "a shard of the packed data set is damaged",
                    where=self.folder / shard["file"],
                    found=f"sha256 {found}",
                    expected=shard["sha256"],
                    remedy="run `alpacare pack` again, or copy the whole folder once more",
                )


def describe_memory(rows: Sequence[PackedSequence]) -> dict[str, object]:
    """Return the entry for sequences in memory that a manifest has in place of shards."""
    digest, size = hashlib.sha256(), 0
    for row in rows:
        for name in COLUMNS:
            part = np.ascontiguousarray(row[name], np.int32).tobytes()
            digest.update(part)
            size += len(part)
    return {"file": IN_MEMORY, "bytes": size, "sha256": digest.hexdigest()}
