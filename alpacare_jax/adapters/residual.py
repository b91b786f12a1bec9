"""Adapters initialised to the quantisation error of the base, as far as their rank holds it.

An error of a weight matters as much as the inputs it meets. With W a weight, Q the quantised one and X the inputs of
its product on some rows, A and B start where |X (W - Q - scale A B)| is least. A few directions hold most of what a
layer's inputs are, so that a small rank takes back most of the error.

Source: Zhang et al. 2024 (QERA), theorem 1.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from alpacare_jax.model.products import multiply, summed_axes

DAMPING = 0.01
"""Added to second moments of mean 1, so that directions which the rows lack still count a little."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ObservedWeight:
    """A weight whose gradient by ``moment`` is the sum of x x^T over all inputs x that it is multiplied with.

    Args:
        weight: The weight, [I, O].
        moment: Zeros, fp32 [i, i], with i the size of the axes I together.
    """

    weight: jax.Array
    moment: jax.Array

    def multiply(self, equation: str, x: jax.Array, precision: str) -> jax.Array:
        """Multiply by the weight."""
        return _observed(equation, precision, x, self.weight, self.moment)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _observed(equation: str, precision: str, x: jax.Array, weight: jax.Array, moment: jax.Array) -> jax.Array:
    return multiply(equation, x, weight, precision)


def _forward(
    equation: str, precision: str, x: jax.Array, weight: jax.Array, moment: jax.Array
) -> tuple[jax.Array, Any]:
    return multiply(equation, x, weight, precision), (x, weight)


def _backward(equation: str, precision: str, kept: Any, d_y: jax.Array) -> tuple[jax.Array, ...]:
    x, weight = kept
    (d_x,) = jax.vjp(lambda x: multiply(equation, x, weight, precision), x)[1](d_y)
    flat = x.reshape(*x.shape[: x.ndim - summed_axes(equation)], -1)
    moment = jnp.einsum("...i,...j->ij", flat, flat, preferred_element_type=jnp.float32)
    return d_x, jnp.zeros_like(weight), moment


_observed.defvjp(_forward, _backward)


def nearest(error: jax.Array, moment: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """Return the product of two thin matrices that is nearest to an error, as inputs of these second moments see it.

    Args:
        error: [i, o], fp32.
        moment: Sum of x x^T over the inputs x, [i, i].
        rank: Inner width r.

    Returns:
        A [i, r], its columns as long as those of an adapter that starts at random, and B [r, o], fp32.

    Example:
        >>> a, b = nearest(jnp.ones((4, 3)), jnp.eye(4), rank=1)
        >>> bool(jnp.allclose(a @ b, 1.0, atol=1e-5))
        True
    """
    size = error.shape[0]
    moment = moment / jnp.maximum(jnp.trace(moment) / size, 1e-30) + DAMPING * jnp.eye(size)
    values, vectors = jnp.linalg.eigh(moment)
    root = jnp.sqrt(jnp.maximum(values, DAMPING / 2))
    seen = root[:, None] * jnp.matmul(vectors.T, error, precision="highest")
    left, sizes, right = jnp.linalg.svd(seen, full_matrices=False)
    a = jnp.matmul(vectors / root[None], left[:, :rank], precision="highest")
    b = sizes[:rank, None] * right[:rank]
    # A column of A drawn uniformly within 1 / sqrt(i) is 1 / sqrt(3) long.
    lengths = jnp.linalg.norm(a, axis=0) * 3**0.5
    return a / lengths[None], b * lengths[:, None]
