"""The output projection as one device sees it: its own shard, the columns it gathers, the sums it shares."""

import dataclasses

import jax
import jax.numpy as jnp

from alpacare_jax import collectives, sharding

LANES = 128
"""Columns are taken in multiples of this, which is how accelerators lay out rows."""

WIDE = 512
"""Where there are many, in multiples of this."""

NEVER = -1e30
"""Logit of a column that is not to count: finite, so that the difference of two such is no NaN."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """What does not change about a projection during a call. The methods run on a device's own part of it.

    Args:
        tied: Whether it is stored as the embedding table, [V, D], and not as [D, V].
        vocabulary: Real columns over all devices; those behind are padding.
        axes: The logical axes of the stored array, as the mesh can split them.
        tokens: The logical axes of rows and length.
        width_over: Mesh axes that split its width.
        columns_over: Mesh axes that split its columns.
        tokens_over: Mesh axes that split the tokens; those that split the width are among them.
        dtype: The compute dtype.
    """

    tied: bool
    vocabulary: int
    axes: tuple[str | None, ...]
    tokens: tuple[str, str]
    width_over: tuple[str, ...]
    columns_over: tuple[str, ...]
    tokens_over: tuple[str, ...]
    dtype: str

    @property
    def hidden(self) -> tuple[str, str, str]:
        """The logical axes of the hidden states."""
        return (*self.tokens, "width")

    def columns(self, head: jax.Array) -> int:
        """Return how many columns a device's part has."""
        return head.shape[0 if self.tied else 1]

    def first(self, head: jax.Array) -> jax.Array:
        """Return which column of the vocabulary a device's part begins with."""
        if not self.columns_over:
            return jnp.int32(0)
        return jax.lax.axis_index(self.columns_over).astype(jnp.int32) * self.columns(head)

    def block(self, tokens: int, head: jax.Array, chunk_bytes: int) -> int:
        """Return how many columns make a tile, so that its logits stay within a number of bytes.

        Example:
            8,192 tokens and 64 MiB give 2,048 columns.
        """
        affordable = chunk_bytes // (4 * tokens)
        # Compilers for GPUs copy some arrays beside tiles of odd sizes.
        unit = WIDE if affordable >= 2 * WIDE else LANES
        return min(max(LANES, affordable // unit * unit), self.columns(head))

    def gathered(self, head: jax.Array, at: jax.Array | None = None, size: int = 0) -> jax.Array:
        """Return columns of a device's part, all of them or ``size`` from ``at``, whole in width, to compute with."""
        if at is not None:
            head = jax.lax.dynamic_slice_in_dim(head, at, size, 0 if self.tied else 1)
            if self.dtype == "bfloat16" and head.dtype == jnp.float32:
                # The same numbers as by conversion alone, but compilers would convert the whole once, before the
                # loop, and keep it: as many bytes as everything else here takes.
                head = jax.lax.reduce_precision(head, exponent_bits=8, mantissa_bits=7)
        head = head.astype(self.dtype)
        if self.width_over:
            head = jax.lax.all_gather(head, self.width_over, axis=1 if self.tied else 0, tiled=True)
        return head

    def logits(self, hidden_nD: jax.Array, gathered: jax.Array) -> jax.Array:
        """Project to the columns that were gathered; fp32."""
        equation = "nD,vD->nv" if self.tied else "nD,Dv->nv"
        return jnp.einsum(equation, hidden_nD, gathered, preferred_element_type=jnp.float32)

    def d_hidden(self, d_logits: jax.Array, gathered: jax.Array) -> jax.Array:
        """Return the gradient of the hidden states that comes through these columns; fp32."""
        equation = "nv,vD->nD" if self.tied else "nv,Dv->nD"
        return jnp.einsum(equation, d_logits, gathered, preferred_element_type=jnp.float32)

    def d_head(self, hidden_nD: jax.Array, d_logits: jax.Array) -> jax.Array:
        """Return the gradient of these columns that comes from this device's tokens; fp32, whole in width."""
        equation = "nD,nv->vD" if self.tied else "nD,nv->Dv"
        return jnp.einsum(equation, hidden_nD, d_logits, preferred_element_type=jnp.float32)

    def scattered(self, d_head: jax.Array) -> jax.Array:
        """Sum a gradient over the devices that split the width, each keeping its own part."""
        if not self.width_over:
            return d_head
        return collectives.sum_scatter(d_head, self.width_over, 1 if self.tied else 0)

    def over_columns(self, x: jax.Array) -> jax.Array:
        """Sum over the devices that hold other columns."""
        return jax.lax.psum(x, self.columns_over) if self.columns_over else x

    def most_over_columns(self, x: jax.Array) -> jax.Array:
        """Take the greatest over the devices that hold other columns."""
        return jax.lax.pmax(x, self.columns_over) if self.columns_over else x

    def over_tokens(self, x: jax.Array) -> jax.Array:
        """Sum over the devices that hold other tokens."""
        return jax.lax.psum(x, self.tokens_over) if self.tokens_over else x

    def over_replicas(self, d_head: jax.Array) -> jax.Array:
        """Sum a scattered gradient over the devices that hold other tokens and the same part of the width."""
        axes = tuple(axis for axis in self.tokens_over if axis not in self.width_over)
        return jax.lax.psum(d_head, axes) if axes else d_head


def project_here(hidden_BTD: jax.Array, head: jax.Array, *, tied: bool, vocabulary: int | None) -> Projection:
    """Describe a projection on the mesh in scope; arguments as for the loss.

    Devices that cannot split the columns evenly split the tokens instead, and the width where it is stored like that.
    Where they can split neither, all of them do the same.
    """
    axes = ("vocab", "embed") if tied else ("embed", "vocab")
    mesh, tokens = jax.sharding.get_abstract_mesh(), ("batch", "length")
    fitted: tuple[str | None, ...] = axes
    if not mesh.empty and (fitted := sharding.fitted(mesh, axes, head.shape)) != axes:
        if sharding.splits_evenly(residual_length=hidden_BTD.shape[1]):
            tokens = ("batch", "residual_length")
        else:
            fitted = tuple(axis if axis is None else "embed" for axis in fitted)
    width, columns = fitted[::-1] if tied else fitted
    return Projection(
        tied=tied,
        vocabulary=vocabulary or head.shape[0 if tied else 1],
        axes=fitted,
        tokens=tokens,
        width_over=sharding.split_over(width),
        columns_over=sharding.split_over(columns),
        tokens_over=sharding.split_over(*tokens),
        dtype=jnp.dtype(hidden_BTD.dtype).name,
    )
