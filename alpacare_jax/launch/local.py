"""Several real processes of one verb on this machine, joined by Gloo over loopback.

What a pod does on a hundred hosts, small enough for a laptop and for the tests: every process runs the same
command, sees its own devices and takes part in the same collectives.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from alpacare_jax import distributed
from alpacare_jax.errors import ConfigError

GRACE_S = 15.0
"""Seconds between asking a process to end and ending it."""

_TIED = Path(__file__).with_name("tied.py")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def free_port() -> int:
    """Find a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_of(
    index: int, *, processes: int, devices_per_process: int | None, port: int, base: Mapping[str, str]
) -> dict[str, str]:
    """Build the environment of one of the processes.

    Args:
        index: Number of the process, from 0.
        processes: Number of processes in the run.
        devices_per_process: Simulated CPU devices each process sees; None leaves the machine's devices alone.
        port: Loopback port of the coordinator.
        base: The environment to start from.

    Returns:
        A new environment.

    Example:
        >>> environment_of(1, processes=2, devices_per_process=4, port=9000, base={})["XLA_FLAGS"]
        '--xla_force_host_platform_device_count=4'
    """
    address = f"127.0.0.1:{port}"
    environment = {
        **base,
        distributed.COORDINATOR: address,
        distributed.NUM_PROCESSES: str(processes),
        distributed.PROCESS_ID: str(index),
        "JAX_COORDINATOR_BIND_ADDRESS": address,  # nobody outside this machine may join
        "PYTHONUNBUFFERED": "1",
    }
    if devices_per_process is not None:
        name = "--xla_force_host_platform_device_count"
        flags = [flag for flag in base.get("XLA_FLAGS", "").split() if not flag.startswith(name + "=")]
        environment["XLA_FLAGS"] = " ".join([*flags, f"{name}={devices_per_process}"])
        environment["JAX_PLATFORMS"] = "cpu"
    return environment


def run_processes(
    command: Sequence[str],
    *,
    processes: int,
    devices_per_process: int | None = 1,
    out: IO[str] | None = None,
    poll_s: float = 0.05,
) -> int:
    """Run one command as several joined processes and wait for all of them.

    Each line of their output appears with the process's number before it. When one fails, a line on standard
    error names it, and the others are ended; Ctrl-C and a request to terminate are passed on to all. When nobody
    reads the output any more, all are ended. On Linux none of them lives on when this process is killed.

    Args:
        command: Program and arguments, the same for every process.
        processes: How many to start.
        devices_per_process: Simulated CPU devices of each; None leaves the machine's devices alone.
        out: Where their lines go; standard output when None.
        poll_s: Seconds between looks at the processes.

    Returns:
        0 where all ended well; else the exit status of the first that failed, 128 + number for a signal (SIGPIPE's
        where nobody reads the output).

    Raises:
        ConfigError: A count below one.
    """
    for name, count in (("--processes", processes), ("--devices-per-process", devices_per_process)):
        if count is not None and count < 1:
            raise ConfigError(
                "the number of processes and devices must be at least 1",
                where=name,
                found=count,
                expected="1 or more",
            )
    run, port = _Run(out or sys.stdout), free_port()
    # Ctrl-C and a request to terminate reach the processes as they are; a verb may use them to save its work.
    # A terminal that is gone asks the same, unless the user has said by nohup that it shall not.
    passed_on = [number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, run.pass_on) for number in passed_on}
    environment = functools.partial(
        environment_of,
        processes=processes,
        devices_per_process=devices_per_process,
        port=port,
        base=os.environ,
    )
    try:
        for index in range(processes):
            run.start(index, command, environment(index))
        return run.wait(poll_s)
    finally:
        run.end()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """The processes of one run, the threads that copy their lines, and the signal passed on to them."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out
        self.lock = threading.Lock()
        self.children: list[subprocess.Popen[str]] = []
        self.readers: list[threading.Thread] = []
        self.unread = False
        self.stopped_by = 0
        self.deadline = float("inf")

    def start(self, index: int, command: Sequence[str], environment: dict[str, str]) -> None:
        """Start one process in a session of its own: the terminal's Ctrl-C reaches it once, through us."""
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
        )
        reader = threading.Thread(target=self._copy_lines, args=(child, f"[{index}] "), daemon=True)
        reader.start()
        self.children.append(child)
        self.readers.append(reader)

    def wait(self, poll_s: float) -> int:
        """Wait until all ended well or one failed; return the exit status of the run."""
        while time.monotonic() < self.deadline:
            statuses = [child.poll() for child in self.children]
            failed = {index: status for index, status in enumerate(statuses) if status}
            if self.stopped_by:
                if None not in statuses:
                    break
            elif failed:
                for index, status in failed.items():
                    _say(f"process {index} {_ending(status)}")
                first = min(failed.values())  # a signal's number is negative: it did not fail by itself
                return first if first > 0 else 128 - first
            elif self.unread:
                return 128 + signal.SIGPIPE
            elif all(status == 0 for status in statuses):
                return 0
            time.sleep(poll_s)
        return 128 + self.stopped_by

    def pass_on(self, number: int, frame: object = None) -> None:
        """Send a signal to every process still running and to what it started; after this the run ends."""
        self.stopped_by = self.stopped_by or number
        self.deadline = min(self.deadline, time.monotonic() + GRACE_S)
        self._send(signal.SIGTERM if number == signal.SIGHUP else number)

    def end(self) -> None:
        """End what still runs, first asked and then made to, and take in its last lines."""
        self._send(signal.SIGTERM)
        deadline = min(self.deadline, time.monotonic() + GRACE_S)
        while any(child.poll() is None for child in self.children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for index, child in enumerate(self.children):
            if child.poll() is None:
                _say(f"process {index} did not end when it was asked to; it is killed")
        self._send(signal.SIGKILL)
        for child, reader in zip(self.children, self.readers, strict=True):
            child.wait()
            reader.join(timeout=5)

    def _send(self, number: int) -> None:
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)

    def _copy_lines(self, child: subprocess.Popen[str], prefix: str) -> None:
        """Copy a process's lines; where they cannot be written, still read them, so that it can end."""
        assert child.stdout is not None
        for line in child.stdout:
            with self.lock:
                if self.unread:
                    continue
                try:
                    self.out.write(prefix + line.rstrip("\n") + "\n")
                    self.out.flush()
                except OSError as error:
                    self.unread = True
                    _say(f"the output cannot be written ({error.strerror}); all processes are ended")
                    _discard(self.out)


def _ending(status: int) -> str:
    """Say how a process ended.

    Example:
        >>> _ending(-9), _ending(2)
        ('was ended by signal 9 (SIGKILL)', 'ended with exit status 2')
    """
    if status > 0:
        return f"ended with exit status {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by signal {-status} ({names.get(-status, 'unnamed')})"


def _say(line: str) -> None:
    """Write a line of the launcher's own, which has no number before it."""
    try:
        print(f"alpacare launch: {line}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: IO[str]) -> None:
    """Let a stream that cannot be written lead nowhere; else Python's own last flush would fail."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
