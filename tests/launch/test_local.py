"""Real processes started, prefixed, interrupted and ended together."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.launch.local import environment_of, run_processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_process_runs_and_its_lines_carry_its_number() -> None:
    out = io.StringIO()
    code = (
        "import os, sys; print('I am', os.environ['ALPACARE_PROCESS_ID']); print('of three', file=sys.stderr)"
    )
    assert run_processes(python(code), processes=3, out=out) == 0
    assert sorted(out.getvalue().splitlines()) == [
        "[0] I am 0",
        "[0] of three",
        "[1] I am 1",
        "[1] of three",
        "[2] I am 2",
        "[2] of three",
    ]


def test_all_processes_share_one_coordinator_and_have_their_own_devices() -> None:
    base = {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=8", "KEPT": "yes"}
    first, second = (
        environment_of(index, processes=2, devices_per_process=3, port=9999, base=base) for index in (0, 1)
    )
    assert first["ALPACARE_COORDINATOR"] == second["ALPACARE_COORDINATOR"] == "127.0.0.1:9999"
    assert (first["ALPACARE_PROCESS_ID"], second["ALPACARE_PROCESS_ID"]) == ("0", "1")
    assert first["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=3"
    assert first["JAX_PLATFORMS"] == "cpu"
    assert first["KEPT"] == "yes"
    real = environment_of(0, processes=2, devices_per_process=None, port=9999, base={})
    assert "JAX_PLATFORMS" not in real
    assert "XLA_FLAGS" not in real


def test_one_failure_ends_the_others_and_gives_its_status(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
open({str(tmp_path)!r} + "/" + os.environ["ALPACARE_PROCESS_ID"], "w").write(str(os.getpid()))
if os.environ["ALPACARE_PROCESS_ID"] == "1":
    sys.exit(7)
time.sleep(600)
"""
    start = time.monotonic()
    assert run_processes(python(code), processes=3, out=io.StringIO()) == 7
    assert time.monotonic() - start < 30
    for index in (0, 2):
        written = tmp_path / str(index)
        assert not (written.exists() and is_running(int(written.read_text())))


def test_a_process_killed_by_a_signal_is_a_failure() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_processes(python(code), processes=1, out=io.StringIO()) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once_and_lets_it_finish(number: signal.Signals) -> None:
    child = """
import os, signal, sys, time
count = 0
def handler(number, frame):
    global count
    count += 1
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, handler)
print("ready", flush=True)
while not count:
    time.sleep(0.01)
time.sleep(0.5)
print("saved after", count, flush=True)
"""
    starter = f"""
import sys
from alpacare_jax.launch.local import run_processes
sys.exit(run_processes([sys.executable, "-c", {child!r}], processes=2))
"""
    with subprocess.Popen(python(starter), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(number)
        rest = sorted(process.stdout.read().splitlines())
        assert process.wait(timeout=30) == 128 + number
    assert rest == ["[0] saved after 1", "[1] saved after 1"]


@pytest.mark.parametrize("arguments", [{"processes": 0}, {"processes": 1, "devices_per_process": 0}])
def test_counts_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        run_processes(python(""), **arguments)
