"""The parts of a layer in Flax NNX: each declares its weights once, with shapes, initial values and logical axes.

Shape suffixes are those of :mod:`alpacare_jax.model.llama`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from alpacare_jax import attention, sharding
from alpacare_jax.model import rope
from alpacare_jax.model.attention import attend_cached
from alpacare_jax.model.compute import ComputeConfig
from alpacare_jax.model.config import LlamaConfig
from alpacare_jax.model.products import project

RowAxes = tuple[str, str, str]
WHOLE_ROW: RowAxes = ("batch", "length", "width")
SPLIT_ROW: RowAxes = ("batch", "residual_length", "width")
"""How hidden states lie: as products split over heads read them, and between products."""

SUMMED_AXES = {"query": 1, "key": 1, "value": 1, "out": 2, "gate": 1, "up": 1, "down": 1}
"""How many of the first axes of a layer's matrix (after the layers') a product sums; the rest are its outputs."""


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
        self, x_BTD: jax.Array, angles: Any, mask: jax.Array, row: RowAxes, cache: Any = None
    ) -> Any:
        """Attend within the row, or to the cache after writing this row's keys and values into it.

        ``mask`` says what each token sees: within the row its segment ids [B, T], in a cache the mask [B, T, S].
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
                q_BTNH, k_BSKH, v_BSKH, mask, kernel=self.kernel, segments=self.segments
            )
        else:
            keys, values, slots_BT = cache
            k_BSKH, v_BSKH = layout.spread_keys(k_BSKH), layout.spread_keys(v_BSKH)
            rows_B1 = jnp.arange(slots_BT.shape[0])[:, None]
            keys = keys.at[rows_B1, :, slots_BT].set(k_BSKH.astype(keys.dtype), mode="drop")
            values = values.at[rows_B1, :, slots_BT].set(v_BSKH.astype(values.dtype), mode="drop")
            cache = (keys, values)
            q_BTNH = layout.spread_queries(q_BTNH)
            attended_BTNH = attend_cached(q_BTNH, keys.astype(dtype), values.astype(dtype), mask)
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

    def __call__(self, x_BTD: jax.Array, angles: Any, mask: jax.Array, cache: Any = None) -> Any:
        """Return the layer's output and its cache, None where none was given.

        In training, what stands between the products, the residual stream and its norms, is split by length over
        the devices that share a product: each product gathers what it reads and scatters what it sums, and no device
        keeps or normalises what others keep too (Korthikanti et al. 2022, sequence parallelism).
        """
        row = WHOLE_ROW if cache is not None else SPLIT_ROW
        attended_BTD, cache = self.attention(self.attention_norm(x_BTD), angles, mask, row, cache)
        x_BTD = x_BTD + attended_BTD
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD), row)
        return sharding.constrain(x_BTD, *row), cache
