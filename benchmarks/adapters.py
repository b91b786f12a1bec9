"""LoRA beside QLoRA: the same run with the base in the compute dtype, int8, int4 and nf4, and how far the losses part.

    python benchmarks/adapters.py --model MODEL --train PACKED_TRAIN --valid PACKED_VALID [--steps 50] [--json OUT]

MODEL is a model folder (`alpacare import`), the data are packed with its tokenizer (`alpacare pack`). All runs take
the same rows in the same order and start from the same adapters. Printed per base: mean training loss of the first
and the last ten steps, loss on the same held-out rows before and after, bytes of the frozen base, and how far the last
held-out loss is from LoRA's. On a CPU 50 steps of one row of 512 tokens take minutes a base for SmolLM2-135M.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax

from alpacare_jax import load, sharding
from alpacare_jax.adapters import AdapterConfig, bytes_a_device, count
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.loader import BatchStream
from alpacare_jax.loss.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, ComputeConfig
from alpacare_jax.optim import OptimConfig
from alpacare_jax.sharding import MeshConfig
from alpacare_jax.train import LoopConfig, RunConfig


def main() -> None:
    """Train once with every base and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--train", required=True, help="packed data to train on")
    parser.add_argument("--valid", required=True, help="packed data to validate on")
    parser.add_argument("--steps", type=int, default=50, help="steps of each run")
    parser.add_argument("--rows", type=int, default=1, help="rows a step")
    parser.add_argument("--valid-rows", type=int, default=16, help="held-out rows")
    parser.add_argument(
        "--bases",
        default="auto,nf4,nf4+residual,int4,int8",
        help="bases to compare, LoRA's own (auto) first; +residual sets adapter.start",
    )
    parser.add_argument("--dtype", default="float32", help="compute.dtype")
    parser.add_argument("--remat", default="none", help="compute.remat")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for base in arguments.bases.split(","):
        results.append(train(arguments, base))
        print(line(results[-1], results[0]), flush=True)
    names = ("jax", "flax", "optax")
    environment = {name: importlib.metadata.version(name) for name in names}
    environment["device"] = jax.devices()[0].device_kind
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    if arguments.json:
        figures = {"settings": vars(arguments) | {"json": None}, "environment": environment, "runs": results}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def train(arguments: argparse.Namespace, base: str) -> dict[str, Any]:
    """Run one training and return its figures."""
    stored, _, start = base.partition("+")
    config = RunConfig(
        out="",
        train_data=arguments.train,
        init=arguments.model,
        compute=ComputeConfig(dtype=arguments.dtype, remat=arguments.remat),
        adapter=AdapterConfig(kind="lora", rank=16, alpha=32.0, base=stored, start=start or "zero"),
        optim=OptimConfig(learning_rate=2e-4, warmup_ratio=0.1),
        train=LoopConfig(steps=arguments.steps, batch_rows=arguments.rows),
    )
    mesh = sharding.make_mesh(MeshConfig())
    opened = config.adapter.base_dtype(arguments.dtype)
    loaded = load(arguments.model, mesh=mesh, dtype=opened)
    train_step = config.train_step(loaded.config, arguments.steps, mesh)
    validate = make_validation(train_step.architecture, arguments, mesh)
    data = PackedDataset.open(arguments.train)
    losses, started = [], time.perf_counter()
    with sharding.use_mesh(mesh):
        state = train_step.start(loaded.params, first_batches(data, config, mesh))
        first = validate(train_step.model_params(state))["val_loss"]
        step = train_step.compile_step()
        stream = BatchStream(
            data, arguments.rows, config.train.seed, 0, sharding=sharding.batch_sharding(mesh)
        )
        try:
            for batch, _ in itertools.islice(stream, arguments.steps):
                state, metrics = step(state, batch)
                losses.append(float(metrics["loss"]))
        finally:
            stream.close()
        last = validate(train_step.model_params(state))["val_loss"]
    return {
        "base": base,
        "first_10": sum(losses[:10]) / len(losses[:10]),
        "last_10": sum(losses[-10:]) / len(losses[-10:]),
        "first_val": first,
        "last_val": last,
        "losses": losses,
        "trained_parameters": count(state.params),
        "trained_bytes": bytes_a_device(state.params),
        "frozen_bytes": bytes_a_device(state.frozen),
        "seconds": time.perf_counter() - started,
        "adapter": dataclasses.asdict(config.adapter),
    }


def first_batches(data: PackedDataset, config: RunConfig, mesh: Any) -> Any:
    """Yield the rows that the adapters' start is fitted to."""
    rows = config.train.batch_rows or 1
    stream = BatchStream(data, rows, config.train.seed, 0, sharding=sharding.batch_sharding(mesh))
    try:
        for batch, _ in itertools.islice(stream, -(-config.adapter.start_rows // rows)):
            yield batch
    finally:
        stream.close()


def make_validation(architecture: Architecture, arguments: argparse.Namespace, mesh: Any) -> Any:
    """Return a function from parameters to the figures of the first held-out rows."""
    held_out = PackedDataset.open(arguments.valid)
    rows = [held_out[i] for i in range(min(arguments.valid_rows, len(held_out)))]
    return heldout_evaluator(architecture, rows, mesh, pad_id=held_out.pad_id)


def line(run: dict[str, Any], lora: dict[str, Any]) -> str:
    """Say a run in one line."""
    apart = {key: 100 * (run[key] / lora[key] - 1) for key in ("last_10", "last_val")}
    training = f"{run['first_10']:.4f} -> {run['last_10']:.4f} ({apart['last_10']:+.2f}%)"
    held_out = f"{run['first_val']:.4f} -> {run['last_val']:.4f} ({apart['last_val']:+.2f}%)"
    return (
        f"{run['base']:<12} trained {run['trained_parameters']:,}, base {run['frozen_bytes'] / 1e6:.1f} MB | "
        f"train {training} | held out {held_out} | {run['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
