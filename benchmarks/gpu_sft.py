"""Fine-tuning on one GPU: this stack and transformers on torch, the same shapes and examples, in one run.

    python benchmarks/gpu_sft.py [--cases 3b-full-4096,...] [--json] [--out benchmarks/results]

Each case is a model's shape with random weights, a method and a row length. Examples of random tokens have the lengths
of instruction data. Both sides compute in bf16 with AdamW; this side packs the examples into rows, the other is tried
with padded batches and with packed rows, with and without gradient checkpointing, and the best of its settings counts,
as the best of this side's does. A setting that runs out of memory is reported as such. Every setting runs in a process
of its own; a first update, which compiles, is not counted.

Useful tokens are those that are not padding. TFLOP/s are the model's operations on the slots that were computed
(``alpacare_jax.model.flops``: forward and backward, causal attention counted once, nothing for recomputation) over the
time. The padded recipe is AlpaCare's: batches of four, gradients accumulated and checkpointed.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sft import ours, torch_side
from sft.rows import Work

CASES = {
    "1b-full-1024": Work("llama3.2-1b", "full", 1024, 32, 6),
    "1b-full-4096": Work("llama3.2-1b", "full", 4096, 8, 6),
    "3b-full-1024": Work("llama3.2-3b", "full", 1024, 32, 6),
    "3b-full-4096": Work("llama3.2-3b", "full", 4096, 8, 6),
    "7b-lora-1024": Work("llama2-7b", "lora", 1024, 32, 4),
    "7b-lora-4096": Work("llama2-7b", "lora", 4096, 8, 4),
    "8b-lora-4096": Work("llama3-8b", "lora", 4096, 8, 4),
    "7b-qlora-1024": Work("llama2-7b", "qlora", 1024, 32, 4),
    "8b-qlora-4096": Work("llama3-8b", "qlora", 4096, 8, 4),
}
SMALL = Work("smollm2-135m", "full", 256, 4, 2, layers=2)
"""What is run where there is no GPU, to see that everything works; its figures say nothing."""

SETTING_TIMEOUT_S = 900


def main() -> None:
    """Run the cases and print a table, or JSON."""
    options = parse_arguments()
    if options.worker:
        print(json.dumps(run_setting(json.loads(options.worker))))
        return
    device = "cuda" if has_gpu() else "cpu"
    if device == "cpu":
        print("no GPU here: a small case, to see that both sides run", file=sys.stderr)
    chosen = (
        {name: CASES[name] for name in options.cases.split(",")} if device == "cuda" else {"small": SMALL}
    )
    results: dict[str, Any] = {"environment": environment(device), "cases": {}}
    for name, work in chosen.items():
        results["cases"][name] = run_case(name, work, device, options.most_settings)
        if options.out:
            write(results, options.out)
    print(json.dumps(results, indent=2) if options.json else table(results))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help=f"any of {', '.join(CASES)}")
    parser.add_argument("--most-settings", type=int, default=24, help="settings tried on a side (default 24)")
    parser.add_argument(
        "--out", type=Path, help="folder for a JSON file named by the device, written as it goes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.cases.split(",") if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return options


def run_case(name: str, work: Work, device: str, most: int) -> dict[str, Any]:
    """Try the settings of both sides and return all figures, the best of each named."""
    tried = {
        "ours": try_settings("ours", work, device, ours.settings(work), most, until_fits=True),
        "transformers": try_settings("torch", work, device, torch_side.settings(work), most),
    }
    print(f"{name}: done", file=sys.stderr)
    padded = [one for one in tried["transformers"] if one["setting"] == str(torch_side.recipe(work))]
    return {
        "work": dataclasses.asdict(work),
        "tried": tried,
        "best": {side: best_of(figures) for side, figures in tried.items()},
        "recipe": padded[0] if padded else None,
    }


def try_settings(
    side: str, work: Work, device: str, settings: Iterable[Any], most: int, until_fits: bool = False
) -> list[dict[str, Any]]:
    """Run settings one after another, each in its own process.

    Args:
        side: "ours" or "torch".
        work: What is trained on.
        device: "cuda" or "cpu".
        settings: What to try.
        most: How many at most.
        until_fits: Of settings that differ in microbatches alone, stop at the first that fits.
    """
    figures: list[dict[str, Any]] = []
    fitting: set[str] = set()
    for setting in settings:
        if len(figures) == most:
            break
        if until_fits and setting.apart_from_parts in fitting:
            continue
        job = {"side": side, "work": dataclasses.asdict(work), "setting": dataclasses.asdict(setting)}
        one = {"setting": str(setting), **start_worker(job | {"device": device})}
        print(f"  {side:<6} {setting}: {said(one)}", file=sys.stderr, flush=True)
        figures.append(one)
        if until_fits and "seconds" in one:
            fitting.add(setting.apart_from_parts)
    return figures


def start_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Run one setting in a process of its own; say why where it gives no figures."""
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SETTING_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"no end within {SETTING_TIMEOUT_S} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    for sign in ("RESOURCE_EXHAUSTED", "OutOfMemoryError", "out of memory", "Out of memory"):
        if sign in done.stderr:
            return {"failed": "out of memory"}
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return {"failed": lines[-1][:300] if lines else f"exit status {done.returncode}"}


def run_setting(job: dict[str, Any]) -> dict[str, Any]:
    """Run one setting in this process."""
    work = Work(**job["work"])
    if job["side"] == "ours":
        dtype = "bfloat16" if job["device"] == "cuda" else "float32"
        figures = ours.train(work, ours.Setting(**job["setting"]), dtype)
    else:
        figures = torch_side.train(work, torch_side.Setting(**job["setting"]), job["device"])
    return figures | rates(work, figures)


def rates(work: Work, figures: dict[str, Any]) -> dict[str, float]:
    """Return useful tokens a second and TFLOP/s on the slots that were computed."""
    from alpacare_jax.model.flops import flops_per_row
    from alpacare_jax.model.shapes import named_shape

    shape = named_shape(work.shape)
    shape = dataclasses.replace(shape, num_hidden_layers=work.layers or shape.num_hidden_layers)
    a_row = flops_per_row(shape, work.seq_len, trained=work.method == "full")
    return {
        "useful_tokens_per_s": figures["useful_tokens"] / figures["seconds"],
        "tflops": figures["slots"] / work.seq_len * a_row / figures["seconds"] / 1e12,
    }


def best_of(figures: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the setting with the most useful tokens a second; None where none ran."""
    ran = [one for one in figures if "seconds" in one]
    return max(ran, key=lambda one: one["useful_tokens_per_s"], default=None)


def said(one: dict[str, Any]) -> str:
    """Say a setting's figures in one line."""
    if "seconds" not in one:
        return one["failed"]
    memory = f", {one['peak_memory_bytes'] / 2**30:.1f} GiB" if one["peak_memory_bytes"] else ""
    return f"{one['useful_tokens_per_s']:,.0f} useful tok/s, {one['tflops']:.0f} TFLOP/s{memory}"


def table(results: dict[str, Any]) -> str:
    """Lay the best settings out as Markdown."""
    lines = [
        "| case | side | useful tok/s | TFLOP/s | peak memory | useful slots | setting |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in results["cases"].items():
        sides: dict[str, Any] = {**case["best"], "padded recipe": case["recipe"]}
        for side, one in sides.items():
            if one is None or "seconds" not in one:
                lines.append(f"| {name} | {side} | none ran | | | | |")
                continue
            peak = one["peak_memory_bytes"]
            lines.append(
                f"| {name} | {side} | {one['useful_tokens_per_s']:,.0f} | {one['tflops']:.0f} | "
                f"{f'{peak / 2**30:.1f} GiB' if peak else 'not told'} | "
                f"{one['useful_tokens'] / one['slots']:.1%} | {one['setting']} |"
            )
        lines += [f"| {name} | ratio of useful tok/s | {ratio} | | | | |" for ratio in ratios(case)]
    lines += ["", ", ".join(f"{name} {value}" for name, value in results["environment"].items())]
    return "\n".join(lines)


def ratios(case: dict[str, Any]) -> list[str]:
    """Say how many times as fast this side is as the other's best and as the padded recipe."""
    mine = case["best"]["ours"]
    others = (("best", case["best"]["transformers"]), ("padded recipe", case["recipe"]))
    speed: Callable[[dict[str, Any]], float] = lambda one: one["useful_tokens_per_s"]  # noqa: E731
    return [
        f"{speed(mine) / speed(other):.2f} to {name}"
        for name, other in others
        if mine is not None and other is not None and "seconds" in other
    ]


def has_gpu() -> bool:
    """Tell whether torch finds a GPU, in a child process that keeps none of its memory."""
    ask = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True).returncode == 0


def environment(device: str) -> dict[str, str]:
    """Say what the figures were measured on and with."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "flash-attn",
    )
    found = {"device": platform.processor() or platform.machine(), "python": platform.python_version()}
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["device"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def write(results: dict[str, Any], folder: Path) -> None:
    """Write what is known so far, named by the device."""
    folder.mkdir(parents=True, exist_ok=True)
    device = results["environment"]["device"].split(",")[0].lower().replace(" ", "-") or "device"
    (folder / f"gpu_sft_{device}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
