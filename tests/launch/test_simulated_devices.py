"""One process with several simulated devices: none of them may wait for ever for a thread of XLA's."""

import json
import os
import subprocess
import sys

import pytest

# On a large machine XLA has threads enough by itself.
PROGRAM = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from alpacare_jax.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.smollm2
def test_three_devices_on_two_cores_never_wait_for_a_thread(smollm2_ckpt, tmp_path):
    rows = [
        {
            "instruction": f"Explain what {word} is.",
            "input": "",
            "output": f"A short text about {word}. " * 30,
        }
        for word in ("anaemia", "asthma", "a fever", "insulin")
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "NPROC"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
    arguments = [
        "evaluate",
        "--model",
        smollm2_ckpt,
        "--data",
        tmp_path / "data.jsonl",
        "--out",
        tmp_path / "out",
    ]
    options = ["--mesh", "tensor=3", "--seq-len", "512", "--max-tokens", "2"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments), *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["loss"] < 4
