"""Real processes started, prefixed, interrupted and ended together."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.launch import local
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
    with pytest.raises(ConfigError, match="at least 1"):
        run_processes(python(""), **arguments)


def starter_of(child: str, processes: int = 2) -> list[str]:
    return python(
        "import signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup\n"
        "from alpacare_jax.launch.local import run_processes\n"
        f"sys.exit(run_processes([sys.executable, '-c', {child!r}], processes={processes}))"
    )


def wait_until(reached: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.02)
    return reached()


DEAF = """
import os, signal, time
for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""
ENDLESS = "while True:\n    print('x' * 100, flush=True)"


def test_no_process_outlives_a_killed_launcher() -> None:
    with subprocess.Popen(starter_of(DEAF), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        assert all(map(is_running, children))
        process.kill()
        assert wait_until(lambda: not any(map(is_running, children)), 10)


def test_a_launcher_that_is_gone_already_starts_nothing() -> None:
    command = [
        sys.executable,
        str(Path(local.__file__).with_name("tied.py")),
        "1",
        *python("print('started')"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "")


def test_a_program_that_is_not_there_is_a_failure_that_says_so() -> None:
    out = io.StringIO()
    assert run_processes(["no-such-program"], processes=1, out=out) == 1
    assert out.getvalue() == "[0] no-such-program cannot be started: No such file or directory\n"


def test_a_run_ends_when_nobody_reads_its_lines() -> None:
    with subprocess.Popen(
        starter_of(ENDLESS), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith("x\n")
        process.stdout.close()
        assert process.wait(timeout=30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == (
            "alpacare launch: the output cannot be written (Broken pipe); all processes are ended\n"
        )


def test_a_process_may_still_save_when_nobody_reads_its_lines(tmp_path: Path) -> None:
    code = f"""
import signal, sys, time
def save(number, frame):
    for _ in range(2000):
        print("x" * 100, flush=True)  # more than a pipe holds
    open({str(tmp_path)!r} + "/saved", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
while True:
    print("step", flush=True)
    time.sleep(0.01)
"""
    with subprocess.Popen(starter_of(code, 1), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 128 + signal.SIGPIPE
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "process 1 was ended by signal 9 (SIGKILL)"),
        ("os.abort()", 134, "process 1 was ended by signal 6 (SIGABRT)"),
        ("sys.exit(3)", 3, "process 1 ended with exit status 3"),
    ],
)
def test_the_process_that_failed_is_named(
    end: str, status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import os, signal, sys, time
if os.environ["ALPACARE_PROCESS_ID"] == "1":
    {end}
time.sleep(600)
"""
    assert run_processes(python(code), processes=3, out=io.StringIO()) == status
    assert capfd.readouterr().err.splitlines() == [f"alpacare launch: {said}"]


def test_a_process_that_does_not_end_when_asked_is_killed_and_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.5)
    code = f"""
import os, sys
if os.environ["ALPACARE_PROCESS_ID"] == "0":
    import time; time.sleep(1); sys.exit(4)
{DEAF}
"""
    assert run_processes(python(code), processes=2, out=io.StringIO()) == 4
    assert capfd.readouterr().err.splitlines() == [
        "alpacare launch: process 0 ended with exit status 4",
        "alpacare launch: process 1 did not end when it was asked to; it is killed",
    ]


def test_a_terminal_that_is_gone_ends_all_as_a_request_does() -> None:
    child = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved", flush=True)))
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(starter_of(child), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(signal.SIGHUP)
        assert sorted(process.stdout.read().splitlines()) == ["[0] saved", "[1] saved"]
        assert process.wait(timeout=30) == 128 + signal.SIGHUP
