"""The quickstart's stages: each is one ``alpacare`` verb, run as a person would, and skipped once it is done."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alpacare_jax.errors import ServiceError, UserError
from datagen.files import write_json

Say = Callable[[str], None]
PROGRAM = (sys.executable, "-m", "alpacare_jax")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command and the file that shows that it is done.

    Args:
        title: What happens, in a few words.
        arguments: What follows ``alpacare``.
        done: File that exists once the stage is finished; written last by the verb itself.
        devices: Simulated devices the command runs on.
    """

    title: str
    arguments: Sequence[str]
    done: Path
    devices: int = 1

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        flags = f"XLA_FLAGS=--xla_force_host_platform_device_count={self.devices} " * (self.devices > 1)
        return flags + shlex.join(["alpacare", *self.arguments])


@dataclasses.dataclass
class Journal:
    """Which stages have run, how long they took, and with what commands; kept in a file between tries.

    Args:
        path: ``stages.json`` in the quickstart's folder.
        seconds: Of every stage, over all tries.
        commands: Of every stage.
    """

    path: Path
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    commands: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Read the journal of earlier tries, or start one."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, dict(kept["seconds"]), dict(kept["commands"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def note(self, title: str, command: str, seconds: float) -> None:
        """Note a finished stage."""
        self.seconds[title] = self.seconds.get(title, 0.0) + seconds
        self.commands[title] = command
        write_json(self.path, {"seconds": self.seconds, "commands": self.commands})


def environment(devices: int = 1) -> dict[str, str]:
    """Return the environment of a stage: CPU only, so many simulated devices, no settings of other runs."""
    values = {key: value for key, value in os.environ.items() if not key.startswith("ALPACARE_")}
    return values | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def run_stage(stage: Stage, journal: Journal, say: Say, *, again: bool = False) -> None:
    """Run a stage unless it is done, and note how long it took.

    Args:
        stage: What to run.
        journal: Where time and command are noted.
        say: Takes lines for the terminal.
        again: Run it although its file exists, since the verb itself knows what is left to do.

    Raises:
        UserError: The command failed; its own output says why.
    """
    say(f"\n== {stage.title}")
    if stage.done.exists() and not again:
        say(f"   done before: {stage.done}")
        return
    say(f"   $ {stage.command}")
    started = time.monotonic()
    status = subprocess.run([*PROGRAM, *stage.arguments], env=environment(stage.devices)).returncode
    if status or not stage.done.exists():
        raise UserError(
            f"the stage '{stage.title}' failed",
            where=shlex.join(["alpacare", *stage.arguments]),
            found=f"exit status {status}",
            remedy="see its message above; the same command continues from here",
        )
    journal.note(stage.title, stage.command, time.monotonic() - started)


@contextmanager
def serving(model: Path, name: str, slots: int, log: Path, *, timeout_s: float = 180) -> Iterator[str]:
    """Serve a model over HTTP on a free loopback port in a process of its own, while the body runs.

    Yields:
        The address, ending in ``/v1``.

    Raises:
        ServiceError: The server does not come up; the end of its log is shown.
    """
    arguments = ["serve", "--model", str(model), "--name", name, "--port", "0", "--slots", str(slots)]
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [*PROGRAM, *arguments], env=environment(), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _await_address(server, log, timeout_s)
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _await_address(server: subprocess.Popen[bytes], log: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = re.search(r"ready: (http://\S+/v1)", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise ServiceError(
        "the server did not start",
        where=log,
        found=log.read_text(encoding="utf-8")[-2000:].strip() or "no output",
        expected=f"'ready' within {timeout_s:.0f} s",
    )
