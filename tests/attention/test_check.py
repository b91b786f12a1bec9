"""The check at start-up: it passes kernels that are right, and refuses those that are wrong, by what they give."""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax import sharding
from alpacare_jax.attention import Shapes, check, check_kernel, select_and_verify
from alpacare_jax.attention.chunked import attend_chunked
from alpacare_jax.attention.mask import SegmentMask
from alpacare_jax.errors import ConfigError
from alpacare_jax.sharding import MeshConfig

SHAPES = Shapes(heads=4, kv_heads=2, head_dim=16, length=128, dtype="float32")


@pytest.fixture(scope="module")
def one_device():
    return sharding.single_device_mesh()


@pytest.mark.parametrize(
    ("mesh", "dtype"),
    [(MeshConfig(fsdp=8), "bfloat16"), (MeshConfig(fsdp=2, tensor=2, context=2), "float32")],
    ids=["fsdp=8", "fsdp=2,tensor=2,context=2"],
)
def test_chunked_attention_passes_on_the_mesh_of_a_run(mesh, dtype):
    found = check_kernel("chunked", dataclasses.replace(SHAPES, dtype=dtype), sharding.make_mesh(mesh))
    assert found.passed, found
    assert set(found.errors) == set(check.PARTS)


def broken(change):
    """Return a kernel whose segments, keys, or gradients are not what they should be."""

    def run(q, k, v, ids, *, kernel, segments):
        return change(q, k, v, ids)

    return run


def ignoring_segments(q, k, v, ids):
    return attend_chunked(q, k, v, SegmentMask.whole(jnp.ones_like(ids)))


def with_the_wrong_key_heads(q, k, v, ids):
    return attend_chunked(q, k[:, :, ::-1], v[:, :, ::-1], SegmentMask.whole(ids))


def looking_one_token_ahead(q, k, v, ids):
    right = SegmentMask.whole(ids)
    return attend_chunked(q, k, v, dataclasses.replace(right, query_places_T=right.query_places_T + 1))


def without_scale(q, k, v, ids):
    return attend_chunked(q * 4, k, v, SegmentMask.whole(ids))


def with_one_token_wrong(q, k, v, ids):
    return attend_chunked(q, k, v, SegmentMask.whole(ids)).at[0, 77].multiply(1.5)


def without_the_gradient_of_keys(q, k, v, ids):
    import jax

    return attend_chunked(q, jax.lax.stop_gradient(k), v, SegmentMask.whole(ids))


def giving_nan_for_a_token(q, k, v, ids):
    return attend_chunked(q, k, v, SegmentMask.whole(ids)).at[1, 3, 0, 0].set(jnp.nan)


def failing(q, k, v, ids):
    raise NotImplementedError("no such thing here\nand more")


FAULTS = [
    ignoring_segments,
    with_the_wrong_key_heads,
    looking_one_token_ahead,
    without_scale,
    with_one_token_wrong,
    without_the_gradient_of_keys,
    giving_nan_for_a_token,
    failing,
]


@pytest.mark.parametrize(
    ("fault", "dtype"),
    [
        *((fault, "float32") for fault in FAULTS),
        (ignoring_segments, "bfloat16"),
        (with_one_token_wrong, "bfloat16"),
    ],
)
def test_a_wrong_kernel_fails(fault, dtype, one_device, monkeypatch):
    monkeypatch.setattr(check, "attend", broken(fault))
    found = check_kernel("chunked", dataclasses.replace(SHAPES, dtype=dtype), one_device)
    assert not found.passed
    assert ("DIFFERS FROM" in str(found)) == (fault is not failing)


def test_a_wrong_kernel_is_refused_loudly_and_its_fallback_taken(one_device, monkeypatch, caplog):
    monkeypatch.setattr(check, "attend", broken(ignoring_segments))
    long = dataclasses.replace(SHAPES, length=2304)
    with caplog.at_level(logging.WARNING):
        settled = select_and_verify(long, one_device)
    assert settled.name == "xla"
    assert [found.kernel for found in settled.checks] == ["chunked"]
    assert "REFUSED" in caplog.text
    assert "Taking 'xla' instead" in caplog.text
    assert "chunked: it was refused" in settled.reason


def test_a_wrong_kernel_that_was_asked_for_stops_the_run(one_device, monkeypatch):
    monkeypatch.setattr(check, "attend", broken(without_scale))
    with pytest.raises(ConfigError, match="output differs from the reference") as caught:
        select_and_verify(SHAPES, one_device, "chunked")
    assert "DIFFERS FROM" in str(caught.value)
    assert "take xla" in str(caught.value)


def test_rows_of_the_check_have_few_segments_many_one_and_padding():
    ids = check.packed_segments(4, 256, 64)
    assert [int(row.max()) for row in ids] == [7, 64, 1, 2]
    assert [int((row == 0).sum()) for row in ids] == [25, 0, 0, 85]
    assert all((np.diff(row[row > 0]) >= 0).all() for row in ids)
