"""Kernels within the model: the loss and the gradients of its parameters do not depend on the kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packed_rows import packed_segments

from alpacare_jax import sharding
from alpacare_jax.loss import loss_sum
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.sharding import MeshConfig

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.1,
)


def loss_and_grads(compute, mesh):
    ids = packed_segments(4, 64, 5, 6)
    rng = np.random.default_rng(0)
    batch = {
        "tokens": jnp.asarray(rng.integers(0, 64, ids.shape), jnp.int32),
        "segment_ids": ids,
        "positions": jnp.asarray(np.concatenate([[np.arange(64)]] * 4), jnp.int32),
        "loss_mask": (ids > 0).astype(jnp.int32).at[:, 0].set(0),
    }
    architecture = Architecture(TINY, compute)
    with sharding.use_mesh(mesh):
        params = architecture.init(0, mesh)
        batch = jax.device_put(batch, sharding.batch_sharding(mesh))
        step = jax.jit(jax.value_and_grad(lambda params, batch: loss_sum(architecture.model(params), batch)))
        return jax.device_get(step(params, batch))


@pytest.fixture(scope="module")
def plain_on_one_device():
    return loss_and_grads(ComputeConfig(attention="xla"), sharding.single_device_mesh())


@pytest.mark.parametrize(
    ("remat", "mesh"),
    [("attention", MeshConfig(fsdp=4, tensor=2)), ("full", MeshConfig(fsdp=2, tensor=2, context=2))],
    ids=["attention kept, fsdp=4,tensor=2", "nothing kept, fsdp=2,tensor=2,context=2"],
)
def test_chunked_attention_on_a_mesh_trains_as_plain_attention_on_one_device(
    remat, mesh, plain_on_one_device
):
    compute = ComputeConfig(attention="chunked", remat=remat)
    found = loss_and_grads(compute, sharding.make_mesh(mesh))
    assert found[0] == pytest.approx(plain_on_one_device[0], rel=1e-5)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(plain_on_one_device[1]), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
