"""Rotary position embeddings: frequencies of every kind, and their application.

Source: Su et al. 2021 (RoPE); Chen et al. 2023 (linear); Peng et al. 2023 (yarn, NTK); Llama 3.1's scaling rule.
The numbers agree with ``transformers.modeling_rope_utils``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alpacare_jax.model.config import LlamaConfig


def inverse_frequencies(config: LlamaConfig) -> tuple[np.ndarray, float]:
    """Compute the inverse frequencies of all kinds that do not depend on the sequence length.

    Args:
        config: The model's shape.

    Returns:
        Inverse frequencies [head_dim / 2] in fp32 (for ``dynamic``: those of a short sequence), and the factor by
        which cosine and sine are scaled (1 except for yarn).
    """
    rope, half = config.rope, config.head_dim // 2
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    # The power is rounded once from fp64: an fp32 power is off by one unit in places, which far positions magnify.
    plain = np.float32(1) / (rope.theta ** exponents.astype(np.float64)).astype(np.float32)
    if rope.kind == "linear":
        return (plain / np.float32(rope.factor or 1.0)).astype(np.float32), 1.0
    if rope.kind == "llama3":
        return _llama3(plain, config), 1.0
    if rope.kind == "yarn":
        return _yarn(plain, half, config)
    return plain, 1.0


def _llama3(plain: np.ndarray, config: LlamaConfig) -> np.ndarray:
    """Slow wavelengths down by ``factor``, keep fast ones, and blend between."""
    rope = config.rope
    factor = rope.factor or 1.0
    old_length = rope.original_max_position_embeddings or config.max_position_embeddings
    wavelength = 2 * math.pi / plain
    blend = (old_length / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * plain / factor + blend * plain
    long = wavelength > old_length / rope.low_freq_factor
    short = wavelength < old_length / rope.high_freq_factor
    return np.where(long, plain / factor, np.where(short, plain, blended)).astype(np.float32)


def _yarn(plain: np.ndarray, half: int, config: LlamaConfig) -> tuple[np.ndarray, float]:
    """Interpolate slow dimensions, extrapolate fast ones, along a linear ramp between two rotation counts."""
    rope, size = config.rope, config.head_dim
    old_length = rope.original_max_position_embeddings or config.max_position_embeddings
    factor = rope.factor if rope.factor is not None else config.max_position_embeddings / old_length

    def dimension_of(rotations: float) -> float:
        return size * math.log(old_length / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    def magnitude(scale: float, weight: float = 1.0) -> float:
        return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(half, dtype=np.float32) - low) / (high - low), 0, 1)
    frequencies = plain / factor * ramp + plain * (1 - ramp)
    scale = rope.attention_factor
    if scale is None and rope.mscale and rope.mscale_all_dim:
        scale = magnitude(factor, rope.mscale) / magnitude(factor, rope.mscale_all_dim)
    return frequencies.astype(np.float32), magnitude(factor) if scale is None else scale


def dynamic_frequencies(config: LlamaConfig, lengths_BT: Int[Array, "B T"]) -> Float[Array, "B T F"]:
    """Compute NTK-scaled inverse frequencies from the length of each token's sequence.

    Args:
        config: The model's shape; ``rope.kind`` is "dynamic".
        lengths_BT: Length of the token's own sequence, in tokens.

    Returns:
        Inverse frequencies [B, T, head_dim / 2], fp32.
    """
    rope, size = config.rope, config.head_dim
    factor = rope.factor or 1.0
    length = jnp.maximum(lengths_BT, config.max_position_embeddings).astype(jnp.float32)
    stretch = factor * length / config.max_position_embeddings - (factor - 1)
    base = rope.theta * stretch ** (size / (size - 2))
    exponents = jnp.arange(0, size, 2, dtype=jnp.float32) / size
    return 1.0 / base[..., None] ** exponents[None, None, :]


def rotation(
    config: LlamaConfig, positions_BT: Int[Array, "B T"], lengths_BT: Int[Array, "B T"] | None = None
) -> tuple[Float[Array, "B T F"], Float[Array, "B T F"]]:
    """Return cosine and sine of every position's angles.

    Args:
        config: The model's shape.
        positions_BT: Position of each token within its sequence.
        lengths_BT: Length of each token's sequence; needed only by the ``dynamic`` kind.

    Returns:
        Cosine and sine [B, T, head_dim / 2], fp32.
    """
    static, scale = inverse_frequencies(config)
    if config.rope.kind == "dynamic" and lengths_BT is not None:
        frequencies = dynamic_frequencies(config, lengths_BT)
    else:
        frequencies = jnp.asarray(static)[None, None, :]
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def rotate(
    x_BTNH: Float[Array, "B T N H"], cosine_BTF: Float[Array, "B T F"], sine_BTF: Float[Array, "B T F"]
) -> Float[Array, "B T N H"]:
    """Rotate queries or keys; the two halves of a head are paired, as in Hugging Face's layout.

    Returns:
        The rotated array, in the dtype of ``x_BTNH``.
    """
    cosine, sine = cosine_BTF[:, :, None, :], sine_BTF[:, :, None, :]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    halves = first * cosine - second * sine, second * cosine + first * sine
    # Rounded before they are joined, so that no array of whole heads is kept in fp32.
    return jnp.concatenate([half.astype(x_BTNH.dtype) for half in halves], axis=-1)


def segment_lengths(positions_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Return for each token the length of the segment it belongs to: its largest position plus one.

    Example:
        Positions ``[0 1 2 0 1]`` in segments ``[1 1 1 2 2]`` give ``[3 3 3 2 2]``.
    """
    same_BTT = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return jnp.max(jnp.where(same_BTT, positions_BT[:, None, :], 0), axis=-1) + 1


def default_positions(tokens_BT: jax.Array) -> jax.Array:
    """Return positions 0..T-1 for every row."""
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None, :], tokens_BT.shape)
