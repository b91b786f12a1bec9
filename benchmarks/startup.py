"""How long a training run takes to start: the first time, and again with what the first start kept.

    python benchmarks/startup.py --config configs/train/smollm2-medquad.yaml [key=value ...]

The same run is started in a fresh folder each time, with a cache that is empty at first. A start lasts from the start
of the process until the first step is given to the device: weights, optimiser, data and the compiled step are in
place. The run says so in a line of its own, with the time of every stage; it is ended there.

Beside wall time stands CPU time, of all threads, children included: on a machine that is busy with other work it says
more.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LINE = re.compile(r"started in [\d.]+ s: (.*)")
STAGE = re.compile(r"([a-z ]+?) ([\d.]+)(?: \(([^)]*)\))?(?:,|;|$)")


def main() -> None:
    """Start the run again and again and print how long each start took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a training configuration")
    parser.add_argument("--starts", type=int, default=4, help="starts in all, the first with an empty cache")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for alpacare train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = [
            start(options.config, options.overrides, Path(folder) / f"run-{number}", Path(folder) / "cache")
            for number in range(options.starts)
        ]
    figures = {
        "starts": starts,
        "second_over_first": {name: share(starts, name) for name in ("wall_s", "cpu_s")},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures, indent=2) if options.json else table(figures))


def share(starts: list[dict[str, Any]], name: str) -> float:
    """Return the median of all later starts over the first."""
    return statistics.median(one[name] for one in starts[1:]) / starts[0][name]


def start(config: str, overrides: list[str], out: Path, cache: Path) -> dict[str, Any]:
    """Start a run, end it at its first step, and return the seconds of the start and of its stages."""
    command = [sys.executable, "-m", "alpacare_jax", "train", "--config", config, f"out={out}", *overrides]
    environment = {**os.environ, "ALPACARE_CACHE": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    said, found = [], None
    for line in process.stderr or ():
        said.append(line)
        if found := LINE.search(line):
            break
    wall_s = time.monotonic() - began
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -9
    if found is None:
        sys.exit(f"the run did not start:\n{''.join(said)}")
    before, _, beside = found[1].partition("; meanwhile ")
    stages = {name.strip(): float(seconds) for name, seconds, _ in STAGE.findall(before)}
    return {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "stages": stages,
        "meanwhile": {name.strip(): float(seconds) for name, seconds, _ in STAGE.findall(beside)},
        "programs": [note for *_, note in STAGE.findall(found[1]) if note],
    }


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out as a table, a start a column."""
    starts = figures["starts"]
    rows = [
        ("wall", [one["wall_s"] for one in starts]),
        ("CPU", [one["cpu_s"] for one in starts]),
        *(
            (
                name + (" (meanwhile)" if part == "meanwhile" else ""),
                [one[part].get(name, 0.0) for one in starts],
            )
            for part in ("stages", "meanwhile")
            for name in dict.fromkeys(name for one in starts for name in one[part])
        ),
    ]
    lines = [f"{'seconds':<22}" + "".join(f"{f'start {n}':>10}" for n in range(1, len(starts) + 1))]
    lines += [f"{name:<22}" + "".join(f"{value:>10.1f}" for value in values) for name, values in rows]
    ratio = figures["second_over_first"]
    lines.append(
        f"later starts over the first: {ratio['wall_s']:.2f} of wall, {ratio['cpu_s']:.2f} of CPU time"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
