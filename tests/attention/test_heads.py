"""Heads in slots that devices share evenly: every query keeps its key, whatever the numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.attention import attend_masked, layout_over, segment_mask

SIZES = [
    (9, 3, 2),
    (9, 3, 4),
    (9, 3, 8),
    (12, 4, 8),
    (64, 8, 16),
    (10, 2, 4),
    (7, 7, 2),
    (32, 8, 5),
    (15, 5, 3),
]


@pytest.mark.parametrize(("heads", "kv_heads", "shards"), SIZES)
def test_values_and_gradients_are_those_of_the_models_own_heads(heads, kv_heads, shards):
    layout = layout_over(heads, kv_heads, shards)
    assert layout.slots % shards == 0
    assert layout.kv_slots % shards == 0
    rng = np.random.default_rng(heads)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 6, n, 4)), jnp.float32) for n in (heads, kv_heads, kv_heads))
    mask = segment_mask(jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]]))

    def plain(q, k, v):
        return attend_masked(q, k, v, mask)

    def spread(q, k, v):
        slots = attend_masked(layout.spread_queries(q), layout.spread_keys(k), layout.spread_keys(v), mask)
        assert slots.shape[2] == layout.slots
        return layout.collect(slots)

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(function, *qkv):
        gradients = jax.grad(lambda *x: jnp.sin(function(*x)).sum(), argnums=(0, 1, 2))
        return function(*qkv), *gradients(*qkv)

    found, expected = all_of(spread, q, k, v), all_of(plain, q, k, v)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "slots"),
    [((32, 8, 4), (32, 8)), ((64, 8, 16), (64, 16)), ((9, 3, 2), (12, 4)), ((9, 3, 4), (12, 4))],
)
def test_as_few_slots_as_can_be(sizes, slots):
    layout = layout_over(*sizes)
    assert (layout.slots, layout.kv_slots) == slots
    assert layout.is_plain == (slots == sizes[:2])
