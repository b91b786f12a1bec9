"""Adapters that start as what quantising took away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.adapters.residual import ObservedWeight, nearest


def seen_error(error, inputs, rank):
    a, b = nearest(jnp.asarray(error), jnp.asarray(inputs.T @ inputs), rank)
    assert a.shape == (error.shape[0], rank)
    assert np.allclose(np.linalg.norm(a, axis=0), 3**-0.5, rtol=1e-4), "as long as those of a random start"
    return np.linalg.norm(inputs @ (error - np.asarray(a @ b)))


def test_no_product_of_that_rank_is_nearer_for_these_inputs():
    rng = np.random.default_rng(0)
    # Inputs in which a few directions stand out, as a model's are.
    inputs = (rng.normal(size=(400, 24)) * 2.0 ** -np.arange(24)) @ rng.normal(size=(24, 24))
    inputs, error = inputs.astype(np.float32), rng.normal(size=(24, 16)).astype(np.float32)
    values = np.linalg.svd(inputs @ error, compute_uv=False)
    found = seen_error(error, inputs, rank=4)
    assert found <= 1.02 * np.sqrt((values[4:] ** 2).sum()), "the bound of Eckart and Young, but for damping"
    left, sizes, right = np.linalg.svd(error)
    plain = error - (left[:, :4] * sizes[:4]) @ right[:4]
    assert found < 0.3 * np.linalg.norm(inputs @ plain), "inputs matter"


def test_inputs_that_say_nothing_leave_the_plain_nearest_product():
    error = np.random.default_rng(0).normal(size=(12, 10)).astype(np.float32)
    values = np.linalg.svd(error, compute_uv=False)
    a, b = nearest(jnp.asarray(error), jnp.zeros((12, 12)), 3)
    assert np.linalg.norm(error - a @ b) == pytest.approx(np.sqrt((values[3:] ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("equation", ["BTD,DNH->BTNH", "BTNH,NHD->BTD"])
def test_the_gradient_of_an_observed_weight_is_the_moment_of_its_inputs(equation):
    rng, sizes = np.random.default_rng(0), {"B": 2, "T": 5, "D": 6, "N": 2, "H": 3}
    left, right = equation.split("->")[0].split(",")
    x, weight = (
        jnp.asarray(rng.normal(size=[sizes[axis] for axis in axes]), jnp.float32) for axes in (left, right)
    )

    def total(x, moment):
        return jnp.sum(jnp.sin(ObservedWeight(weight, moment).multiply(equation, x, "default")))

    d_x, moment = jax.grad(total, argnums=(0, 1))(x, jnp.zeros((6, 6)))
    flat = np.asarray(x).reshape(-1, 6)
    assert np.allclose(moment, flat.T @ flat, rtol=1e-5, atol=1e-5)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(jnp.einsum(equation, x, weight))))(x)
    assert np.allclose(d_x, expected, rtol=1e-5, atol=1e-5)
