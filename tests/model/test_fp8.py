"""Matrix products in 8-bit floats: emulated on CPUs, held to what bfloat16 learns."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.model.fp8 import check_device, multiply_fp8
from alpacare_jax.train import TrainStep

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)


def test_products_and_gradients_are_right_to_three_bits():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 16, 64)) * 1e-3, jnp.bfloat16)
    weight = jnp.asarray(rng.normal(size=(64, 4, 8)) * 1e3, jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=(2, 16, 4, 8)), jnp.float32)

    def total(product, x, weight):
        return jnp.sum(weights * product("BTD,DNH->BTNH", x, weight).astype(jnp.float32))

    found = jax.grad(lambda *pair: total(multiply_fp8, *pair), argnums=(0, 1))(x, weight)
    expected = jax.grad(lambda *pair: total(jnp.einsum, *pair), argnums=(0, 1))(x, weight)
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.linalg.norm(a - b) < 0.08 * np.linalg.norm(b)
    y, z = (
        np.asarray(product("BTD,DNH->BTNH", x, weight), np.float32) for product in (multiply_fp8, jnp.einsum)
    )
    assert 0 < np.linalg.norm(y - z) < 0.05 * np.linalg.norm(z)
    assert not np.any(multiply_fp8("BTD,DNH->BTNH", x * 0, weight))


def loss_curve(matmul, steps=40):
    mesh = sharding.single_device_mesh()
    architecture = Architecture(TINY, ComputeConfig("bfloat16", matmul=matmul))
    train_step = TrainStep(architecture, optax.adam(1e-2), lambda _: 1e-2, mesh)
    rows = (np.arange(16, dtype=np.int32)[None] * np.arange(1, 9)[:, None]) % 61
    ones = np.ones_like(rows)
    positions = np.tile(np.arange(16, dtype=np.int32), (8, 1))
    batch = {"tokens": rows, "segment_ids": ones, "positions": positions, "loss_mask": ones}
    with sharding.use_mesh(mesh):
        state, take_step = train_step.start(architecture.init(0, mesh)), train_step.compile_step()
        losses = []
        for _ in range(steps):
            state, metrics = take_step(state, batch)
            losses.append(float(metrics["loss"]))
    return np.asarray(losses)


@pytest.mark.slow
def test_it_learns_what_bfloat16_learns_at_every_step():
    plain, rounded = loss_curve("default"), loss_curve("fp8")
    learnt = plain[0] - plain[-5:].mean()
    assert learnt > 0.5 * plain[0]
    # Means of five steps. Where the loss falls by 8% of all that is learnt in a step, 8 bits may be a step late.
    curves = [np.convolve(losses, np.ones(5) / 5, "valid") for losses in (plain, rounded)]
    apart = np.abs(curves[0] - curves[1])
    assert apart.max() < 0.1 * learnt
    assert apart[-1] < 0.01 * learnt
    assert np.any(plain != rounded), "8 bits were used"


def test_it_needs_bfloat16():
    with pytest.raises(ConfigError, match="requires dtype bfloat16") as caught:
        ComputeConfig(matmul="fp8")
    assert "compute.dtype float32" in str(caught.value)


@pytest.mark.parametrize(
    ("platform", "kind", "capability", "fits"),
    [
        ("gpu", "NVIDIA H100", "9.0", True),
        ("gpu", "NVIDIA B200", "10.0", True),
        ("gpu", "NVIDIA L4", "8.9", True),
        ("gpu", "NVIDIA A100", "8.0", False),
        ("tpu", "TPU v5e", None, False),
        ("cpu", "cpu", None, True),
    ],
)
def test_devices_without_it_are_refused_by_name(platform, kind, capability, fits):
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    if capability:
        device.compute_capability = capability
    if fits:
        check_device(device)
        return
    with pytest.raises(ConfigError, match="no products of 8-bit floats") as caught:
        check_device(device)
    assert kind in str(caught.value)
