"""Weights in 4 and 8 bits against a plain reference, and what they take."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.adapters import quantize as quantizing
from alpacare_jax.adapters.quantize import NF4, Layout, unpack_scales
from alpacare_jax.model.products import multiply

SHAPES = {"query": ((256, 4, 64), -1, -3), "out": ((4, 64, 256), -2, -1), "gate": ((96, 192), -1, -2)}

# One program each; taken apart they would be dozens.
quantize = jax.jit(quantizing.quantize, static_argnames="layout")
dense = jax.jit(lambda packed: packed.dense())


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def bits(packed, weight):
    return 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(packed)) / weight.size


@pytest.mark.parametrize("name", SHAPES)
def test_every_number_becomes_the_nearest_of_the_sixteen(name):
    shape, axis, scale_axis = SHAPES[name]
    weight = normal(shape)
    layout = Layout.of("nf4", shape, axis, scale_axis)
    packed = quantize(weight, layout=layout)
    unpack = jax.jit(unpack_scales, static_argnums=3)
    scales = np.asarray(unpack(packed.scales, packed.steps, packed.mean, layout))
    blocks = np.moveaxis(np.asarray(weight), axis, -1)
    blocks = blocks.reshape(*blocks.shape[:-1], -1, layout.block)
    scales = np.moveaxis(scales, axis, -1)[..., None]
    table = np.asarray(NF4, np.float32)
    nearest = np.abs(blocks[..., None] / scales[..., None] - table).argmin(-1)
    expected = np.moveaxis((table[nearest] * scales).reshape(*blocks.shape[:-2], -1), -1, axis)
    found = np.asarray(dense(packed))
    assert found.shape == shape
    assert np.mean(np.abs(found - expected) > 1e-6) < 1e-4, "all but ties"
    largest = np.abs(blocks).max(-1)
    assert np.abs(scales[..., 0] - largest).max() < 0.01 * largest.max(), (
        "scales keep two digits in their 8 bits"
    )


@pytest.mark.parametrize(
    ("kind", "most_bits", "error"), [("nf4", 4.2, 0.1), ("int4", 5.0, 0.085), ("int8", 8.2, 0.01)]
)
def test_what_it_takes_and_what_it_costs(kind, most_bits, error):
    weight = normal((512, 4, 128))
    packed = quantize(weight, layout=Layout.of(kind, weight.shape, -1, -3))
    assert bits(packed, weight) <= most_bits
    assert np.linalg.norm(dense(packed) - weight) < error * np.linalg.norm(weight)


@pytest.mark.parametrize("kind", ["nf4", "int8", "int4"])
def test_zeros_stay_zeros_and_odd_sizes_take_smaller_blocks(kind):
    shape = (24, 40)
    layout = Layout.of(kind, shape, -1, -2)
    assert (layout.block, layout.scale_block) == (8, 8)
    assert not np.any(dense(quantize(jnp.zeros(shape), layout=layout)))
    weight = normal(shape)
    assert np.linalg.norm(dense(quantize(weight, layout=layout)) - weight) < 0.1 * np.linalg.norm(weight)


@pytest.mark.parametrize("shape", [(64, 4, 64), (2, 64, 96), (96, 192)])
def test_int4_keeps_a_weight_that_lies_on_sixteen_steps_a_block_as_it_is(shape):
    axis = -2 if len(shape) == 2 or shape[0] == 2 else -3
    rng, size = np.random.default_rng(0), shape[axis]
    # As Q4_1 stores it: blocks of 32 with their smallest and their largest number among the codes.
    sides = [side for at, side in enumerate(shape) if at != axis + len(shape)]
    codes = rng.integers(0, 16, (*sides, size // 32, 32))
    codes[..., 0], codes[..., -1] = 0, 15
    steps = rng.uniform(1e-3, 1e-2, (*sides, size // 32, 1)).astype(np.float16).astype(np.float32)
    lowest = rng.normal(scale=0.1, size=steps.shape).astype(np.float16).astype(np.float32)
    weight = np.moveaxis((codes * steps + lowest).reshape(*sides, size), -1, axis)
    found = dense(quantize(jnp.asarray(weight), layout=Layout.of("int4", shape, axis, -1)))
    assert np.abs(found - weight).max() <= 1e-7 * np.abs(weight).max()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_int4_keeps_a_weight_that_comes_from_a_gguf_file_as_it_is(kind):
    stored = getattr(gguf.GGMLQuantizationType, kind)
    rows = np.array(normal((64, 256)))
    rows[0] = np.abs(rows[0])  # farthest from zero: a positive number
    rows[1] = -np.abs(rows[1])
    rows[2, :32] = 0
    opened = gguf.dequantize(gguf.quantize(rows, stored), stored)
    found = dense(quantize(jnp.asarray(opened.T), layout=Layout.of("int4", (256, 64), -2, -1)))
    assert np.array_equal(found, opened.T)
    # bfloat16 rounds the file's own numbers, so that only about the same steps are found again.
    rounded = jnp.asarray(opened.T, jnp.bfloat16)
    found = np.asarray(dense(quantize(rounded, layout=Layout.of("int4", (256, 64), -2, -1))))
    assert 0 < np.linalg.norm(found - opened.T) < 0.02 * np.linalg.norm(opened)


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3])
def test_int4_takes_blocks_of_one_number(value):
    weight = jnp.full((64, 3), value)
    found = dense(quantize(weight, layout=Layout.of("int4", weight.shape, -2, -1)))
    assert np.abs(found - weight).max() <= max(1e-8, 1e-3 * value)


@pytest.mark.parametrize("kind", ["nf4", "int8", "int4"])
def test_products_and_gradients_are_those_of_the_unpacked_matrix(kind):
    weight, x = normal((64, 2, 64)), normal((2, 3, 64), seed=1)
    packed = quantize(weight, layout=Layout.of(kind, weight.shape, -3 if kind == "int4" else -1, -3))
    matrix = dense(packed)

    def ours(x):
        return jnp.sum(jnp.sin(packed.multiply("BTD,DNH->BTNH", x, "default")))

    def plain(x):
        return jnp.sum(jnp.sin(multiply("BTD,DNH->BTNH", x, matrix)))

    for found, expected in zip(*(jax.jit(jax.value_and_grad(f))(x) for f in (ours, plain)), strict=True):
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def temporary_bytes(layers, kind, width=256):
    layout = Layout.of(kind, (width, width), -1, -2)
    packed = jax.lax.map(lambda layer: quantize(layer, layout=layout), jnp.zeros((layers, width, width)))

    def loss(x, packed):
        def step(x, layer):
            return jnp.tanh(layer.multiply("BTD,DF->BTF", x, "default")), None

        return jnp.sum(jax.lax.scan(step, x, packed)[0])

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones((1, 8, width)), packed).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("kind", ["nf4", "int4"])
def test_the_backward_pass_of_a_scan_keeps_no_layer_of_the_weight_packed_or_not(kind):
    more = (temporary_bytes(32, kind) - temporary_bytes(8, kind)) / 24
    assert more < 256 * 256 / 2, "less a layer than the layer takes in 4 bits"
