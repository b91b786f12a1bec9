"""Matrix products at precision "highest": the same product, nearer to the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.model.products import SUM_BLOCK, multiply_precisely


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape).astype(np.float32) for shape in ((2, 32, 12, 64), (12, 64, 100)))


def test_several_axes_are_summed_at_once(factors):
    x, weight = factors
    found = np.asarray(multiply_precisely(jnp.asarray(x), jnp.asarray(weight), summed=2))
    expected = np.einsum("BTNH,NHD->BTD", x.astype(np.float64), weight)
    assert found.shape == (2, 32, 100)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_long_sums_lose_less_than_in_one_go(factors):
    x, weight = factors
    assert x.shape[2] * x.shape[3] > 2 * SUM_BLOCK
    exact = np.einsum("BTNH,NHD->BTD", x.astype(np.float64), weight)

    def error(product):
        return float(np.sqrt(np.mean((np.asarray(product) - exact) ** 2)))

    in_one_go = jax.jit(lambda x, w: jnp.einsum("BTNH,NHD->BTD", x, w))(x, weight)
    in_blocks = jax.jit(lambda x, w: multiply_precisely(x, w, summed=2))(x, weight)
    assert error(in_blocks) < 0.8 * error(in_one_go)
