"""How long a training run takes to start: the first time, and again with the programs it compiled kept.

    python benchmarks/startup.py --config configs/train/smollm2-medquad.yaml [key=value ...]

The same run is started in a fresh folder each time, with a cache of programs that is empty at first. A start lasts
from the start of the process to the end of the run's first step; the time of an ordinary step, the median of those
that follow, is taken off. Validation is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 3


def main() -> None:
    """Start the run again and again and print how long each start took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a training configuration")
    parser.add_argument("--starts", type=int, default=3, help="starts in all, the first with an empty cache")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for alpacare train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = [
            start(
                options.config, options.overrides, Path(folder) / f"run-{number}", Path(folder) / "programs"
            )
            for number in range(options.starts)
        ]
    figures = {
        "start_s": [one["start_s"] for one in starts],
        "step_s": starts[-1]["step_s"],
        "second_over_first": starts[1]["start_s"] / starts[0]["start_s"],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print("starts: " + ", ".join(f"{seconds:.1f} s" for seconds in figures["start_s"]))
    print(f"second over first: {figures['second_over_first']:.2f}; a step takes {figures['step_s']:.1f} s")


def start(config: str, overrides: list[str], out: Path, programs: Path) -> dict[str, float]:
    """Run a few steps and return the seconds of the start and of an ordinary step."""
    command = [sys.executable, "-m", "alpacare_jax", "train", "--config", config, f"out={out}"]
    command += [f"train.steps={STEPS}", "train.validate_every=0", "validation_data=null", *overrides]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(programs)}
    started, metrics = time.time(), out / "metrics.jsonl"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        first_at = None
        while first_at is None and process.poll() is None:
            time.sleep(0.02)
            if metrics.exists() and metrics.stat().st_size:
                first_at = time.time()
        errors = process.stderr.read() if process.stderr else ""
    if process.returncode or first_at is None:
        sys.exit(f"the run did not start: {errors.strip()}")
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()
    ]
    step_s = statistics.median(row["step_ms"] / 1e3 for row in rows if row["step"] > 1)
    # The first line is written once the second step is under way, in which time a step passes at most.
    return {"start_s": first_at - started - step_s, "step_s": step_s}


if __name__ == "__main__":
    main()
