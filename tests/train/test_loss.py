"""The chunked loss against the plain one, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alpacare_jax.loss import chunked_cross_entropy, shift_targets


def plain(hidden, head, targets, weights):
    logits = jnp.einsum("BTD,DV->BTV", hidden, head)
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(2, 24, 16)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(16, 50)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 50, (2, 24)))
    weights = jnp.asarray(rng.integers(0, 2, (2, 24)), jnp.float32)
    return hidden, head, targets, weights


@pytest.mark.parametrize("chunk_tokens", [2, 7, 16, 10_000])
def test_value_and_gradients_equal_the_plain_ones(problem, chunk_tokens):
    hidden, head, targets, weights = problem
    expected = jax.value_and_grad(plain, argnums=(0, 1))(hidden, head, targets, weights)
    found = jax.value_and_grad(
        lambda h, w: 1.0 * chunked_cross_entropy(h, w, targets, weights, chunk_tokens), argnums=(0, 1)
    )(hidden, head)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)


def test_the_gradient_is_scaled_by_what_follows(problem):
    hidden, head, targets, weights = problem

    def scaled(h):
        return -3.0 * chunked_cross_entropy(h, head, targets, weights, 8)

    expected = -3.0 * jax.grad(plain)(hidden, head, targets, weights)
    assert np.allclose(jax.grad(scaled)(hidden), expected, rtol=1e-5, atol=1e-6)


def test_a_row_without_targets_costs_nothing(problem):
    hidden, head, targets, weights = problem
    loss, grad = jax.value_and_grad(lambda h: chunked_cross_entropy(h, head, targets, weights * 0, 8))(hidden)
    assert float(loss) == 0.0
    assert not np.any(np.asarray(grad))


def test_targets_are_shifted_by_one():
    targets, weights = shift_targets(jnp.array([[5, 6, 7, 8]]), jnp.array([[0, 0, 1, 1]]))
    assert targets.tolist() == [[6, 7, 8, 0]]
    assert weights.tolist() == [[0.0, 1.0, 1.0, 0.0]]
