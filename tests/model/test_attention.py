"""Attention within a row, block by block, against the plain form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.model.attention import attend, attend_causally, segment_mask


@pytest.mark.parametrize("length", [1, 100, 128, 129, 300, 1100])
def test_blocks_of_queries_give_the_plain_values_and_gradients(length):
    rng = np.random.default_rng(length)
    q, k, v = (jnp.asarray(rng.normal(size=(2, length, heads, 8)), jnp.float32) for heads in (4, 2, 2))
    segments = jnp.asarray(np.sort(rng.integers(0, 4, (2, length)), axis=1))
    mask = segment_mask(segments)

    def summed(function):
        return lambda q, k, v: jnp.sum(jnp.sin(function(q, k, v, mask)))

    assert np.allclose(attend_causally(q, k, v, mask), attend(q, k, v, mask), rtol=1e-5, atol=1e-6)
    found = jax.grad(summed(attend_causally), argnums=(0, 1, 2))(q, k, v)
    expected = jax.grad(summed(attend), argnums=(0, 1, 2))(q, k, v)
    for a, b in zip(found, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b) + 1e-7
