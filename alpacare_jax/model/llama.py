"""LLaMA in Flax NNX: one declaration of each weight, from which shapes, initial values and shardings follow.

Legend of shape suffixes, used everywhere in this package:
    B batch, T query length, S key length, D model width, F feed-forward width (or half a head in ``rope``),
    N query heads, K key/value heads, G = N/K, H head size, V vocabulary, L layers.

The layers are stored stacked, every weight with a leading axis L, and run under ``jax.lax.scan``, so that compile
time does not grow with depth. For generation :meth:`Llama.unstack` lays them out one by one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from alpacare_jax import attention, collectives, sharding
from alpacare_jax.model import rope
from alpacare_jax.model.attention import slot_mask
from alpacare_jax.model.compute import LAYER_INPUT, REMAT_POLICIES, ComputeConfig
from alpacare_jax.model.config import LlamaConfig
from alpacare_jax.model.layers import SPLIT_ROW, WHOLE_ROW, Block, RMSNorm, Weights
from alpacare_jax.model.products import multiply_precisely


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values already computed: per layer [B, K, S, H]; slot s of a row holds its token at position s."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @classmethod
    def empty(cls, config: LlamaConfig, batch: int, slots: int, dtype: Any = jnp.float32) -> "KVCache":
        """Make an empty cache for ``batch`` rows of up to ``slots`` tokens, for the mesh in scope."""
        layout = attention.layout_here(config.num_attention_heads, config.num_key_value_heads)
        shape = (batch, layout.kv_slots, slots, config.head_dim)
        layers = range(config.num_hidden_layers)
        return cls(
            tuple(jnp.zeros(shape, dtype) for _ in layers), tuple(jnp.zeros(shape, dtype) for _ in layers)
        )

    @property
    def slots(self) -> int:
        """How many tokens a row can hold."""
        return self.keys[0].shape[2]


class Llama(nnx.Module):
    """A LLaMA language model.

    Args:
        config: The model's shape.
        compute: Dtypes and recomputation.
        rngs: Source of the initial weights; ``nnx.Rngs(seed)``.

    Example:
        >>> llama = Llama(model.config, ComputeConfig(), rngs=nnx.Rngs(0))
        >>> llama(tokens_BT).shape == (*tokens_BT.shape, model.config.vocab_size)
        True

    Source: Touvron et al. 2023; ``transformers`` ``models/llama`` for the exact order of operations.
    """

    def __init__(self, config: LlamaConfig, compute: ComputeConfig | None = None, *, rngs: nnx.Rngs) -> None:
        self.config, self.compute = config, compute or ComputeConfig()
        V, D, std = config.vocab_size, config.hidden_size, config.initializer_range
        outer = Weights(rngs, self.compute)
        self.embed = outer((V, D), ("vocab", "embed"), std)
        self.layers: Any = Block(config, Weights(rngs, self.compute, config.num_hidden_layers), self.compute)
        self.norm = RMSNorm(outer, D, config.rms_norm_eps)
        # Noise on the embeddings; only training sets it.
        self.embedding_noise: Callable[[jax.Array], jax.Array] | None = None
        self.head = None if config.tie_word_embeddings else outer((D, V), ("embed", "vocab"), std)

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Return the logits of every token's successor, fp32.

        Args:
            tokens_BT: Token ids, int32.
            segment_ids_BT: Segment of each token, 0 for padding; one segment when None.
            positions_BT: Position of each token within its segment; 0..T-1 when None.
        """
        return self.logits(self.hidden(tokens_BT, segment_ids_BT, positions_BT))

    def hidden(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Return the final normalised hidden states, in the compute dtype; arguments as for the logits."""
        if segment_ids_BT is None:
            segment_ids_BT = jnp.ones_like(tokens_BT)
        if positions_BT is None:
            positions_BT = rope.default_positions(tokens_BT)
        lengths_BT = None
        if self.config.rope.kind == "dynamic":
            lengths_BT = rope.segment_lengths(positions_BT, segment_ids_BT)
        angles = rope.rotation(self.config, positions_BT, lengths_BT)
        x_BTD = self._embed(tokens_BT)
        if self.embedding_noise is not None:
            x_BTD = self.embedding_noise(x_BTD)
        x_BTD = sharding.constrain(x_BTD, *SPLIT_ROW)
        x_BTD, _ = self._run_layers(x_BTD, angles, segment_ids_BT)
        return self.norm(x_BTD)

    def extend(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        cache: KVCache,
        lengths_B: Int[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Read tokens into the cache and return their hidden states and the cache that holds them too.

        Each token is written to the slot of its position and sees the slots up to it. A row's positions must
        follow on from what the row already holds. Padding may stand to the right of a row's tokens: what it
        writes lies beyond the row's end and is overwritten before anything can see it; a position at or past
        the number of slots is not written at all.

        Args:
            tokens_BT: Token ids: whole prompts (prefill) or one token a row (decoding).
            positions_BT: Position of each token within its row.
            cache: What came before.
            lengths_B: Tokens in each row, these included; needed only by the "dynamic" rotary embedding.
        """
        if self.config.rope.kind == "dynamic" and lengths_B is None:
            lengths_B = jnp.max(positions_BT, axis=1) + 1
        lengths_BT = None if lengths_B is None else jnp.broadcast_to(lengths_B[:, None], positions_BT.shape)
        angles = rope.rotation(self.config, positions_BT, lengths_BT)
        mask_BTS = slot_mask(positions_BT, cache.slots)
        x_BTD, cache = self._run_layers(self._embed(tokens_BT), angles, mask_BTS, cache, positions_BT)
        return self.norm(x_BTD), cache

    def logits(self, hidden_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Project hidden states to the vocabulary, accumulated and returned in fp32."""
        head_DV = (self.embed[...].T if self.head is None else self.head[...]).astype(hidden_BTD.dtype)
        if self.compute.precision == "highest" and hidden_BTD.dtype == jnp.float32:
            logits = multiply_precisely(hidden_BTD, head_DV, summed=1)
        else:
            logits = jnp.einsum("BTD,DV->BTV", hidden_BTD, head_DV, preferred_element_type=jnp.float32)
        length = "length" if sharding.splits_evenly(vocab=self.config.vocab_size) else "residual_length"
        return sharding.constrain(logits, "batch", length, "vocab")

    def unstack(self) -> "Llama":
        """Return a model with the layers stored one by one, which decodes without copying weights."""
        graph, state = nnx.split(self.layers)
        layers = [
            nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))
            for i in range(self.config.num_hidden_layers)
        ]
        outer_graph, outer_state = nnx.split(self)
        model = nnx.merge(outer_graph, outer_state)
        model.layers = nnx.List(layers)
        return model

    def _embed(self, tokens_BT: jax.Array) -> jax.Array:
        # The table is gathered over fsdp first: a look-up into a width-sharded table would leave the rows replicated.
        table_VD = sharding.constrain(self.embed[...].astype(jnp.dtype(self.compute.dtype)), "vocab", "width")
        x_BTD = jnp.take(table_VD, tokens_BT, axis=0)
        return sharding.constrain(x_BTD, *WHOLE_ROW)

    def _run_layers(
        self, x_BTD: jax.Array, angles: Any, mask: jax.Array, cache: Any = None, slots_BT: Any = None
    ) -> Any:
        if isinstance(self.layers, Block) and cache is None:
            return self._scan_layers(x_BTD, angles, mask), None
        layers = self.layers if not isinstance(self.layers, Block) else self.unstack().layers
        keys, values = [], []
        for i, layer in enumerate(layers):
            layer_cache = None if cache is None else (cache.keys[i], cache.values[i], slots_BT)
            x_BTD, written = layer(x_BTD, angles, mask, layer_cache)
            if cache is not None:
                keys.append(written[0])
                values.append(written[1])
        return x_BTD, None if cache is None else KVCache(tuple(keys), tuple(values))

    def _scan_layers(self, x_BTD: jax.Array, angles: Any, segment_ids_BT: jax.Array) -> jax.Array:
        graph, stacked = nnx.split(self.layers)

        def apply(layer_state: Any, x: jax.Array, angles: Any, segment_ids: jax.Array) -> jax.Array:
            return nnx.merge(graph, layer_state)(x, angles, segment_ids)[0]

        parts = parts_of(x_BTD.shape[0] // sharding.shards_of("batch"), self.compute.layer_rows)

        def step(x: jax.Array, layer_state: Any) -> tuple[jax.Array, None]:
            x = checkpoint_name(x, LAYER_INPUT)
            if parts == 1:
                return apply(layer_state, x, angles, segment_ids_BT), None
            # Each part is computed again right before its gradients, so that one part's activations exist at a time.
            again = jax.checkpoint(apply, prevent_cse=False)
            split = jax.tree.map(lambda rows: split_microbatches(rows, parts), (x, angles, segment_ids_BT))
            _, x = collectives.scan(lambda _, part: (None, again(layer_state, *part)), None, split)
            return merge_microbatches(x), None

        policy = REMAT_POLICIES[self.compute.remat]
        if policy is not None:
            step = jax.checkpoint(step, policy=policy, prevent_cse=False)
        return collectives.scan(step, x_BTD, stacked)[0]


def parts_of(rows: int, at_once: int | None) -> int:
    """Return in how many equal parts rows are taken so that no part has more than ``at_once``.

    Example:
        >>> parts_of(12, 5), parts_of(7, 2), parts_of(8, None)
        (3, 7, 1)
    """
    if at_once is None:
        return 1
    return next(parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= at_once)


def split_microbatches(rows: jax.Array, parts: int) -> jax.Array:
    """Deal rows out to parts in turn, so that every device keeps its own: [B, ...] -> [parts, B / parts, ...]."""
    return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)


def merge_microbatches(parts: jax.Array) -> jax.Array:
    """Undo :func:`split_microbatches`: [parts, B / parts, ...] -> [B, ...]."""
    return jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:])
