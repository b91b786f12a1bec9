"""Attention kernels: time of values and of values with gradients, and memory, of each kernel that runs here.

    python benchmarks/attention.py [--lengths 1024,4096] [--json] [--out benchmarks/results/attention.json]

Rows are packed: examples of random lengths around a mean, then padding. Every kernel gets the same rows, and is first
checked against plain attention in fp32 as a training run would check it. Kernels take turns, so that a machine that
slows down slows all of them; the median of the rounds counts. TFLOP/s count what the rows need and nothing more: two
products of queries with the keys that they see, and five more for the gradients of values with them. Memory is what
the compiler reserves beside arguments and results. Where there is no accelerator, small shapes are run, and the
figures say nothing about accelerators.
"""

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alpacare_jax import sharding
from alpacare_jax.attention import (
    KERNELS,
    Shapes,
    attend,
    check_kernel,
    kernel_context,
    select_kernel,
    unsupported_reason,
)

PACKAGES = ("alpacare-jax", "jax", "jaxlib", "libtpu", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "tokamax")


def main() -> None:
    """Measure and print a table, or JSON."""
    on_cpu = jax.devices()[0].platform == "cpu"
    options = parse_arguments(on_cpu)
    results = {"environment": environment(), "rows": []}
    for length in options.lengths:
        results["rows"] += measure_length(options, length)
    text = json.dumps(results, indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text if options.json else render(results))


def parse_arguments(on_cpu: bool) -> argparse.Namespace:
    """Read the command line; the defaults are small where there is no accelerator."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--kernels",
        type=names,
        default=[],
        help="only these, separated by commas; those that cannot run are named",
    )
    add("--lengths", type=numbers, default=[1024, 4096], help="tokens in a row (default: 1024,4096)")
    add("--tokens", type=int, default=4096 if on_cpu else 32768, help="tokens in a batch")
    add("--heads", type=int, default=4 if on_cpu else 32, help="query heads")
    add("--kv-heads", type=int, default=2 if on_cpu else 8, help="key/value heads")
    add("--head-dim", type=int, default=64 if on_cpu else 128, help="size of a head")
    add("--mean", type=int, default=256, help="mean tokens of an example; 0 for one example a row")
    add("--dtype", default="float32" if on_cpu else "bfloat16", choices=("float32", "bfloat16"))
    add("--rounds", type=int, default=5, help="rounds of every kernel")
    add("--json", action="store_true", help="print JSON")
    add("--out", type=Path, help="also write the JSON to this file")
    return parser.parse_args()


def names(text: str) -> list[str]:
    """Read names separated by commas."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """Read numbers separated by commas."""
    return [int(part) for part in text.split(",")]


def environment() -> dict[str, Any]:
    """Say on what the figures were measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.devices()[0].platform,
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **versions,
    }


def packed_rows(rows: int, length: int, mean: int) -> np.ndarray:
    """Draw segment ids of rows that are filled with examples until none fits; the rest of a row is padding."""
    rng = np.random.default_rng(0)
    ids = np.zeros((rows, length), np.int32)
    for row in range(rows):
        at = number = 0
        while True:
            size = length if not mean else max(8, int(rng.gamma(2.0, mean / 2)))
            if at + size > length:
                break
            number += 1
            ids[row, at : at + size] = number
            at += size
    return ids


def needed_flops(ids: np.ndarray, heads: int, head_dim: int) -> float:
    """Count the operations of the values: two products of each query with every key that it sees."""
    pairs = 0
    for row in ids:
        sizes = np.bincount(row)
        pairs += int((sizes * (sizes + 1) // 2).sum())
    return 4.0 * pairs * heads * head_dim


def measure_length(options: argparse.Namespace, length: int) -> list[dict[str, Any]]:
    """Measure every kernel on rows of one length."""
    shapes = Shapes(options.heads, options.kv_heads, options.head_dim, length, options.dtype)
    here = kernel_context(options.dtype, options.head_dim, length)
    chosen = select_kernel(here).name
    ids = packed_rows(max(1, options.tokens // length), length, options.mean)
    flops = needed_flops(ids, options.heads, options.head_dim)
    found, programs = [], {}
    for kernel in options.kernels or KERNELS:
        row: dict[str, Any] = {
            "length": length,
            "rows": len(ids),
            "segments": int(ids.max()),
            "kernel": kernel,
        }
        row |= {"chosen": kernel == chosen, "against": unsupported_reason(kernel, here)}
        found.append(row)
        if row["against"] is None:
            check = check_kernel(kernel, shapes, sharding.single_device_mesh())
            row |= {"errors": check.errors, "agrees": check.passed}
            programs[kernel] = compile_kernel(kernel, shapes, ids, row)
    times = take_turns(programs, options.rounds)
    for row in found:
        for what, share in (("values", 1.0), ("step", 3.5)):
            seconds = times.get((row["kernel"], what))
            if seconds:
                row[f"{what}_ms"] = 1e3 * statistics.median(seconds)
                row[f"{what}_tflops"] = share * flops / statistics.median(seconds) / 1e12
    return found


def compile_kernel(
    kernel: str, shapes: Shapes, ids: np.ndarray, row: dict[str, Any]
) -> dict[str, Callable[[], jax.Array]]:
    """Compile values, and values with gradients, and note the memory of the latter in ``row``."""
    sizes = (shapes.heads, shapes.kv_heads, shapes.kv_heads)
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [
        jax.random.normal(key, (*ids.shape, size, shapes.head_dim), jnp.dtype(shapes.dtype))
        for key, size in zip(keys, sizes, strict=True)
    ]
    segments = jnp.asarray(ids)

    def values(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k, v, segments, kernel=kernel)

    def step(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        return jax.grad(lambda *qkv: values(*qkv).astype(jnp.float32).sum(), argnums=(0, 1, 2))(q, k, v)

    compiled = {name: jax.jit(f).lower(*arrays).compile() for name, f in (("values", values), ("step", step))}
    memory = compiled["step"].memory_analysis()
    row["memory_mib"] = None if memory is None else memory.temp_size_in_bytes / 2**20
    return {name: lambda f=f: f(*arrays) for name, f in compiled.items()}


def take_turns(programs: dict[str, Any], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Run every program once to warm up, then round after round."""
    jobs = {(kernel, what): run for kernel, parts in programs.items() for what, run in parts.items()}
    times: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for turn in range(rounds + 1):
        for job, run in jobs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                times[job].append(time.perf_counter() - started)
    return times


def render(results: dict[str, Any]) -> str:
    """Lay the results out as a Markdown table."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in results["environment"].items()),
        "",
        "| length | kernel | values, ms | with gradients, ms | TFLOP/s | memory, MiB | largest error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        name = f"**{row['kernel']}**" if row["chosen"] else row["kernel"]
        if row["against"]:
            lines.append(f"| {row['length']:,} | {name} | not measured: {row['against']} | | | | |")
            continue
        error = max(row["errors"].values(), default=float("nan"))
        memory = "not told" if row["memory_mib"] is None else f"{row['memory_mib']:,.0f}"
        lines.append(
            f"| {row['length']:,} | {name} | {row['values_ms']:,.2f} | {row['step_ms']:,.2f} "
            f"| {row['step_tflops']:.3g} | {memory} | {error:.1e}{'' if row['agrees'] else ' DIFFERS'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
