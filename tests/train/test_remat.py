"""Recomputation by name: the same gradients, other memory, and programs that the TPU compiler takes."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from marking import slow_but

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.loss import loss_sum
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.model.compute import REMAT_POLICIES

TINY = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.1,
)


def batch(rows=4, length=64):
    tokens = np.random.default_rng(0).integers(0, TINY.vocab_size, (rows, length)).astype(np.int32)
    ids = np.repeat(np.array([[1, 2]], np.int32), length // 2, axis=1).repeat(rows, axis=0)
    positions = np.tile(np.arange(length // 2, dtype=np.int32), (rows, 2))
    return {
        "tokens": tokens,
        "segment_ids": ids,
        "positions": positions,
        "loss_mask": (positions > 2).astype(np.int32),
    }


def compiled(remat, kernel="chunked", layer_rows=None):
    architecture = Architecture(TINY, ComputeConfig(remat=remat, attention=kernel, layer_rows=layer_rows))
    params = architecture.init(0, sharding.single_device_mesh())

    def loss(params, batch):
        return loss_sum(architecture.model(params), batch)

    return jax.jit(jax.value_and_grad(loss)).lower(params, batch()).compile(), params


@pytest.fixture(scope="module")
def expected():
    step, params = compiled("none")
    return step(params, batch())


@pytest.mark.parametrize(
    "remat", slow_but(["full", "offload", "dots"], [name for name in REMAT_POLICIES if name != "none"])
)
def test_every_policy_gives_the_same_loss_and_gradients(remat, expected):
    step, params = compiled(remat)
    loss, grads = step(params, batch())
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected[1]), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("remat", "layer_rows"), slow_but([("full", 3)], [("full", 1), ("full", 3), ("offload", 2)])
)
def test_rows_in_parts_give_the_same_loss_and_gradients_and_need_less_memory(remat, layer_rows, expected):
    step, params = compiled(remat, layer_rows=layer_rows)
    loss, grads = step(params, batch())
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected[1]), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
    whole = compiled(remat)[0].memory_analysis().temp_size_in_bytes
    assert step.memory_analysis().temp_size_in_bytes < whole


def test_rows_in_parts_stay_on_their_devices(expected):
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    compute = ComputeConfig(remat="full", attention="chunked", layer_rows=1)
    architecture = Architecture(TINY, compute)
    with sharding.use_mesh(mesh):
        rows = jax.device_put(batch(), sharding.batch_sharding(mesh))
        step = jax.jit(jax.value_and_grad(lambda params: loss_sum(architecture.model(params), rows)))
        loss, grads = jax.device_get(step(architecture.init(0, mesh)))
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected[1]), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("settings", [{"remat": "none", "layer_rows": 2}, {"remat": "full", "layer_rows": 0}])
def test_rows_in_parts_need_a_layer_that_is_computed_again(settings):
    with pytest.raises(ConfigError, match="layer_rows"):
        ComputeConfig(**settings)


def kept(remat, kernel="chunked"):
    """Return the shapes a layer hands from its forward pass to its backward pass, without weights and constants."""
    architecture = Architecture(TINY, ComputeConfig(remat=remat, attention=kernel))
    params = architecture.init(0, sharding.single_device_mesh())
    rows = batch()

    def loss(params):
        return loss_sum(architecture.model(params), rows)

    jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
    scans = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    forward = next(eqn for eqn in scans if eqn.params["length"] == TINY.num_hidden_layers)
    # What is stacked has one dimension more outside of the loop than inside; what is carried has as many.
    pairs = zip(forward.outvars, forward.params["jaxpr"].out_avals, strict=True)
    return sorted(out.aval.shape for out, inside in pairs if len(out.aval.shape) == len(inside.shape) + 1)


def test_each_policy_keeps_what_its_name_says():
    layers, rows, length, heads = TINY.num_hidden_layers, 4, 64, TINY.num_attention_heads
    inputs = (layers, rows, length, TINY.hidden_size)
    wide = (layers, rows, length, TINY.intermediate_size)
    assert kept("full") == kept("offload") == [inputs]
    assert wide not in kept("attention")
    # Attended values and normalisers of the kernel, beside the layer's input.
    assert len(kept("attention")) == 3
    of_keys = (layers, rows, length, TINY.num_key_value_heads, TINY.head_dim)
    of_queries = (layers, rows, length, heads, TINY.head_dim)
    assert kept("projections") == sorted([inputs, inputs, wide, wide, of_keys, of_keys, of_queries])
    assert len(kept("none")) > len(kept("projections"))


def test_attention_is_not_computed_again_where_it_is_kept():
    def loops(remat):
        return compiled(remat)[0].cost_analysis()["flops"]

    assert loops("none") <= loops("attention") < loops("full")


@pytest.mark.parametrize(
    ("key", "found", "nearest"),
    [
        ("remat", "offlod", "offload"),
        ("remat", "project", "projections"),
        ("dtype", "bf16", "bfloat16"),
        ("param_dtype", "float16", "bfloat16"),
        ("grad_dtype", "fp32", "float32"),
        ("loss", "vocab", "vocabulary"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(key, found, nearest):
    with pytest.raises(ConfigError) as caught:
        ComputeConfig(**{key: found})
    assert f"compute.{key}" in str(caught.value)
    assert nearest in str(caught.value)


def test_gradients_in_less_precision_than_the_products_are_refused():
    with pytest.raises(ConfigError, match="grad_dtype: bfloat16` requires"):
        ComputeConfig(grad_dtype="bfloat16")
    assert dataclasses.replace(ComputeConfig(dtype="bfloat16"), grad_dtype="bfloat16")


TPU_PROGRAM = """
import sys
import jax
from jax.experimental import topologies
from alpacare_jax import optim, sharding
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.train import TrainStep

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=16), topology.devices)
config = LlamaConfig(vocab_size=512, hidden_size=256, intermediate_size=1024, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=2, head_dim=128)
settings = optim.OptimConfig()
rows = jax.ShapeDtypeStruct((32, 512), "int32", sharding=sharding.batch_sharding(mesh))
batch = {name: rows for name in ("tokens", "segment_ids", "positions", "loss_mask")}
for remat in sys.argv[1:]:
    architecture = Architecture(config, ComputeConfig("bfloat16", remat=remat, attention="splash"))
    train_step = TrainStep(architecture, optim.make_optimizer(settings, 10), optim.make_schedule(settings, 10), mesh)
    with sharding.use_mesh(mesh):
        program = train_step.compile_step().trace(train_step.abstract_state(), batch).lower().compile()
    memory = program.memory_analysis()
    print(remat, memory.temp_size_in_bytes, memory.host_temp_size_in_bytes, flush=True)
"""


@pytest.mark.usefixtures("for_tpu_compiler")
@pytest.mark.slow
def test_policies_compile_for_a_tpu_slice_and_keep_where_they_promise():
    pytest.importorskip("libtpu", reason="the TPU compiler comes with the tpu extra")
    done = subprocess.run(
        [sys.executable, "-c", TPU_PROGRAM, "full", "projections", "offload"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (line.split() for line in done.stdout.splitlines())
    figures = {name: (int(device), int(host)) for name, device, host in lines}
    layers, rows, length, width = 2, 2, 512, 256
    inputs = layers * rows * length * width * 2
    assert figures["offload"][1] >= inputs
    assert figures["full"][1] == figures["projections"][1] == 0
    assert figures["projections"][0] > figures["full"][0]
