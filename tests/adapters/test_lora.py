"""One weight with an adapter: the same numbers as the matrix it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.adapters.lora import LoraWeight, column_norms, draw

EQUATIONS = {"BTD,DNH->BTNH": 1, "BTNH,NHD->BTD": 2, "BTD,DF->BTF": 1}
SIZES = {"B": 2, "T": 5, "D": 12, "N": 3, "H": 4, "F": 10}


def problem(equation, kind, seed=0):
    left, right = equation.split("->")[0].split(",")
    rng, inputs = np.random.default_rng(seed), EQUATIONS[equation]
    sides = [SIZES[axis] for axis in right]
    x = jnp.asarray(rng.normal(size=[SIZES[axis] for axis in left]), jnp.float32)
    base = jnp.asarray(rng.normal(size=sides), jnp.float32)
    a = jnp.asarray(rng.normal(size=(*sides[:inputs], 2)), jnp.float32)
    b = jnp.asarray(rng.normal(size=(2, *sides[inputs:])), jnp.float32)
    magnitude = None
    if kind == "dora":
        magnitude = jnp.asarray(rng.uniform(0.5, 2, size=sides[inputs:]), jnp.float32)
    return x, LoraWeight(base, a, b, magnitude, scale=1.7)


def as_matrix(weight, inputs):
    """The formula of the papers on flat matrices, in float64."""
    base = np.asarray(weight.base, np.float64)
    flat = base.reshape(int(np.prod(base.shape[:inputs])), -1)
    a, b = np.asarray(weight.a, np.float64).reshape(-1, 2), np.asarray(weight.b, np.float64).reshape(2, -1)
    whole = flat + weight.scale * a @ b
    if weight.magnitude is not None:
        whole = np.asarray(weight.magnitude, np.float64).reshape(-1) * whole / np.linalg.norm(whole, axis=0)
    return whole.reshape(base.shape)


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_base_and_adapter_side_by_side_equal_their_matrix(equation, kind):
    x, weight = problem(equation, kind)
    matrix = as_matrix(weight, EQUATIONS[equation])
    expected = np.einsum(equation, np.asarray(x, np.float64), matrix)
    found, dense = jax.jit(lambda x, weight: (weight.multiply(equation, x, "default"), weight.dense()))(
        x, weight
    )
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(dense, matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_norm_of_dora_is_a_constant_of_the_gradient(equation):
    x, weight = problem(equation, "dora")
    inputs = EQUATIONS[equation]

    def plain(a, b, magnitude):
        flat_a, flat_b = a.reshape(-1, 2), b.reshape(2, -1)
        whole = weight.base + weight.scale * (flat_a @ flat_b).reshape(weight.base.shape)
        norm = jnp.sqrt(jnp.sum(whole**2, axis=tuple(range(inputs))))
        factor = (magnitude / jax.lax.stop_gradient(norm))[(None,) * inputs]
        return jnp.sum(jnp.sin(jnp.einsum(equation, x, whole * factor)))

    def ours(a, b, magnitude):
        return jnp.sum(
            jnp.sin(LoraWeight(weight.base, a, b, magnitude, scale=1.7).multiply(equation, x, "default"))
        )

    parts = (weight.a, weight.b, weight.magnitude)
    gradients = (jax.jit(jax.grad(function, argnums=(0, 1, 2)))(*parts) for function in (ours, plain))
    for found, expected in zip(*gradients, strict=True):
        assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


def test_adapters_start_as_nothing():
    parts = draw(jax.random.key(0), (3, 400, 5, 8), inputs=1, rank=4, dtype=jnp.float32)
    assert parts["a"].shape == (3, 400, 4)
    assert parts["b"].shape == (3, 4, 5, 8)
    assert not np.any(parts["b"])
    # Kaiming's uniform with slope sqrt(5): within one over the root of the inputs, and filling that range.
    assert np.abs(parts["a"]).max() <= 400**-0.5
    assert np.std(parts["a"]) == pytest.approx(400**-0.5 / 3**0.5, rel=0.05)
    assert not np.array_equal(parts["a"][0], parts["a"][1])


def test_dora_starts_at_the_norms_of_the_base():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 3, 4)), jnp.float32)
    norms = column_norms(weight, inputs=1)
    assert norms.shape == (2, 3, 4)
    layer = LoraWeight(weight[0], jnp.ones((12, 2)), jnp.zeros((2, 3, 4)), norms[0])
    assert np.allclose(layer.dense(), weight[0], rtol=1e-6)


def test_dropout_zeroes_inputs_of_the_adapter_alone_and_keeps_their_mean():
    rows, width = 4, 4000
    x = jnp.ones((rows, 1, width))
    keys = jax.random.split(jax.random.key(0), rows)
    ones = {"a": jnp.ones((width, 1)), "b": jnp.ones((1, 1))}
    base = jnp.full((width, 1), 2.0)
    kept = LoraWeight(base, **ones, keys=keys, dropout=0.25).multiply("BTD,DF->BTF", x, "default")
    assert np.allclose(kept, 3 * width, rtol=0.02)
    assert len(set(np.asarray(kept).ravel().tolist())) > 1, "every row draws its own"
    exact = LoraWeight(base, **ones, keys=None, dropout=0.25).multiply("BTD,DF->BTF", x, "default")
    assert np.allclose(exact, 3 * width, rtol=1e-6)
