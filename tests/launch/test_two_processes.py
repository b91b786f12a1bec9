"""Two real processes that compute together, over Gloo."""

import re
import subprocess
import sys
from pathlib import Path

PSUM = """
import sys
from alpacare_jax import distributed
assert distributed.initialize_from_environment()
assert distributed.initialize_from_environment(), "a second call joins nothing and still says yes"
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("all"))
numbers = jax.make_array_from_callback((6,), sharding, lambda index: np.arange(1.0, 7.0)[index])
total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(numbers)
print("local", jax.local_device_count(), "all", jax.device_count(), "sum", float(total))
print("primary", distributed.is_primary())
"""


def launch(
    program: list[str], *, processes: int, devices_per_process: int
) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "from alpacare_jax.launch.local import run_processes\n"
        f"sys.exit(run_processes({program!r}, processes={processes},"
        f" devices_per_process={devices_per_process}))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_of_three_devices_add_up_over_all_six() -> None:
    done = launch([sys.executable, "-c", PSUM], processes=2, devices_per_process=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[0] local 3 all 6 sum 21.0" in done.stdout
    assert "[1] local 3 all 6 sum 21.0" in done.stdout
    assert "[0] primary True" in done.stdout
    assert "[1] primary False" in done.stdout


def test_the_command_starts_joined_processes() -> None:
    command = [sys.executable, "-m", "alpacare_jax", "launch", "local", "--processes", "2"]
    done = subprocess.run(
        [*command, "--devices-per-process", "2", "--", "doctor"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        len(re.findall(r"^\[[01]\] platform +cpu, 2 processes, 4 devices$", done.stdout, re.MULTILINE)) == 2
    )


def test_a_process_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    code = "from alpacare_jax import distributed; distributed.initialize_from_environment()"
    environment = {
        "PATH": "/usr/bin:/bin",
        "JAX_PLATFORMS": "cpu",
        "ALPACARE_COORDINATOR": "127.0.0.1:9",
        "ALPACARE_NUM_PROCESSES": "2",
        "ALPACARE_PROCESS_ID": "1",
        "ALPACARE_WAIT_S": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "the processes of this run did not come together" in done.stderr
