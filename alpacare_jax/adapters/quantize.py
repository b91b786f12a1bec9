"""Frozen weights in 4 or 8 bits, in blocks that share a scale.

``nf4`` and ``int8``: blocks of up to 64 numbers along a head or the MLP's width; scales are quantised themselves.
``int4``: blocks of up to 32 numbers along the last axis that a product sums, 16 equal steps from a first number;
step and first number are fp16. Each block takes the better of two ways: from its smallest number to its largest, as
Q4_1 in ``.gguf`` files does, or from its number farthest from zero, with zero at code 8, as Q4_0 does. A weight that
llama.cpp's plain quantiser wrote in either is kept bit for bit if it is opened in fp32 and its blocks are 32 long; not
if it is opened in bfloat16, which rounds the file's own numbers.

Blocks are never cut by the mesh, so that a quantised weight is stored, sharded and scanned over layers as the weight
itself would be. Nothing is flattened.

Source: for nf4 Dettmers et al. 2023 (QLoRA), section 3 and appendix E for the table; block sizes 64 and 256 as there.
Codes are chosen under the quantised scales, and the scales' 8 bits are integers around their mean.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alpacare_jax.model.products import multiply

BLOCKS, SCALE_BLOCK = {"nf4": 64, "int8": 64, "int4": 32}, 256
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The 16 values of NormalFloat: quantiles of a normal distribution, scaled to -1..1, zero among them."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the blocks of a weight lie. Axes are counted from the end, so they hold with and without layers.

    Args:
        kind: "nf4", "int8" or "int4".
        axis: The axis that is cut into blocks.
        block: Numbers in a block.
        scale_axis: The axis along which the scales of nf4 and int8 are cut into blocks of their own.
        scale_block: Scales in such a block.
    """

    kind: str
    axis: int
    block: int
    scale_axis: int
    scale_block: int

    @classmethod
    def of(cls, kind: str, shape: tuple[int, ...], axis: int, scale_axis: int) -> "Layout":
        """Return the layout of a weight: the largest blocks that its sizes divide into, up to the kind's and 256."""
        block, scales = math.gcd(BLOCKS[kind], shape[axis]), math.gcd(SCALE_BLOCK, shape[scale_axis])
        return cls(kind, axis, block, scale_axis, scales)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """A frozen weight in blocks around zero: nf4 or int8.

    For a weight [D, N, H] in blocks along H, with H = C x 64 and D = E x 256 (a leading axis L outside the scan):

    Args:
        codes: nf4: two codes a byte, uint8 [D, N, C, 32], the low half first; int8: [D, N, C, 64].
        scales: int8 [D, N, C].
        steps: Of the scales, fp32 [E, N, C].
        mean: Of the scales, fp32, one a layer.
        layout: How the blocks lie.
    """

    codes: jax.Array
    scales: jax.Array
    steps: jax.Array
    mean: jax.Array
    layout: Layout = dataclasses.field(metadata={"static": True})

    def multiply(self, equation: str, x: jax.Array, precision: str) -> jax.Array:
        """Multiply by the weight unpacked; the backward pass unpacks it again rather than keep it."""
        return _multiply_unpacked(equation, x, self, precision)

    def axes(self, axes: Sequence[str]) -> "QuantizedWeight":
        """Return the logical axes of the arrays, from those of the weight; blocks take the name of the cut axis."""
        steps = (None,) * len(axes)
        codes = _axes_of_codes(self.layout, axes)
        return QuantizedWeight(codes, tuple(axes), steps, (None,), self.layout)  # type: ignore[arg-type]

    def dense(self) -> jax.Array:
        """Return the weight unpacked, fp32."""
        layout, split = self.layout, self.layout.axis
        if layout.kind == "nf4":
            values = jnp.concatenate([look_up(half) for half in _halves(self.codes)], axis=split)
        else:
            values = self.codes.astype(jnp.float32) / 127
        scales = unpack_scales(self.scales, self.steps, self.mean, layout)
        return _join_blocks(values * jnp.expand_dims(scales, split), split)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SteppedWeight:
    """A frozen weight in blocks of equal steps from a first number: int4.

    For a weight [D, N, H] in blocks along D = C x 32 (a leading axis L outside the scan):

    Args:
        codes: Two codes a byte, uint8 [C, 16, N, H], the low half first.
        steps: fp16 [C, N, H]; negative where a block goes down from its largest number.
        first: Each block's number of code 0, fp16 [C, N, H].
        layout: How the blocks lie.
    """

    codes: jax.Array
    steps: jax.Array
    first: jax.Array
    layout: Layout = dataclasses.field(metadata={"static": True})

    def multiply(self, equation: str, x: jax.Array, precision: str) -> jax.Array:
        """Multiply by the weight unpacked; the backward pass unpacks it again rather than keep it."""
        return _multiply_unpacked(equation, x, self, precision)

    def axes(self, axes: Sequence[str]) -> "SteppedWeight":
        """Return the logical axes of the arrays, from those of the weight; blocks take the name of the cut axis."""
        each = tuple(axes)
        return SteppedWeight(_axes_of_codes(self.layout, axes), each, each, self.layout)  # type: ignore[arg-type]

    def dense(self) -> jax.Array:
        """Return the weight unpacked, fp32."""
        split = self.layout.axis
        codes = jnp.concatenate(_halves(self.codes), axis=split).astype(jnp.float32)
        steps, first = (jnp.expand_dims(part.astype(jnp.float32), split) for part in (self.steps, self.first))
        return _join_blocks(codes * steps + first, split)


def quantize(weight: jax.Array, layout: Layout) -> QuantizedWeight | SteppedWeight:
    """Quantise the weight of one layer; a stacked one is mapped over, so that one layer is held in fp32 at a time.

    Args:
        weight: Any floating dtype.
        layout: How to cut it.

    Example:
        >>> layout = Layout.of("nf4", (512, 128), axis=-1, scale_axis=-2)
        >>> quantize(jnp.ones((512, 128)), layout).codes.shape
        (512, 2, 32)
    """
    at = weight.ndim + layout.axis
    shape = (*weight.shape[:at], -1, layout.block, *weight.shape[at + 1 :])
    blocks = weight.astype(jnp.float32).reshape(shape)
    if layout.kind == "int4":
        return _in_steps(blocks, layout)
    largest = jnp.max(jnp.abs(blocks), axis=layout.axis)
    scales, steps, mean = _quantize_scales(largest, layout)
    known = unpack_scales(scales, steps, mean, layout)
    units = blocks / jnp.expand_dims(jnp.where(known > 0, known, 1), layout.axis)
    if layout.kind == "int8":
        codes = jnp.clip(jnp.round(units * 127), -127, 127).astype(jnp.int8)
    else:
        codes = _pack(_nearest(units), layout.axis)
    return QuantizedWeight(codes, scales, steps, mean, layout)


def _in_steps(blocks: jax.Array, layout: Layout) -> SteppedWeight:
    smallest, largest = blocks.min(axis=layout.axis), blocks.max(axis=layout.axis)
    farthest = jnp.where(largest > -smallest, largest, smallest)
    *as_q4_1, error = _lay_steps(blocks, smallest, (largest - smallest) / 15, layout.axis)
    *as_q4_0, other_error = _lay_steps(blocks, farthest, farthest / -8, layout.axis)
    better = other_error < error
    first, steps, codes = (
        jnp.where(better if part.ndim == better.ndim else jnp.expand_dims(better, layout.axis), other, part)
        for part, other in zip(as_q4_1, as_q4_0, strict=True)
    )
    return SteppedWeight(_pack(codes.astype(jnp.uint8), layout.axis), steps, first, layout)


def _lay_steps(
    blocks: jax.Array, first: jax.Array, step: jax.Array, axis: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return first numbers and steps in fp16, the codes of blocks under them, and squared errors."""
    first, step = first.astype(jnp.float16), step.astype(jnp.float16)
    low, by = (jnp.expand_dims(part.astype(jnp.float32), axis) for part in (first, step))
    codes = jnp.clip(jnp.round((blocks - low) / jnp.where(by != 0, by, 1)), 0, 15)
    return first, step, codes, jnp.square(codes * by + low - blocks).sum(axis)


def _multiply_unpacked(
    equation: str, x: jax.Array, packed: QuantizedWeight | SteppedWeight, precision: str
) -> jax.Array:
    def product(x: jax.Array, packed: QuantizedWeight | SteppedWeight) -> jax.Array:
        return multiply(equation, x, packed.dense(), precision)

    return jax.checkpoint(product, prevent_cse=False)(x, packed)


def _axes_of_codes(layout: Layout, axes: Sequence[str]) -> tuple[str | None, ...]:
    cut = len(axes) + layout.axis
    return (*axes[: cut + 1], None, *axes[cut + 1 :])


def _join_blocks(blocks: jax.Array, split: int) -> jax.Array:
    at = blocks.ndim + split - 1
    return blocks.reshape(*blocks.shape[:at], -1, *blocks.shape[at + 2 :])


def look_up(codes: jax.Array) -> jax.Array:
    """Turn 4-bit codes into values by selecting bit by bit, which vectorises where look-ups in a table do not."""
    values: list[Any] = [np.float32(value) for value in NF4]
    for bit in range(4):
        is_set = (codes >> bit) & 1 == 1
        values = [jnp.where(is_set, values[i + 1], values[i]) for i in range(0, len(values), 2)]
    return values[0]


def unpack_scales(scales: jax.Array, steps: jax.Array, mean: jax.Array, layout: Layout) -> jax.Array:
    """Return the scales of blocks in fp32, from :class:`QuantizedWeight`'s fields."""
    steps = jnp.repeat(steps, layout.scale_block, axis=layout.scale_axis)
    return scales.astype(jnp.float32) * steps + mean.reshape(mean.shape + (1,) * (scales.ndim - mean.ndim))


def _nearest(units: jax.Array) -> jax.Array:
    middles = [(low + high) / 2 for low, high in itertools.pairwise(NF4)]
    codes = jnp.zeros(units.shape, jnp.uint8)
    for middle in middles:
        codes = codes + (units > middle).astype(jnp.uint8)
    return codes


def _pack(codes: jax.Array, axis: int) -> jax.Array:
    low, high = jnp.split(codes, 2, axis=axis)
    return low | (high << 4)


def _halves(codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return codes & 15, codes >> 4


def _quantize_scales(scales: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array, jax.Array]:
    # A sum depends on the mesh in its last bits; rounded like this, the mean does not.
    mean = jnp.mean(scales).astype(jnp.bfloat16).astype(jnp.float32)
    at = scales.ndim + layout.scale_axis
    groups = (*scales.shape[:at], -1, layout.scale_block, *scales.shape[at + 1 :])
    steps = jnp.max(jnp.abs((scales - mean).reshape(groups)), axis=at + 1) / 127
    whole = jnp.repeat(jnp.where(steps > 0, steps, 1), layout.scale_block, axis=at)
    return jnp.clip(jnp.round((scales - mean) / whole), -127, 127).astype(jnp.int8), steps, mean
