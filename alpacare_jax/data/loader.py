"""From a packed data set to batches on the mesh.

The order of training is one endless stream of sequences: the first epoch's shuffle, then the second's, and so
on. It depends only on the seed and the number of sequences. A batch is the next ``global_batch`` of them,
and the position is how many have been taken: one number, the same for every process, that
is all that is needed to resume, with any number of processes and with another batch size too.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from alpacare_jax.data.dataset import SequenceSource
from alpacare_jax.data.packing import empty_sequence, stack_sequences
from alpacare_jax.errors import ConfigError, DataError, ShardingError

if TYPE_CHECKING:
    from jax.sharding import NamedSharding

Batch = dict[str, jax.Array]
"""Arrays [B, T], int32: ``tokens``, ``segment_ids``, ``positions``, ``loss_mask``."""

_ENDLESS = 2**62


def count_steps(rows: int, epochs: float, global_batch: int) -> int:
    """Return the steps that training for a number of epochs takes, rounded up.

    Batches run across the border between epochs, so nothing is dropped at the end of one. The last batch of
    all is filled with the first rows of the epoch that would follow.

    Example:
        >>> count_steps(rows=2063, epochs=3, global_batch=128)
        49
    """
    return max(1, math.ceil(rows * epochs / global_batch))


class SequenceOrder:
    """The endless shuffled order of sequences: every one once per epoch, each epoch ordered anew.

    Args:
        rows: Number of sequences.
        seed: Seed of the shuffles.

    Raises:
        ConfigError: The seed is out of range.
    """

    def __init__(self, rows: int, seed: int) -> None:
        import grain

        if not 0 <= seed < 2**32:
            raise ConfigError(
                "the data seed is out of range", where="seed", found=seed, expected="0 to 2**32 - 1"
            )
        self.rows = rows
        self._order = grain.MapDataset.range(rows).seed(seed).shuffle().repeat()

    def __getitem__(self, sample: int) -> int:
        return int(self._order[sample])

    def window(self, start: int, stop: int) -> list[int]:
        """Return the rows at samples ``start`` to ``stop`` - 1, such as those of one batch."""
        return [self[sample] for sample in range(start, stop)]


class BatchStream:
    """Endless shuffled batches, read ahead in a background thread.

    Iterating yields ``(batch, position)``: the batch, and the number of sequences taken from the stream up to
    and with it, over all processes. A stream that starts there gives exactly the batches that would have
    followed.

    Args:
        dataset: The sequences.
        global_batch: Sequences per batch over all processes (B).
        seed: Seed of the shuffles.
        start_sample: The position to start from.
        sharding: Sharding of a [B, T] array; each process reads only the rows of its own devices. NumPy
            arrays of the whole batch come out where it is None.

    Raises:
        ShardingError: The batch or the row length does not divide over the sharding.
    """

    def __init__(
        self,
        dataset: SequenceSource,
        global_batch: int,
        seed: int,
        start_sample: int = 0,
        *,
        sharding: "NamedSharding | None" = None,
    ) -> None:
        self.global_batch, self.position = global_batch, start_sample
        self.order = SequenceOrder(len(dataset), seed)
        self.wait_s = 0.0
        """Seconds that the latest batch was waited for."""
        self._placement = _Placement.of(dataset, global_batch, sharding)

        def read(step: int) -> dict[str, np.ndarray]:
            start = start_sample + step * global_batch
            return stack_sequences([dataset[self.order[start + at]] for at in self._placement.offsets])

        self._local = _read_ahead(_ENDLESS, read)

    def __iter__(self) -> Iterator[tuple[Batch, int]]:
        return self

    def __next__(self) -> tuple[Batch, int]:
        started = time.perf_counter()
        local = next(self._local)
        batch = self._placement.place(local)
        self.wait_s = time.perf_counter() - started
        self.position += self.global_batch
        return batch, self.position

    def close(self) -> None:
        """Stop reading ahead."""
        self._local.close()


def batches_in_order(
    dataset: SequenceSource, global_batch: int, *, sharding: "NamedSharding | None" = None, pad_id: int = 0
) -> Iterator[Batch]:
    """Yield every row once, in the order of the data set; for validation.

    Args:
        dataset: The sequences.
        global_batch: Sequences per batch over all processes (B).
        sharding: As in :class:`BatchStream`.
        pad_id: Token id of the empty rows that fill the last batch; they carry no target.
    """
    placement = _Placement.of(dataset, global_batch, sharding)
    empty = empty_sequence(placement.row_length, pad_id)

    def read(step: int) -> dict[str, np.ndarray]:
        rows = [step * global_batch + offset for offset in placement.offsets]
        return stack_sequences([dataset[row] if row < len(dataset) else empty for row in rows])

    local = _read_ahead(math.ceil(len(dataset) / global_batch), read)
    try:
        for arrays in local:
            yield placement.place(arrays)
    finally:
        local.close()


def _read_ahead(steps: int, read: Callable[[int], dict[str, np.ndarray]]) -> Any:
    """Read batches in a thread of their own, two ahead of the one that is asked for."""
    import grain

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(grain.MapDataset.range(steps).map(read).to_iter_dataset(options))


@dataclasses.dataclass(frozen=True)
class _Placement:
    """Which rows of a batch this process needs, and how they become global arrays."""

    shape: tuple[int, int]
    offsets: tuple[int, ...]
    sharding: "NamedSharding | None"

    @classmethod
    def of(cls, dataset: SequenceSource, global_batch: int, sharding: "NamedSharding | None") -> "_Placement":
        if len(dataset) == 0:
            raise DataError("the data set is empty", expected="at least one")
        shape = (global_batch, len(dataset[0]["tokens"]))
        if sharding is None:
            return cls(shape, tuple(range(global_batch)), None)
        try:
            sharding.shard_shape(shape)
        except ValueError:
            sizes = ", ".join(f"{axis}={size}" for axis, size in sharding.mesh.shape.items())
            raise ShardingError(
                "the batch does not divide over the mesh",
                where=f"mesh {sizes}",
                found=f"{shape[0]} rows of {shape[1]} tokens, to be split as {sharding.spec}",
                expected="a whole number of rows and tokens on every device",
                remedy="change the global batch, the sequence length or the mesh",
            ) from None
        needed: set[int] = set()
        for index in sharding.addressable_devices_indices_map(shape).values():
            needed |= set(range(*cast(tuple[slice, slice], index)[0].indices(global_batch)))
        return cls(shape, tuple(sorted(needed)), sharding)

    @property
    def row_length(self) -> int:
        return self.shape[1]

    def place(self, local: dict[str, np.ndarray]) -> Batch:
        if self.sharding is None:
            return cast(Batch, local)
        at = {offset: index for index, offset in enumerate(self.offsets)}

        def part(array: np.ndarray) -> Callable[[Any], np.ndarray]:
            def cut(index: tuple[slice, slice]) -> np.ndarray:
                rows = [at[offset] for offset in range(*index[0].indices(self.shape[0]))]
                return array[rows][:, index[1]]

            return cut

        return {
            name: jax.make_array_from_callback(self.shape, self.sharding, part(array))
            for name, array in local.items()
        }
