"""Low-rank adapters: weights that add a product of two thin matrices to a frozen one.

Shape letters beyond the model's: I the input axes of a weight (one or two), O its output axes, r the rank.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from alpacare_jax.model import fp8
from alpacare_jax.model.products import ComposedWeight, multiply, summed_axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoraWeight:
    """A frozen weight with an adapter: behaves as base + scale * A B, or as its DoRA form.

    Args:
        base: The frozen weight, [I, O]: an array, or what multiplies and unpacks like one.
        a: [I, r].
        b: [r, O].
        magnitude: DoRA's trained norms [O], None for the other kinds.
        keys: One random key a row of the batch, [B], to draw dropout with; None leaves dropout out.
        scale: Factor of A B.
        dropout: Share of the adapter's inputs to zero.

    All arrays carry a leading axis L outside the scan over layers.
    """

    base: Any
    a: jax.Array
    b: jax.Array
    magnitude: jax.Array | None = None
    keys: jax.Array | None = None
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})
    dropout: float = dataclasses.field(default=0.0, metadata={"static": True})

    def multiply(self, equation: str, x: jax.Array, precision: str) -> jax.Array:
        """Multiply activations by base and adapter, without forming their sum."""
        inputs, _, output = equation.partition("->")
        left, _, right = inputs.partition(",")
        n = summed_axes(equation)
        if isinstance(self.base, ComposedWeight):
            y = self.base.multiply(equation, x, precision)
        else:
            y = multiply(equation, x, self.base, precision)
        # The thin products cost little, and 8 bits would be felt in what is trained.
        precision = "default" if precision == fp8.NAME else precision
        low = multiply(f"{left},{right[:n]}r->{left[:-n]}r", self._dropped(x), self.a, precision)
        y = y + self.scale * multiply(f"{left[:-n]}r,r{right[n:]}->{output}", low, self.b, precision)
        if self.magnitude is None:
            return y
        factor = self.magnitude.astype(jnp.float32) / self.norm()
        return y * factor.astype(y.dtype).reshape((1,) * (y.ndim - factor.ndim) + factor.shape)

    def norm(self) -> jax.Array:
        """Return the norm of each output of base + scale * A B, fp32, as a constant of the gradient.

        Source: Liu et al. 2024, section 4.3: the norm is not differentiated, which changes little and saves memory.
        Written out as |W|^2 + 2 s <W, A B> + s^2 |A B|^2, so that A B is never formed.
        """
        w, a, b = jax.lax.stop_gradient((dense(self.base), self.a, self.b))
        inputs = math.prod(a.shape[:-1])
        w = w.astype(jnp.float32).reshape(inputs, -1)
        a = a.astype(jnp.float32).reshape(inputs, -1)
        flat_b = b.astype(jnp.float32).reshape(b.shape[0], -1)
        cross = jnp.sum(flat_b * jnp.einsum("Ir,IO->rO", a, w), axis=0)
        square = jnp.sum(flat_b * jnp.einsum("rs,sO->rO", a.T @ a, flat_b), axis=0)
        total = jnp.sum(w * w, axis=0) + 2 * self.scale * cross + self.scale**2 * square
        return jnp.sqrt(jnp.maximum(total, 1e-30)).reshape(b.shape[1:])

    def dense(self) -> jax.Array:
        """Return the one matrix this weight behaves as, in fp32: what merging writes."""
        rank, inputs = self.b.shape[0], self.a.shape[:-1]
        a, b = self.a.astype(jnp.float32).reshape(-1, rank), self.b.astype(jnp.float32).reshape(rank, -1)
        delta = jnp.matmul(a, b, precision="highest").reshape(*inputs, *self.b.shape[1:])
        whole = dense(self.base).astype(jnp.float32) + self.scale * delta
        if self.magnitude is None:
            return whole
        axes = tuple(range(len(inputs)))
        norm = jnp.sqrt(jnp.sum(whole * whole, axis=axes, keepdims=True))
        return whole * (self.magnitude.astype(jnp.float32) / norm[(0,) * len(inputs)])[(None,) * len(inputs)]

    def _dropped(self, x: jax.Array) -> jax.Array:
        if self.keys is None or self.dropout == 0:
            return x
        # One key a row, so that a row's noise does not depend on the microbatch or the device it lies in.
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout, x.shape[1:]))(self.keys)
        return jnp.where(keep, x / (1 - self.dropout), 0).astype(x.dtype)


def dense(weight: Any) -> jax.Array:
    """Return a weight as one array."""
    return weight if isinstance(weight, jax.Array) else weight.dense()


def column_norms(weight: jax.Array, inputs: int) -> jax.Array:
    """Return the norm of each output of a stacked weight [L, I, O]: [L, O], fp32; DoRA's first magnitudes."""
    weight = weight.astype(jnp.float32)
    return jnp.sqrt(jnp.sum(weight * weight, axis=tuple(range(1, 1 + inputs))))


def draw(key: jax.Array, shape: tuple[int, ...], inputs: int, rank: int, dtype: Any) -> dict[str, jax.Array]:
    """Draw A and B for a stacked weight: A uniform, B zero, so that training starts from the base exactly.

    Args:
        key: Random key.
        shape: Of the weight, [L, I, O].
        inputs: How many axes I are.
        rank: The rank r.
        dtype: Of A and B.

    Returns:
        ``a`` [L, I, r], uniform within 1 / sqrt(I) (Kaiming's with slope sqrt(5), as in the authors' code), and ``b``
        [L, r, O].
    """
    layers, sides, outputs = shape[0], shape[1 : 1 + inputs], shape[1 + inputs :]
    bound = math.prod(sides) ** -0.5
    a = jax.random.uniform(key, (layers, *sides, rank), jnp.float32, -bound, bound)
    return {"a": a.astype(dtype), "b": jnp.zeros((layers, rank, *outputs), dtype)}
