"""Some tokens of a device at a time against the whole vocabulary: value and gradients in one pass."""

import jax
import jax.numpy as jnp

from alpacare_jax import collectives
from alpacare_jax.loss.projection import NEVER, Projection


def value_and_gradients(
    hidden_nD: jax.Array,
    head: jax.Array,
    targets_n: jax.Array,
    weights_n: jax.Array,
    projection: Projection,
    chunk_bytes: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the loss of all tokens of all devices, and the gradients of this device's arrays in their dtypes.

    Args:
        hidden_nD: This device's hidden states.
        head: This device's part of the projection, as stored.
        targets_n: Token ids of the whole vocabulary.
        weights_n: Weight of each token's loss.
        projection: Its layout.
        chunk_bytes: About how many bytes of logits may exist at once.
    """
    n, D = hidden_nD.shape
    gathered = projection.gathered(head)
    first, columns = projection.first(head), projection.columns(head)
    column = (first + jnp.arange(columns))[None]
    chunks = -(-n // max(1, chunk_bytes // (4 * columns)))
    size = -(-n // chunks)

    def step(carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, ...]) -> tuple:
        total, d_head = carry
        hidden, targets, weights = chunk
        logits = projection.logits(hidden, gathered)
        logits = jnp.where(column < projection.vocabulary, logits, NEVER)
        most = projection.most_over_columns(logits.max(axis=-1))
        exponentials = jnp.exp(logits - most[:, None])
        sums = projection.over_columns(exponentials.sum(axis=-1))
        hit = targets[:, None] == column
        picked = projection.over_columns(jnp.where(hit, logits, 0).sum(axis=-1))
        loss = jnp.sum((most - picked + jnp.log(sums)) * weights)
        d_logits = (exponentials / sums[:, None] - hit) * weights[:, None]
        d_logits = d_logits.astype(hidden.dtype)
        d_hidden = projection.over_columns(projection.d_hidden(d_logits, gathered)).astype(hidden.dtype)
        return (total + loss, d_head + projection.d_head(hidden, d_logits)), d_hidden

    def cut(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, chunks * size - n),) + ((0, 0),) * (x.ndim - 1))
        return padded.reshape(chunks, size, *x.shape[1:])

    start = (jnp.float32(0), jnp.zeros(gathered.shape, jnp.float32))
    d_hidden: jax.Array
    (total, d_head), d_hidden = collectives.scan(
        step, start, (cut(hidden_nD), cut(targets_n), cut(weights_n))
    )
    d_head = projection.over_replicas(projection.scattered(d_head).astype(head.dtype))
    return projection.over_tokens(total), d_hidden.reshape(-1, D)[:n], d_head
