"""Rows split over devices: the values and gradients of one device, segments across the cuts included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed_rows import assert_same, packed_segments, plain, random_qkv, values_and_gradients

from alpacare_jax import sharding
from alpacare_jax.attention import attend, context
from alpacare_jax.sharding import MeshConfig


def on_mesh(function, mesh_config, qkv, ids):
    """Return values and gradients with rows, heads and length where a mesh wants them."""
    mesh = sharding.make_mesh(mesh_config)
    with sharding.use_mesh(mesh):
        heads = sharding.named(mesh, ("batch", "length", "heads", None))
        placed = tuple(jax.device_put(x, heads) for x in qkv)
        return values_and_gradients(function, placed, jax.device_put(ids, sharding.batch_sharding(mesh)))


@pytest.mark.parametrize("kernel", ["xla", "chunked"])
@pytest.mark.parametrize(
    "mesh",
    [
        MeshConfig(fsdp=1, context=8),
        MeshConfig(fsdp=2, tensor=2, context=2),
        MeshConfig(data=2, fsdp=1, context=4),
    ],
    ids=["context=8", "fsdp=2,tensor=2,context=2", "data=2,context=4"],
)
def test_rows_split_over_devices_give_the_values_and_gradients_of_one(kernel, mesh):
    qkv = random_qkv(2, 256, 4, 2, 16)

    def across(q, k, v, ids):
        return attend(q, k, v, ids, kernel=kernel)

    for segments, padding in ((1, 0), (2, 3), (7, 40), (64, 11)):
        ids = packed_segments(2, 256, segments, padding)
        assert_same(on_mesh(across, mesh, qkv, ids), values_and_gradients(plain, qkv, ids))


def test_shards_that_cannot_be_halved_keep_their_own_queries():
    qkv = random_qkv(2, 120, 4, 2, 16)
    ids = packed_segments(2, 120, 5, 7)
    assert not context.is_balanced("chunked", 120, 8)

    def across(q, k, v, ids):
        return attend(q, k, v, ids, kernel="chunked")

    found = on_mesh(across, MeshConfig(fsdp=1, context=8), qkv, ids)
    assert_same(found, values_and_gradients(plain, qkv, ids))


@pytest.mark.parametrize("length", [512, 256])
def test_splash_gives_the_values_and_gradients_of_one_device(length):
    """At 512 tokens two shards exchange halves; at 256 a half would be smaller than a block, so they do not."""
    qkv = random_qkv(4, length, 4, 2, 16)
    ids = packed_segments(4, length, 7, 20)
    across = functools.partial(context.attend_across, "splash", interpret=True)
    found = on_mesh(across, MeshConfig(fsdp=2, tensor=2, context=2), qkv, ids)
    assert_same(found, values_and_gradients(plain, qkv, ids))


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_queries_travel_to_their_places_and_back(shards):
    mesh = sharding.make_mesh(MeshConfig(fsdp=1, context=shards), jax.devices()[:shards])
    length, axis = 4 * shards, sharding.RULES["length"]
    row = jnp.arange(length, dtype=jnp.int32)[None]
    spec = sharding.spec((None, "length"))

    def there(x):
        return context.exchange(x, axis, shards)

    def back(x):
        return context.exchange_back(there(x), axis, shards)

    with sharding.use_mesh(mesh):
        moved, returned = (
            jax.jit(jax.shard_map(f, in_specs=spec, out_specs=spec, check_vma=False))(row)
            for f in (there, back)
        )
    assert np.array_equal(moved[0], context.places_of_queries(length, shards, balanced=True))
    assert np.array_equal(returned, row)


def test_devices_share_the_work_of_a_causal_row():
    """Keys seen by each device's queries: the same number for all, where without exchange the last has most."""
    for shards in (2, 4, 8):
        places = context.places_of_queries(64, shards, balanced=True).reshape(shards, -1)
        assert len({int((part + 1).sum()) for part in places}) == 1
