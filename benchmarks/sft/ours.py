"""This stack's side of the comparison: its real step, on packed rows."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from sft.rows import Work, examples_of, packed

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"kind": "lora", "rank": 16, "alpha": 32.0},
    "qlora": {"kind": "lora", "rank": 16, "alpha": 32.0, "base": "nf4"},
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to run the step: what is recomputed, in how many parts, in which dtypes.

    Args:
        remat: ``compute.remat``.
        microbatches: ``train.microbatches``.
        param_dtype: Dtype of trained weights.
        grad_dtype: Dtype of gradients.
        state_dtype: Dtype of the optimiser's moments.
    """

    remat: str = "full"
    microbatches: int = 1
    param_dtype: str = "float32"
    grad_dtype: str = "float32"
    state_dtype: str = "float32"

    def __str__(self) -> str:
        kept = f"{self.param_dtype} weights, {self.grad_dtype} gradients, {self.state_dtype} moments"
        return f"remat {self.remat}, {self.microbatches} microbatches, {kept}"

    @property
    def apart_from_parts(self) -> str:
        """What sets it apart from others, the number of microbatches left out."""
        return str(dataclasses.replace(self, microbatches=1))


def settings(work: Work) -> Iterator[Setting]:
    """Yield the settings to try, those thought fastest first."""
    ways = [("float32", "float32")]
    if work.method == "full":  # adapters' moments and gradients are small
        ways = [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32", "float32")]
    for moments, gradients in ways:
        for remat in ("products", "projections", "attention", "full"):
            for parts in sorted({parts for parts in (1, 2, 4, work.rows) if work.rows % parts == 0}):
                yield Setting(remat, parts, grad_dtype=gradients, state_dtype=moments)


def train(work: Work, setting: Setting, dtype: str) -> dict[str, Any]:
    """Time updates of the real step and return its figures.

    Args:
        work: What is trained on.
        setting: How.
        dtype: Dtype of activations, "bfloat16" on accelerators.
    """
    from alpacare_jax import flags

    flags.set_flags()  # what `alpacare train` sets; jax reads it once, when it starts
    import jax

    from alpacare_jax import sharding
    from alpacare_jax.adapters import AdapterConfig
    from alpacare_jax.data.packing import stack_sequences
    from alpacare_jax.model import ComputeConfig
    from alpacare_jax.model.shapes import named_shape
    from alpacare_jax.optim import OptimConfig
    from alpacare_jax.sharding import MeshConfig
    from alpacare_jax.train import LoopConfig, RunConfig

    model = named_shape(work.shape)
    model = dataclasses.replace(model, num_hidden_layers=work.layers or model.num_hidden_layers)
    config = RunConfig(
        out="",
        train_data="",
        architecture=work.shape,
        mesh=MeshConfig(fsdp=1),
        compute=ComputeConfig(
            dtype=dtype, param_dtype=setting.param_dtype, grad_dtype=setting.grad_dtype, remat=setting.remat
        ),
        adapter=AdapterConfig(**METHODS[work.method]),
        optim=OptimConfig(state_dtype=setting.state_dtype),
        train=LoopConfig(batch_rows=work.rows, microbatches=setting.microbatches),
    )
    mesh = sharding.single_device_mesh()
    train_step = config.train_step(model, 100, mesh)
    with sharding.use_mesh(mesh):
        base = train_step.architecture
        if config.adapter.on:
            compute = dataclasses.replace(config.compute, param_dtype=config.adapter.base_dtype(dtype))
            base = dataclasses.replace(base, compute=compute)
        state, step = train_step.start(base.init(0, mesh)), train_step.compile_step()
        place = sharding.batch_sharding(mesh)
        batches = [
            jax.device_put(stack_sequences(packed(examples, work)), place)
            for examples in examples_of(work, model.vocab_size)
        ]
        started = time.perf_counter()
        state, metrics = step(state, batches[0])
        jax.block_until_ready(metrics)
        first_s, started = time.perf_counter() - started, time.perf_counter()
        measured = []
        for batch in batches[1:]:
            state, metrics = step(state, batch)
            measured.append(metrics)
        jax.block_until_ready((state, measured))
        seconds = time.perf_counter() - started
    statistics = jax.local_devices()[0].memory_stats() or {}
    return {
        "seconds": seconds,
        "first_update_s": first_s,
        "useful_tokens": sum(int(metrics["tokens"]) for metrics in measured),
        "slots": work.rows * work.seq_len * work.updates,
        "peak_memory_bytes": statistics.get("peak_bytes_in_use"),
        "losses": [float(metrics["loss"]) for metrics in measured],
    }
