"""How many rows a chip takes: this stack's largest batch on four TPU slices, by the real compiler, no TPU needed.

    python benchmarks/tpu_fit.py                      # searches all eight, about a quarter of an hour
    python benchmarks/tpu_fit.py --bounds             # compiles the eight sizes that must fit at least
    python benchmarks/tpu_fit.py --only llama2_7b_v5e16 --json fit.json

Full fine-tuning, fp32 master weights and moments, bf16 compute, packed rows, every layer computed again in the
backward pass, two rows of a chip at a time; nothing offloaded, then with the layers' inputs in the host's memory,
which then bounds the rows as well.
MaxText's columns are what its own ahead-of-time compiler takes on the same slices with the same libtpu (fsdp alone,
full remat, packed, flash attention), with the logits whole and with the vocabulary tiled.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alpacare_jax.hardware.chips import GIB
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.compilers import version
from alpacare_jax.plan.outcome import Compiled
from alpacare_jax.plan.program import make_program
from alpacare_jax.plan.search import search_rows
from alpacare_jax.train import load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "train"

SLICES = (
    ("llama2_7b_v5e16", 18, 20, 22, 32),
    ("llama3_8b_v6e8", 11, 16, 18, 28),
    ("llama2_13b_v5e32", 13, 13, 15, 22),
    ("llama2_70b_v5p128", 12, 12, 14, 20),
)
"""Configuration; MaxText's rows with full logits and with tiled vocabulary; the least that this stack must take with
nothing offloaded and with layer inputs offloaded."""

REMAT = {"nothing offloaded": "full", "layer inputs offloaded": "offload"}

LAYER_ROWS = 2
"""Rows of a chip that go through a layer at once."""


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def fit(compiler: Compiler, name: str, remat: str, least: int, *, bounds: bool, most: int) -> dict[str, Any]:
    """Find the most rows per chip of a configuration, or only whether the least that must fit does."""
    changes = (f"compute.remat={remat}", f"compute.layer_rows={LAYER_ROWS}", "train.microbatches=1")
    config = load_config(CONFIGS / f"{name}.yaml", list(changes))
    program = make_program(config)
    program, place = program.replace(rows=least * program.shards), program.place
    say(f"== {name}, remat {remat}")
    if bounds:
        outcome = compiler.compile(program, f"{least} rows per chip")
        largest, needed = (least if outcome.fits else None), outcome
    else:
        search = search_rows(compiler, program, most=most)
        largest, needed = search.largest, search.best
    return {
        "config": name,
        "topology": place.name,
        "seq_len": program.seq_len,
        "remat": remat,
        "rows_per_chip": largest,
        "at_least": least,
        "needed_gib": needed.needed / GIB if needed else None,
        "host_gib": needed.host / GIB if isinstance(needed, Compiled) else None,
        "host_limit_gib": place.host_limit / GIB if place.host_limit else None,
        "limit_gib": place.chip.memory_bytes / GIB,
        "compile_s": needed.compile_s if needed else None,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bounds", action="store_true", help="compile only the sizes that must fit at least")
    parser.add_argument("--only", nargs="*", help="configurations, all four by default")
    parser.add_argument("--remat", nargs="*", choices=list(REMAT.values()), default=list(REMAT.values()))
    parser.add_argument("--most", type=int, default=8, help="most compilations of a search (8)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    found = []
    compiler = Compiler(cached=True, tell=say)
    for name, _, _, plain, offloaded in SLICES:
        if arguments.only and name not in arguments.only:
            continue
        for remat, least in (("full", plain), ("offload", offloaded)):
            if remat in arguments.remat:
                found.append(fit(compiler, name, remat, least, bounds=arguments.bounds, most=arguments.most))
    print(f"libtpu {version('libtpu')}, jax {version('jax')}\n")
    print(
        "| run | HBM | MaxText, full logits | MaxText, tiled vocabulary | nothing offloaded | layer inputs offloaded |"
    )
    print("|---|---|---|---|---|---|")
    for name, full, tiled, _, _ in SLICES:
        rows = {row["remat"]: row for row in found if row["config"] == name}
        if rows:
            one = next(iter(rows.values()))
            cells = [cell(rows.get(remat), arguments.bounds) for remat in ("full", "offload")]
            print(
                f"| {name} ({one['topology']}), {one['seq_len']:,} | {one['limit_gib']:.2f} GiB | {full} | {tiled} | "
                f"{cells[0]} | {cells[1]} |"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def cell(row: dict[str, Any] | None, bounds: bool) -> str:
    """Return one figure of the table."""
    if row is None:
        return "not run"
    if bounds:
        return f"at least {row['at_least']}" if row["rows_per_chip"] else f"{row['at_least']} does not fit"
    return str(row["rows_per_chip"])


if __name__ == "__main__":
    main()
