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

from alpacare_jax import attention, sharding
from alpacare_jax.model import rope
from alpacare_jax.model.attention import attend_cached, slot_mask
from alpacare_jax.model.compute import LAYER_INPUT, REMAT_POLICIES, ComputeConfig
from alpacare_jax.model.config import LlamaConfig
from alpacare_jax.model.products import multiply_precisely, project

RowAxes = tuple[str, str, str]
WHOLE_ROW: RowAxes = ("batch", "length", "width")
SPLIT_ROW: RowAxes = ("batch", "residual_length", "width")
"""How hidden states lie: as products split over heads read them, and between products."""


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


class Weights:
    """Declares parameters: draws them in fp32, stores them in ``param_dtype``, and notes their logical axes.

    Args:
        rngs: Source of randomness.
        compute: Gives ``param_dtype``.
        layers: Length of the leading layer axis, or None for weights outside the layers.
    """

    def __init__(self, rngs: nnx.Rngs, compute: ComputeConfig, layers: int | None = None) -> None:
        self.rngs, self.dtype, self.layers = rngs, jnp.dtype(compute.param_dtype), layers
        self.precision = compute.precision if compute.matmul == "default" else compute.matmul

    def __call__(self, shape: tuple[int, ...], axes: tuple[str, ...], std: float | None) -> nnx.Param:
        """Declare one weight; ``std`` None makes ones, 0 makes zeros."""
        if self.layers is not None:
            shape, axes = (self.layers, *shape), ("layers", *axes)
        if std is None:
            value = jnp.ones(shape, self.dtype)
        elif std == 0:
            value = jnp.zeros(shape, self.dtype)
        else:
            value = (std * jax.random.normal(self.rngs.params(), shape, jnp.float32)).astype(self.dtype)
        return nnx.Param(value, logical_axes=axes)


class RMSNorm(nnx.Module):
    """Root-mean-square norm, computed in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, weights: Weights, width: int, eps: float) -> None:
        self.scale = weights((width,), ("norm",), std=None)
        self.eps = eps

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalise the last axis."""
        x = x_BTD.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        scale_11D = self.scale[...].astype(jnp.float32)[None, None, :]
        return (x * scale_11D).astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions and optional biases."""

    def __init__(self, config: LlamaConfig, weights: Weights, compute: ComputeConfig) -> None:
        D, N, K, H = (
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        std, bias = config.initializer_range, config.attention_bias
        self.precision, self.heads, self.kv_heads = weights.precision, N, K
        self.kernel, self.segments = compute.attention, compute.attention_segments
        self.query = weights((D, N, H), ("embed", "heads", "head"), std)
        self.key = weights((D, K, H), ("embed", "kv_heads", "head"), std)
        self.value = weights((D, K, H), ("embed", "kv_heads", "head"), std)
        self.out = weights((N, H, D), ("heads", "head", "embed"), std)
        self.query_bias = weights((N, H), ("heads", "head"), 0) if bias else None
        self.key_bias = weights((K, H), ("kv_heads", "head"), 0) if bias else None
        self.value_bias = weights((K, H), ("kv_heads", "head"), 0) if bias else None
        self.out_bias = weights((D,), ("norm",), 0) if bias else None

    def __call__(
        self, x_BTD: jax.Array, angles: Any, visible: jax.Array, row: RowAxes, cache: Any = None
    ) -> Any:
        """Attend within the row, or to the cache after writing this row's keys and values into it.

        ``visible`` says what each token sees: within the row its segment ids [B, T], in a cache the mask [B, T, S].
        ``row`` says how the residual stream lies, and the result with it.
        """
        dtype = x_BTD.dtype
        layout = attention.layout_here(self.heads, self.kv_heads)
        has_own_queries = layout.slots == layout.heads
        # Heads that the devices cannot share evenly are projected where a part of the row lies, all of them.
        whole_BTD = sharding.constrain(x_BTD, *WHOLE_ROW)
        queries_of = whole_BTD if has_own_queries else sharding.constrain(x_BTD, *row)
        keys_of = whole_BTD if layout.is_plain else sharding.constrain(x_BTD, *row)
        q_BTNH = project("BTD,DNH->BTNH", queries_of, self.query, self.query_bias, self.precision)
        k_BSKH = project("BTD,DKH->BTKH", keys_of, self.key, self.key_bias, self.precision)
        v_BSKH = project("BTD,DKH->BTKH", keys_of, self.value, self.value_bias, self.precision)
        q_BTNH = rope.rotate(q_BTNH, *angles)
        if has_own_queries:
            q_BTNH = sharding.constrain(q_BTNH, "batch", "length", "heads", None)
        k_BSKH = rope.rotate(k_BSKH, *angles)
        if cache is None:
            q_BTNH, k_BSKH = checkpoint_name(q_BTNH, "query"), checkpoint_name(k_BSKH, "key")
            v_BSKH = checkpoint_name(v_BSKH, "value")
            attended_BTNH = attention.attend(
                q_BTNH, k_BSKH, v_BSKH, visible, kernel=self.kernel, segments=self.segments
            )
        else:
            keys, values, slots_BT = cache
            k_BSKH, v_BSKH = layout.spread_keys(k_BSKH), layout.spread_keys(v_BSKH)
            rows_B1 = jnp.arange(slots_BT.shape[0])[:, None]
            keys = keys.at[rows_B1, :, slots_BT].set(k_BSKH.astype(keys.dtype), mode="drop")
            values = values.at[rows_B1, :, slots_BT].set(v_BSKH.astype(values.dtype), mode="drop")
            cache = (keys, values)
            q_BTNH = layout.spread_queries(q_BTNH)
            attended_BTNH = attend_cached(q_BTNH, keys.astype(dtype), values.astype(dtype), visible)
            attended_BTNH = layout.collect(attended_BTNH)
        out_BTD = project("BTNH,NHD->BTD", attended_BTNH, self.out, self.out_bias, self.precision)
        return checkpoint_name(sharding.constrain(out_BTD, *row), "attention_out"), cache


class MLP(nnx.Module):
    """The gated feed-forward layer, SwiGLU (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig, weights: Weights) -> None:
        D, F, std, bias = (
            config.hidden_size,
            config.intermediate_size,
            config.initializer_range,
            config.mlp_bias,
        )
        self.precision, self.hidden = weights.precision, F
        self.gate = weights((D, F), ("embed", "mlp"), std)
        self.up = weights((D, F), ("embed", "mlp"), std)
        self.down = weights((F, D), ("mlp", "embed"), std)
        self.gate_bias = weights((F,), ("mlp",), 0) if bias else None
        self.up_bias = weights((F,), ("mlp",), 0) if bias else None
        self.down_bias = weights((D,), ("norm",), 0) if bias else None

    def __call__(self, x_BTD: Float[Array, "B T D"], row: RowAxes) -> Float[Array, "B T D"]:
        """Apply silu(x gate) * (x up), projected back to the model's width and placed as ``row`` says."""
        is_split = sharding.splits_evenly(mlp=self.hidden)
        inside = ("batch", "length", "mlp") if is_split else (*row[:2], None)
        x_BTD = sharding.constrain(x_BTD, *(WHOLE_ROW if is_split else row))
        gate_BTF = project("BTD,DF->BTF", x_BTD, self.gate, self.gate_bias, self.precision)
        up_BTF = project("BTD,DF->BTF", x_BTD, self.up, self.up_bias, self.precision)
        gate_BTF, up_BTF = checkpoint_name(gate_BTF, "gate"), checkpoint_name(up_BTF, "up")
        hidden_BTF = sharding.constrain(jax.nn.silu(gate_BTF) * up_BTF, *inside)
        out_BTD = project("BTF,FD->BTD", hidden_BTF, self.down, self.down_bias, self.precision)
        return checkpoint_name(sharding.constrain(out_BTD, *row), "mlp_out")


class Block(nnx.Module):
    """One layer: attention and feed-forward, each behind a norm and around a residual."""

    def __init__(self, config: LlamaConfig, weights: Weights, compute: ComputeConfig) -> None:
        self.attention_norm = RMSNorm(weights, config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, weights, compute)
        self.mlp_norm = RMSNorm(weights, config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, weights)

    def __call__(self, x_BTD: jax.Array, angles: Any, visible: jax.Array, cache: Any = None) -> Any:
        """Return the layer's output and its cache, None where none was given.

        In training, what stands between the products, the residual stream and its norms, is split by length over
        the devices that share a product: each product gathers what it reads and scatters what it sums, and no device
        keeps or normalises what others keep too (Korthikanti et al. 2022, sequence parallelism).
        """
        row = WHOLE_ROW if cache is not None else SPLIT_ROW
        attended_BTD, cache = self.attention(self.attention_norm(x_BTD), angles, visible, row, cache)
        x_BTD = x_BTD + attended_BTD
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD), row)
        return sharding.constrain(x_BTD, *row), cache


class Llama(nnx.Module):
    """A LLaMA language model.

    Args:
        config: The model's shape.
        compute: Dtypes and recomputation.
        rngs: Source of the initial weights; ``nnx.Rngs(seed)``.

    Example:
        >>> model = Llama(config, ComputeConfig(), rngs=nnx.Rngs(0))
        >>> logits_BTV = model(tokens_BT)

    Source: Touvron et al. 2023; ``transformers`` ``models/llama`` for the exact order of operations.
    """

    def __init__(self, config: LlamaConfig, compute: ComputeConfig | None = None, *, rngs: nnx.Rngs) -> None:
        self.config, self.compute = config, compute or ComputeConfig()
        V, D, std = config.vocab_size, config.hidden_size, config.initializer_range
        outer = Weights(rngs, self.compute)
        self.embed = outer((V, D), ("vocab", "embed"), std)
        self.layers: Any = Block(config, Weights(rngs, self.compute, config.num_hidden_layers), self.compute)
        self.norm = RMSNorm(outer, D, config.rms_norm_eps)
        # Noise on the embeddings; training alone sets it.
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
            lengths_B: Tokens in each row, these included; needed by the "dynamic" rotary embedding alone.
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
        self, x_BTD: jax.Array, angles: Any, visible: jax.Array, cache: Any = None, slots_BT: Any = None
    ) -> Any:
        if isinstance(self.layers, Block) and cache is None:
            return self._scan_layers(x_BTD, angles, visible), None
        layers = self.layers if not isinstance(self.layers, Block) else self.unstack().layers
        keys, values = [], []
        for i, layer in enumerate(layers):
            layer_cache = None if cache is None else (cache.keys[i], cache.values[i], slots_BT)
            x_BTD, written = layer(x_BTD, angles, visible, layer_cache)
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
            dealt = jax.tree.map(lambda rows: deal(rows, parts), (x, angles, segment_ids_BT))
            _, x = jax.lax.scan(lambda _, part: (None, again(layer_state, *part)), None, dealt)
            return collect(x), None

        policy = REMAT_POLICIES[self.compute.remat]
        if policy is not None:
            step = jax.checkpoint(step, policy=policy, prevent_cse=False)
        return jax.lax.scan(step, x_BTD, stacked)[0]


def parts_of(rows: int, at_once: int | None) -> int:
    """Return in how many equal parts rows are taken so that no part has more than ``at_once``.

    Example:
        >>> parts_of(12, 5), parts_of(7, 2), parts_of(8, None)
        (3, 7, 1)
    """
    if at_once is None:
        return 1
    return next(parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= at_once)


def deal(rows: jax.Array, parts: int) -> jax.Array:
    """Deal rows out to parts in turn, so that every device keeps its own: [B, ...] -> [parts, B / parts, ...]."""
    return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)


def collect(parts: jax.Array) -> jax.Array:
    """Undo :func:`deal`: [parts, B / parts, ...] -> [B, ...]."""
    return jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:])
