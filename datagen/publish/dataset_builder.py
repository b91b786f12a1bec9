"""The text data set of a published folder: a TFDS builder over its JSON Lines, without TensorFlow.

The rows keep the order of the file, and a shard takes the same rows whether one process writes all of them or
Apache Beam spreads them over workers: both ways give the same bytes.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from datagen.records import Instruction, parse_line

TEXTS = ("id", "instruction", "input", "output", "type", "topic", "view", "difficulty")
"""Features that hold a field of the record as text, "" where it has none."""

JSON_TEXTS = ("source", "extra")
"""Features that hold an object as JSON text: where a row comes from, and the fields that no feature has."""

SHARD_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20

_KEYS_PER_SHARD = 2**40


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A run of whole lines of a file, for one worker: where it begins and how many lines it has.

    ``first`` is the number of its first line. Rows and shards of the whole file say where each row belongs.
    """

    path: str
    offset: int
    first: int
    lines: int
    rows: int
    shards: int


class SameBytesWriter(tfds_writer.ExampleWriter):
    """Writes each example in one fixed order of its features, which differs between processes otherwise."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """Write the shard at ``path`` from keys and serialised examples."""
        return super().write(path, ((key, _canonical(example)) for key, example in examples))


def _canonical(example: bytes) -> bytes:
    message = tf_example_pb2.Example.FromString(example)
    return bytes(message.SerializeToString(deterministic=True))


class MedicalInstructions(tfds.core.GeneratorBasedBuilder):
    """Instructions, inputs and answers as text.

    Args:
        splits: Name of each split and the chunks of its file, in order.
        beam: Spread the chunks over the workers of a Beam pipeline.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, splits: Mapping[str, Sequence[Chunk]], beam: bool = False, **kwargs: Any) -> None:
        self._splits, self._beam = splits, beam
        # Stands in dataset_info.json: with the name of earlier versions the bytes stay theirs.
        self.__module__ = "datagen.release.dataset_builder"
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Medical tasks with their answers, written by language models. Not medical advice.",
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Text() for name in (*TEXTS, *JSON_TEXTS)}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if not self._beam:
            return {name: _read_all(chunks) for name, chunks in self._splits.items()}
        import apache_beam as beam

        return {
            name: beam.Create(list(chunks)) | beam.Reshuffle() | beam.FlatMap(read_chunk)
            for name, chunks in self._splits.items()
        }

    def _example_writer(self) -> SameBytesWriter:
        return SameBytesWriter(file_format=self.info.file_format)

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
        raise NotImplementedError("the splits bring their own rows")


def plan_chunks(
    path: Path, *, shard_bytes: int = SHARD_BYTES, chunk_bytes: int | None = None, shards: int | None = None
) -> list[Chunk]:
    """Cut a file of JSON Lines into runs of whole lines.

    Args:
        path: The file; every line is a record.
        shard_bytes: Bytes of the file for one shard.
        chunk_bytes: Bytes of the file for one chunk, 1 MiB when None; a longer line is a chunk of its own.
        shards: Number of shards, instead of a choice by size.
    """
    chunk_bytes = chunk_bytes or CHUNK_BYTES
    spans: list[tuple[int, int, int]] = []
    offset = first = start = number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            if offset - start >= chunk_bytes:
                spans.append((start, first, number - first))
                start, first = offset, number
    if number > first:
        spans.append((start, first, number - first))
    wanted = shards or math.ceil(offset / shard_bytes)
    return [Chunk(str(path), *span, rows=number, shards=min(number, wanted)) for span in spans]


def read_chunk(chunk: Chunk) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a chunk, each with the key that puts it into its shard and its place there."""
    with Path(chunk.path).open("rb") as file:
        file.seek(chunk.offset)
        for number in range(chunk.first, chunk.first + chunk.lines):
            where = f"{chunk.path}:{number + 1}"
            record = Instruction.from_dict(parse_line(file.readline(), where), where=where)
            yield key_of(number, chunk.rows, chunk.shards), to_features(record)


def key_of(number: int, rows: int, shards: int) -> int:
    """Return the key from which the Beam writer finds a row's shard: the one that gives equal shards.

    The writer puts key k into shard ``trunc(k * shards / largest key)``, the largest key into the last.

    Example:
        >>> keys = [key_of(number, 5, 2) for number in range(5)]
        >>> [min(int(key * 2 / keys[-1]), 1) for key in keys], keys == sorted(keys)
        ([0, 0, 1, 1, 1], True)
    """
    if number == rows - 1:
        return shards * _KEYS_PER_SHARD
    ends = [round(rows * shard / shards) for shard in range(1, shards + 1)]
    shard = next(shard for shard, end in enumerate(ends) if number < end)
    return shard * _KEYS_PER_SHARD + number


def to_features(record: Instruction) -> dict[str, str]:
    """Return a record's features, all of them text.

    Example:
        >>> to_features(Instruction("What is gout?", "A crystal arthritis.", "<noinput>"))["input"]
        ''
    """
    texts = {name: getattr(record, name) or "" for name in TEXTS} | {"input": record.normal_input()}
    objects = {name: getattr(record, name) for name in JSON_TEXTS}
    return texts | {
        name: json.dumps(value, ensure_ascii=False, sort_keys=True) if value else ""
        for name, value in objects.items()
    }


def _read_all(chunks: Sequence[Chunk]) -> Iterator[tuple[int, dict[str, str]]]:
    for chunk in chunks:
        yield from read_chunk(chunk)
