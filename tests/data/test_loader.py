"""Batches: every row once an epoch, resumable from one number, the same for any number of processes."""

import collections
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacare_jax.data.loader import BatchStream, SequenceOrder, batches_in_order, count_steps
from alpacare_jax.data.packing import COLUMNS, PackedSequence
from alpacare_jax.errors import ConfigError, DataError, ShardingError
from alpacare_jax.sharding import MeshConfig, batch_sharding, make_mesh


class Rows:
    """Rows that carry their number, and remember which of them were read."""

    def __init__(self, count: int, length: int = 8) -> None:
        self.count, self.length = count, length
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PackedSequence:
        self.read.append(index)
        return {
            name: np.arange(self.length, dtype=np.int32) + 100 * index + 10 * column
            for column, name in enumerate(COLUMNS)
        }


def take(stream: BatchStream, batches: int) -> list[tuple[list[int], int]]:
    """Return row numbers and position of the next batches."""
    found = []
    with contextlib.closing(stream):
        for _ in range(batches):
            batch, position = next(stream)
            found.append(((np.asarray(batch["tokens"])[:, 0] // 100).tolist(), position))
    return found


@settings(max_examples=30)
@given(rows=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_every_row_once_per_epoch(rows: int, seed: int) -> None:
    order = SequenceOrder(rows, seed)
    for epoch in range(3):
        assert sorted(order.window(epoch * rows, (epoch + 1) * rows)) == list(range(rows))


def test_epochs_and_seeds_are_shuffled_apart() -> None:
    first, second = SequenceOrder(50, 1).window(0, 50), SequenceOrder(50, 1).window(50, 100)
    assert first != second
    assert first != list(range(50))
    assert first != SequenceOrder(50, 2).window(0, 50)
    # Neighbours in the data set (which packing puts together by length and source) are torn apart.
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(first)) < 10


def test_positions_count_rows_and_batches_run_across_epochs() -> None:
    order = SequenceOrder(10, 3)
    found = take(BatchStream(Rows(10), 4, seed=3), 6)
    assert [position for _, position in found] == [4, 8, 12, 16, 20, 24]
    assert [row for rows, _ in found for row in rows] == order.window(0, 24)


@settings(max_examples=12)
@given(rows=st.integers(1, 30), batch=st.integers(1, 8), skipped=st.integers(0, 12))
def test_resuming_gives_exactly_the_rest(rows: int, batch: int, skipped: int) -> None:
    whole = take(BatchStream(Rows(rows), batch, seed=5), skipped + 3)
    rest = take(BatchStream(Rows(rows), batch, seed=5, start_sample=skipped * batch), 3)
    assert rest == whole[skipped:]


def test_resuming_with_another_batch_size_skips_and_repeats_nothing() -> None:
    before = take(BatchStream(Rows(23), 6, seed=5), 3)
    after = take(BatchStream(Rows(23), 4, seed=5, start_sample=before[-1][1]), 7)
    assert [row for rows, _ in before + after for row in rows] == SequenceOrder(23, 5).window(0, 46)


MESHES = [
    MeshConfig(fsdp=8),
    MeshConfig(data=2, fsdp=4),
    MeshConfig(fsdp=2, tensor=2, context=2),
    MeshConfig(data=2, fsdp=1, context=4),
]


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_global_arrays_are_the_same_on_every_mesh(mesh: MeshConfig) -> None:
    sharding = batch_sharding(make_mesh(mesh))
    placed, plain = BatchStream(Rows(20), 8, seed=1, sharding=sharding), BatchStream(Rows(20), 8, seed=1)
    for _ in range(3):
        (found, position), (expected, same) = next(placed), next(plain)
        assert position == same
        for name in COLUMNS:
            assert isinstance(found[name], jax.Array)
            assert found[name].sharding == sharding
            assert found[name].dtype == np.int32
            np.testing.assert_array_equal(np.asarray(found[name]), expected[name])


def test_in_order_every_row_once_and_the_last_batch_is_filled_with_empty_rows() -> None:
    batches = list(batches_in_order(Rows(10), 4, pad_id=7))
    assert [batch["tokens"].shape for batch in batches] == [(4, 8)] * 3
    assert [row for batch in batches for row in (batch["tokens"][:, 0] // 100).tolist()][:10] == list(
        range(10)
    )
    last = {name: array[2:] for name, array in batches[-1].items()}
    assert (last["tokens"] == 7).all()
    assert not any(last[name].any() for name in ("segment_ids", "positions", "loss_mask"))


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "steps"), [(2063, 3, 128, 49), (8, 1, 4, 2), (3, 1, 128, 1)]
)
def test_steps_are_rounded_up(rows: int, epochs: float, batch: int, steps: int) -> None:
    assert count_steps(rows, epochs, batch) == steps


def test_waiting_for_data_is_measured() -> None:
    import time

    class Slow(Rows):
        def __getitem__(self, index: int) -> PackedSequence:
            time.sleep(0.02)
            return super().__getitem__(index)

    stream = BatchStream(Slow(10), 4, seed=0)
    next(stream)
    assert stream.wait_s > 0.03
    time.sleep(0.4)
    next(stream)
    assert stream.wait_s < 0.02  # it was read ahead
    stream.close()


def test_a_failure_to_read_reaches_the_caller() -> None:
    class Broken(Rows):
        def __getitem__(self, index: int) -> PackedSequence:
            if self.read:
                raise DataError("the disk is gone")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="the disk is gone"):
        next(BatchStream(Broken(10), 4, seed=0))


def test_what_cannot_be_batched_is_refused() -> None:
    with pytest.raises(DataError, match="data set is empty"):
        BatchStream(Rows(0), 4, seed=0)
    with pytest.raises(ConfigError, match="seed"):
        BatchStream(Rows(4), 4, seed=-1)
    with pytest.raises(ShardingError, match="does not divide"):
        BatchStream(Rows(4), 4, seed=0, sharding=batch_sharding(make_mesh(MeshConfig(fsdp=8))))
    with pytest.raises(ShardingError, match="does not divide"):
        BatchStream(Rows(4, length=9), 8, seed=0, sharding=batch_sharding(make_mesh(MeshConfig(context=8))))


WORKER = """
import os, sys
import numpy as np
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import jax
process, processes, port, folder = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_num_cpu_devices", 4 // processes)
jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
from test_loader import Rows
from alpacare_jax.data.loader import BatchStream
from alpacare_jax.sharding import MeshConfig, batch_sharding, make_mesh
rows = Rows(21)
stream = BatchStream(rows, 8, seed=9, sharding=batch_sharding(make_mesh(MeshConfig(data=2, fsdp=2))))
found, own = {}, []
for step in range(4):
    batch, position = next(stream)
    for shard in batch["tokens"].addressable_shards:
        start = shard.index[0].start or 0
        found[f"{position}-{start}"] = np.asarray(shard.data)
        own += (np.asarray(shard.data)[:, 0] // 100).tolist()
stream.close()
# Reading ahead may have gone on, but no row of another process's share of these batches may lie before it.
np.savez(os.path.join(folder, f"{process}.npz"), own=own, read=rows.read[1 : 1 + len(own)], **found)
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_real_processes_share_the_global_sequence(tmp_path: Path, processes: int) -> None:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")
    }
    port = free_port()
    arguments = [str(processes), str(port), str(tmp_path)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, __file__, str(index), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * processes, "\n".join(outputs)
    parts: dict[str, np.ndarray] = {}
    for index in range(processes):
        with np.load(tmp_path / f"{index}.npz") as found:
            assert sorted(found["read"].tolist()) == sorted(found["own"].tolist())
            for key in found.files:
                if key not in ("own", "read"):
                    assert key not in parts
                    parts[key] = found[key]
    stream = BatchStream(Rows(21), 8, seed=9)
    for _ in range(4):
        batch, position = next(stream)
        whole = np.concatenate([parts[f"{position}-{start}"] for start in (0, 2, 4, 6)])
        np.testing.assert_array_equal(whole, batch["tokens"])
    assert collections.Counter(key.split("-")[0] for key in parts) == {str(8 * k): 4 for k in range(1, 5)}
