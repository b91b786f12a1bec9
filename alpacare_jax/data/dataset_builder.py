"""The TFDS builder of packed data sets: ArrayRecord shards, written and read without TensorFlow."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from alpacare_jax.data.packing import COLUMNS, PackedSequence


class SameBytesWriter(tfds_writer.ExampleWriter):
    """Writes each example in one fixed order of its features, which differs between processes otherwise."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """Write the shard at ``path`` from keys and serialised examples."""
        parsed = ((key, tf_example_pb2.Example.FromString(example)) for key, example in examples)
        return super().write(path, ((key, row.SerializeToString(deterministic=True)) for key, row in parsed))


class PackedInstructions(tfds.core.GeneratorBasedBuilder):
    """Rows of packed instruction data.

    Args:
        rows: The rows, in the order in which they are stored.
        row_length: Tokens per row (T).
        split: Name of the split.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, *, rows: Iterable[PackedSequence], row_length: int, split: str = "train", **kwargs: Any
    ) -> None:
        self._rows, self._row_length, self._split = rows, row_length, split
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Instructions and responses as token ids, packed into rows of equal length.",
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Tensor(shape=(self._row_length,), dtype=np.int32) for name in COLUMNS}
            ),
            # The order is kept, so that row numbers can be traced back; the loader shuffles.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {self._split: self._generate_examples()}

    def _example_writer(self) -> SameBytesWriter:
        return SameBytesWriter(file_format=self.info.file_format)

    def _generate_examples(self) -> Iterator[tuple[int, PackedSequence]]:
        yield from enumerate(self._rows)
