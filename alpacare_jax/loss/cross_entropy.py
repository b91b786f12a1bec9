"""Cross-entropy of hidden states under an output projection, tile by tile, with its own backward pass.

Two ways to cut the work, both exact, both with a fixed number of bytes of logits at any time:

``tokens``
    Some tokens against the whole vocabulary at once. Value and gradient come from one look at the logits: three
    matrix products. Needs the whole projection on every device, and beside it its gradient in fp32.
``vocabulary``
    All of a device's tokens against some columns of the vocabulary, twice: once for the normalisers, once in the
    backward pass for the gradients. A fourth matrix product, but of the projection and its gradient there is never
    more than some columns on a device, beside its own shard.

On a mesh every device works on the tokens it holds: rows and their length stay where they lie. The projection is
gathered over the axis that splits its width, tile by tile or at once, and never its gradient: each device keeps the
sum of its own shard. Where the vocabulary is split too, devices exchange one maximum and one sum a token, no logits.
Where the devices that would split it cannot do so evenly, they take other tokens each, against the whole of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alpacare_jax import sharding
from alpacare_jax.loss import by_tokens, by_vocabulary
from alpacare_jax.loss.projection import Projection, project_here
from alpacare_jax.loss.tiling import TILINGS, choose_chunk, choose_tiling


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How one call is cut: static, so that it can be closed over by compiled code."""

    by: str
    chunk_bytes: int
    projection: Projection


def cross_entropy_sum(
    hidden_BTD: Float[Array, "B T D"],
    head: Float[Array, "..."],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    *,
    tied: bool = False,
    vocabulary: int | None = None,
    tiling: str = "auto",
    chunk_bytes: int | None = None,
) -> jax.Array:
    """Sum weighted cross-entropy without a [tokens, vocabulary] array, in value and gradient.

    Products are of the dtype of the hidden states with fp32 sums; softmax and loss are fp32. The gradients of the
    projection are summed in fp32 and returned in its own dtype.

    Args:
        hidden_BTD: Final hidden states, in the compute dtype.
        head: The output projection [D, V] as it is stored; the embedding table [V, D] where it is tied.
        targets_BT: Token id each position predicts.
        weights_BT: Weight of each position, 0 where unsupervised.
        tied: Whether ``head`` is the embedding table.
        vocabulary: How many columns are real; those behind are padding and get no probability. All when None.
        tiling: How the work is cut: one of :data:`alpacare_jax.loss.tiling.TILINGS`.
        chunk_bytes: About how many bytes of logits exist at once on a device; None leaves that to
            :func:`alpacare_jax.loss.tiling.choose_chunk`.

    Returns:
        The weighted sum, a scalar in fp32.

    Example:
        >>> hidden_BTD, head_DV = jnp.ones((1, 4, 8)), jnp.zeros((8, 100))
        >>> targets_BT, weights_BT = jnp.zeros((1, 4), jnp.int32), jnp.array([[1.0, 1.0, 0.0, 0.0]])
        >>> loss = cross_entropy_sum(hidden_BTD, head_DV, targets_BT, weights_BT)
        >>> round(float(loss) / 2, 4)  # the logarithm of 100
        4.6052
    """
    assert tiling in TILINGS, tiling
    projection = project_here(hidden_BTD, head, tied=tied, vocabulary=vocabulary)
    if tiling == "auto":
        tiling = choose_tiling(hidden_BTD, head, projection)
    if chunk_bytes is None:
        chunk_bytes = choose_chunk(hidden_BTD, head, projection, tiling)
    with jax.named_scope("loss"):
        return _summed(hidden_BTD, head, targets_BT, weights_BT, Tiling(tiling, chunk_bytes, projection))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, tiling: Tiling
) -> jax.Array:
    return _normalised(hidden, head, targets, weights, tiling)[0]


def _normalised(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, tiling: Tiling
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the summed loss, and each token's greatest logit and sum of exponentials."""
    projection = tiling.projection
    tokens = projection.tokens

    def local(hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple:
        most, total, picked = by_vocabulary.normalise(
            _flat(hidden), head, targets.reshape(-1), projection, tiling.chunk_bytes
        )
        loss = jnp.sum((most - picked + jnp.log(total)) * weights.reshape(-1))
        return projection.over_tokens(loss), most.reshape(weights.shape), total.reshape(weights.shape)

    gives = ((), tokens, tokens)
    return _on_mesh(local, projection, gives)(hidden, head, targets, weights)


def _forward(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, tiling: Tiling
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    if tiling.by == "vocabulary":
        loss, *normaliser = _normalised(hidden, head, targets, weights, tiling)
        return loss, (hidden, head, targets, weights, *normaliser)
    projection = tiling.projection

    def local(hidden: jax.Array, head: jax.Array, *tokens: jax.Array) -> tuple:
        targets, weights = (part.reshape(-1) for part in tokens)
        total, d_hidden, d_head = by_tokens.value_and_gradients(
            _flat(hidden), head, targets, weights, projection, tiling.chunk_bytes
        )
        return total, d_hidden.reshape(hidden.shape), d_head

    gives = ((), projection.hidden, projection.axes)
    total, *gradients = _on_mesh(local, projection, gives)(hidden, head, targets, weights)
    return total, tuple(gradients)


def _backward(
    tiling: Tiling, saved: tuple[jax.Array, ...], d_total: jax.Array
) -> tuple[jax.Array | None, ...]:
    if tiling.by == "tokens":
        return (*((part * d_total).astype(part.dtype) for part in saved), None, None)
    projection = tiling.projection

    def local(hidden: jax.Array, head: jax.Array, *tokens: jax.Array) -> tuple:
        targets, weights, most, total = (part.reshape(-1) for part in tokens)
        d_hidden, d_head = by_vocabulary.gradients(
            _flat(hidden), head, targets, weights, most, total, projection, tiling.chunk_bytes
        )
        return d_hidden.reshape(hidden.shape), d_head

    hidden, head, targets, weights, most, total = saved
    run = _on_mesh(local, projection, (projection.hidden, projection.axes), tokens=4)
    return (*run(hidden, head, targets, weights * d_total, most, total), None, None)


_summed.defvjp(_forward, _backward)


def _flat(hidden_BTD: jax.Array) -> jax.Array:
    return hidden_BTD.reshape(-1, hidden_BTD.shape[-1])


def _on_mesh(
    local: Callable[..., Any], projection: Projection, gives: Sequence[Sequence[str | None]], tokens: int = 2
) -> Callable[..., Any]:
    """Let every device run a function on its hidden states, its part of the projection, and some arrays of tokens."""
    takes = (projection.hidden, projection.axes, *[projection.tokens] * tokens)
    return sharding.per_device(local, takes, gives)
