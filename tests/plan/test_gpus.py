"""The real compiler of NVIDIA GPUs on this machine, which has none: memory, kernels, transfers of cut models."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from alpacare_jax.attention.selection import OLDEST_JAX
from alpacare_jax.hardware.chips import CHIPS
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.plan import compilers, formulas, gpus
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.outcome import Compiled, TooLarge
from alpacare_jax.plan.program import Program
from alpacare_jax.train import RunConfig

TINY = LlamaConfig(
    vocab_size=2048,
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=128,
)
CONFIG = RunConfig(out="", train_data="", architecture="llama2-7b")


def program(topology: str, rows: int = 16, model: LlamaConfig = TINY, **compute: object) -> Program:
    changed = dataclasses.replace(CONFIG.compute, **{"dtype": "bfloat16", "remat": "full", **compute})
    return Program(dataclasses.replace(CONFIG, compute=changed), model, parse_topology(topology), rows, 1024)


@functools.cache  # seconds each, and the same ones are asked for
def compiled(asked: Program) -> Compiled:
    outcome = Compiler().compile(asked)
    assert isinstance(outcome, Compiled), str(outcome)
    return outcome


@pytest.fixture(scope="module")
def one_gpu() -> Compiled:
    return compiled(program("h100-80gb"))


@pytest.fixture(scope="module")
def two_nodes() -> Compiled:
    return compiled(program("h100-80gb x16"))


def test_every_gpu_of_the_table_is_described() -> None:
    for chip in CHIPS.values():
        if chip.platform == "gpu":
            assert f'device_description_str: "{chip.processor["name"]}"' in gpus.target(chip)


def test_arguments_are_the_state_and_the_rest_is_counted(one_gpu: Compiled) -> None:
    asked = program("h100-80gb")
    assert one_gpu.arguments == pytest.approx(sum(formulas.state_bytes(asked).values()), rel=0.02)
    assert one_gpu.temporaries > 0
    queries = 4 * asked.rows * asked.seq_len * TINY.num_attention_heads * TINY.head_dim
    assert (one_gpu.workspace > queries) == one_gpu.kernel.startswith("cudnn")
    assert one_gpu.needed > one_gpu.arguments + one_gpu.temporaries + one_gpu.workspace - 1
    assert one_gpu.limit == CHIPS["h100-80gb"].memory_bytes
    assert one_gpu.largest


def test_products_are_counted_with_every_trip_of_the_loop(one_gpu: Compiled) -> None:
    asked = program("h100-80gb")
    own = flops_per_row(TINY, asked.seq_len) * asked.rows
    layer = sum(
        size
        for size in (
            2 * TINY.hidden_size * TINY.num_attention_heads * TINY.head_dim,
            2 * TINY.hidden_size * TINY.num_key_value_heads * TINY.head_dim,
            3 * TINY.hidden_size * TINY.intermediate_size,
        )
    )
    again = 2 * layer * TINY.num_hidden_layers * asked.rows * asked.seq_len
    assert one_gpu.costs.flops == pytest.approx(own + again, rel=0.1)


def test_the_loss_is_a_stretch_of_its_own(one_gpu: Compiled) -> None:
    projection = 2 * TINY.hidden_size * TINY.vocab_size * 16 * 1024
    assert one_gpu.costs.regions["loss"].flops == pytest.approx(3 * projection, rel=0.05)


@pytest.mark.slow
def test_transfers_within_nodes_and_between_them_are_told_apart(two_nodes: Compiled) -> None:
    assert any("over fsdp" in kind for kind in two_nodes.costs.collective_bytes)
    regions = two_nodes.costs.regions.values()
    assert sum(part.link_s for part in regions) > 0
    assert sum(part.network_s for part in regions) > sum(part.link_s for part in regions)


@pytest.mark.slow
def test_the_kernel_is_the_one_a_run_with_this_jax_would_choose(one_gpu: Compiled) -> None:
    wanted = "cudnn" if jax.__version_info__ >= OLDEST_JAX else "chunked"
    assert one_gpu.kernel.startswith(wanted)
    assert (one_gpu.costs.kernel_flops > 0) == (wanted == "cudnn")
    older = compiled(program("a100-80gb"))
    assert older.kernel.startswith("chunked")
    assert "needs Hopper or newer" in older.kernel


@pytest.mark.slow
def test_microbatches_do_the_work_of_the_whole_batch(two_nodes: Compiled) -> None:
    """Their loop has no known number of trips, its condition is a fusion, and its first trip is taken out of it."""
    asked = program("h100-80gb x16", rows=64)
    train = dataclasses.replace(asked.config.train, microbatches=4)
    found = compiled(asked.replace(config=dataclasses.replace(asked.config, train=train)))
    assert found.costs.flops == pytest.approx(4 * two_nodes.costs.flops, rel=0.01)


@pytest.mark.parametrize(("remat", "forwards"), [("attention", 1), ("products", 1), ("projections", 2)])
@pytest.mark.slow
def test_attention_runs_again_only_where_its_values_are_not_kept(remat: str, forwards: int) -> None:
    asked = program("h100-80gb", remat=remat)
    found = compiled(asked)
    heads = TINY.num_attention_heads * TINY.head_dim
    pairs = asked.rows * asked.seq_len * (asked.seq_len + 1) / 2
    one = 2 * 2 * heads * pairs * TINY.num_hidden_layers
    if found.kernel.startswith("cudnn"):
        assert found.costs.kernel_flops == pytest.approx((forwards + 2.5) * one)
    # Whatever the kernel, nothing else of size distinguishes "products" from "projections".
    again = found.costs.flops - compiled(program("h100-80gb", remat="products")).costs.flops
    assert (again > 0.4 * one) == (remat != "products")


@pytest.mark.slow
def test_a_run_that_nearly_fills_the_memory_is_not_recomputed_by_the_compiler() -> None:
    """Its guess of what a program takes is too high; going by it, it would write a third more to memory."""
    large = dataclasses.replace(TINY, hidden_size=3072, intermediate_size=8192, num_hidden_layers=11)
    tight, roomy = (
        compiled(program(name, 8, large, remat="products", attention="chunked"))
        for name in ("l4-24gb", "h200-141gb")
    )
    assert tight.needed > 0.75 * tight.limit
    assert roomy.needed < 0.25 * roomy.limit
    assert tight.costs.memory_bytes < 1.05 * roomy.costs.memory_bytes


LOSS = """
import jax, jax.numpy as jnp
from alpacare_jax import sharding
from alpacare_jax.loss import cross_entropy_sum
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.plan import gpus

mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=1), gpus.devices_of(parse_topology("h100-80gb")))
B, T, D, V = 8, 1024, 4096, 128256
sizes = ((B, T, D), jnp.bfloat16), ((D, V), jnp.float32), ((B, T), jnp.int32), ((B, T), jnp.float32)
arrays = [jax.ShapeDtypeStruct(*size, sharding=sharding.replicated(mesh)) for size in sizes]
step = jax.jit(jax.value_and_grad(cross_entropy_sum, argnums=(0, 1)))
with sharding.use_mesh(mesh):
    compiled = step.trace(*arrays).lower(lowering_platforms=("cuda",)).compile()
print(compiled.memory_analysis().temp_size_in_bytes / (4 * B * T * V))
"""


def test_the_loss_of_a_large_vocabulary_takes_under_a_tenth_of_its_logits(tmp_path: Path) -> None:
    environment = compilers.environment_of("gpu", compilers.flags_of_a_run("gpu"), str(tmp_path))
    done = subprocess.run([sys.executable, "-c", LOSS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.02 < float(done.stdout) < 0.1


def test_what_is_larger_than_the_memory_does_not_fit() -> None:
    large = dataclasses.replace(TINY, hidden_size=8192, intermediate_size=32768, num_hidden_layers=12)
    outcome = Compiler().compile(program("l4-24gb", 1, large))
    assert isinstance(outcome, TooLarge)
    assert outcome.needed > outcome.limit == CHIPS["l4-24gb"].memory_bytes
