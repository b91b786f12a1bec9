"""A step of eight devices that comes from the cache of compiled programs, in a process of its own: it could hang."""

import os
import subprocess
import sys

import pytest

from alpacare_jax import flags

STEPS = """
import jax, numpy as np
from alpacare_jax import sharding
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.optim import OptimConfig, make_optimizer, make_schedule
from alpacare_jax.train import TrainStep

shape = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=16)
config = OptimConfig(state_dtype="int8", rounding="stochastic")
mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
architecture = Architecture(shape, ComputeConfig("bfloat16", "bfloat16", "bfloat16"))
adamw, rate = make_optimizer(config, 9), make_schedule(config, 9)
train_step = TrainStep(architecture, adamw, rate, mesh, rounding="stochastic")
ones = np.ones((8, 64), np.int32)
rows = {"tokens": ones, "segment_ids": ones, "positions": np.arange(64, dtype=np.int32) * ones, "loss_mask": ones}
with sharding.use_mesh(mesh):
    state = train_step.start(architecture.init(0, mesh))
    placed = jax.device_put(rows, sharding.batch_sharding(mesh))
    for _ in range(2):
        jax.clear_caches()
        step = train_step.compile_step()
        for _ in range(10):
            state, metrics = jax.block_until_ready(step(state, placed))
print("loss", float(metrics["loss"]))
"""


@pytest.mark.timeout(180)
def test_a_step_of_several_devices_runs_from_the_cache_too(tmp_path):
    given = [
        flag for flag in os.environ["XLA_FLAGS"].split() if "scheduler" not in flag and "timeout" not in flag
    ]
    environment = {
        **os.environ,
        "XLA_FLAGS": " ".join([*given, "--xla_cpu_collective_call_terminate_timeout_seconds=60"]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    flags.set_flags(environment)
    done = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("loss")
    assert any((tmp_path / "programs").iterdir())
