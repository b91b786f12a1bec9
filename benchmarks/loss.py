"""The tiled loss against one over full logits: time of value and gradients, and memory.

    python benchmarks/loss.py [--shapes 32000x4096x8192,128256x4096x8192] [--json] [--out FILE]

A shape is vocabulary x width x tokens. "full" projects all tokens to the whole vocabulary and lets JAX differentiate
the cross-entropy; "tokens" and "vocabulary" are the two tilings of ``alpacare_jax.loss``. All take turns, so that a
machine that slows down slows all of them; the median of the rounds counts. Memory is what the compiler reserves beside
arguments and results, also where a shape is too large to be run here (``--compile-only``). Where there is no
accelerator small shapes are run, and the figures say nothing about accelerators.
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
import optax

from alpacare_jax.loss import CHUNK_BYTES, cross_entropy_sum

PACKAGES = ("alpacare-jax", "jax", "jaxlib", "libtpu")
WAYS = ("full", "tokens", "vocabulary")


def main() -> None:
    """Measure and print a table, or JSON."""
    on_cpu = jax.devices()[0].platform == "cpu"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    small, large = "8192x512x1024,32000x512x1024", "32000x4096x8192,128256x4096x8192"
    parser.add_argument("--shapes", default=small if on_cpu else large, help="vocabulary x width x tokens")
    parser.add_argument("--dtype", default="float32" if on_cpu else "bfloat16", help="of hidden states")
    parser.add_argument("--param-dtype", default="float32", help="of the output projection")
    parser.add_argument("--chunk-mib", type=int, default=CHUNK_BYTES >> 20, help="MiB of logits at once")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--compile-only", action="store_true", help="memory alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write JSON to a file as well")
    options = parser.parse_args()
    results = {"environment": environment(), "options": vars(options) | {"out": None}, "rows": []}
    for shape in options.shapes.split(","):
        results["rows"] += measure(options, *(int(size) for size in shape.split("x")))
    text = json.dumps(results, indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text if options.json else render(results))


def environment() -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
    }


def full(hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum the cross-entropy over full logits in fp32."""
    logits = jnp.einsum("BTD,DV->BTV", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights)


def measure(options: argparse.Namespace, vocabulary: int, width: int, tokens: int) -> list[dict[str, Any]]:
    """Compile every way at one shape and let them take turns."""
    shapes = (
        jax.ShapeDtypeStruct((8, tokens // 8, width), options.dtype),
        jax.ShapeDtypeStruct((width, vocabulary), options.param_dtype),
        jax.ShapeDtypeStruct((8, tokens // 8), jnp.int32),
        jax.ShapeDtypeStruct((8, tokens // 8), jnp.float32),
    )
    programs = {way: compiled(way, shapes, options.chunk_mib) for way in WAYS}
    rows = [
        {
            "way": way,
            "vocabulary": vocabulary,
            "width": width,
            "tokens": tokens,
            "extra_bytes": program.memory_analysis().temp_size_in_bytes,
            "logits_bytes": 4 * tokens * vocabulary,
        }
        for way, program in programs.items()
    ]
    if not options.compile_only:
        rng = np.random.default_rng(0)
        arguments = (
            jnp.asarray(rng.normal(size=shapes[0].shape), options.dtype),
            jnp.asarray(rng.normal(size=shapes[1].shape) / width**0.5, options.param_dtype),
            jnp.asarray(rng.integers(0, vocabulary, shapes[2].shape), jnp.int32),
            jnp.ones(shapes[3].shape, jnp.float32),
        )
        times = in_turns(programs, arguments, options.rounds)
        for row in rows:
            row["ms"] = 1e3 * statistics.median(times[row["way"]])
            row["time_ratio"] = row["ms"] / (1e3 * statistics.median(times["full"]))
    return rows


def compiled(way: str, shapes: tuple[Any, ...], chunk_mib: int) -> Any:
    """Compile value and gradients of one way."""

    def loss(*arguments: jax.Array) -> jax.Array:
        if way == "full":
            return full(*arguments)
        return cross_entropy_sum(*arguments, tiling=way, chunk_bytes=chunk_mib << 20)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()


def in_turns(
    programs: dict[str, Callable[..., Any]], arguments: tuple[jax.Array, ...], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of every round of every program, the first round left out."""
    times: dict[str, list[float]] = {way: [] for way in programs}
    for number in range(rounds + 1):
        for way, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if number:
                times[way].append(time.perf_counter() - start)
    return times


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    known = results["environment"]
    lines = [f"{known['device']} ({known['platform']}), jax {known['versions']['jax']}", ""]
    lines.append(
        "| vocabulary x width x tokens | way | extra MiB | of the logits | ms | time, full logits = 1 |"
    )
    lines.append("|---|---|---|---|---|---|")
    for row in results["rows"]:
        shape = f"{row['vocabulary']:,} x {row['width']:,} x {row['tokens']:,}"
        share = row["extra_bytes"] / row["logits_bytes"]
        timed = f"{row['ms']:.1f} | {row['time_ratio']:.2f}" if "ms" in row else "not measured | not measured"
        lines.append(
            f"| {shape} | {row['way']} | {row['extra_bytes'] / 2**20:,.0f} | {share:.3f} | {timed} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
