"""The compilers as the rest of this room sees them: programs in, outcomes out, each compiled once per user."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import alpacare_jax
from alpacare_jax.cache import default_cache
from alpacare_jax.errors import ServiceError, UserError
from alpacare_jax.hardware.chips import GIB
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.plan import compilers
from alpacare_jax.plan.programs import Compiled, Outcome, Program, outcome_from_dict

NOT_IN_THE_STEP = (
    "cli",
    "convert",
    "evaluate",
    "generate",
    "launch",
    "quickstart",
    "report",
    "tokenizer.py",
    "prompts.py",
)
"""Rooms that no training step is made of; a change in them leaves cached outcomes valid."""


class Compiler:
    """Compiles programs in a child process, one after another, and remembers what came out.

    Args:
        cache: Folder of remembered outcomes; None remembers nothing.
        tell: Takes a line whenever a compilation starts or ends.
        whole: Let the compiler finish. It decides on memory in about a tenth of its time, and is stopped then
            otherwise; what goes wrong when machine code is made stays unseen.
        host_bytes: Memory of one host, where it is not what is published for the machines of a topology.
        flags: Flags of the compiler, as in ``LIBTPU_INIT_ARGS`` or ``XLA_FLAGS``; those that a run would have when
            None.
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        tell: Callable[[str], None] = lambda _: None,
        flags: str | None = None,
        whole: bool = False,
        host_bytes: int | None = None,
    ) -> None:
        self.cache, self.tell, self.whole, self.host_bytes = cache, tell, whole, host_bytes
        self.flags = flags
        self.compiled = 0
        """Programs compiled, not counting remembered ones."""
        self._child: subprocess.Popen[str] | None = None
        self._childs = ("", "")
        self._log: IO[str] | None = None
        self._dump: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def remembered(self, program: Program) -> Outcome | None:
        """Return the outcome of a program that was compiled before, by this user and with these versions."""
        if self.cache is None:
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            answer = json.loads(self._file(program).read_text(encoding="utf-8"))["outcome"]
            return self._outcome(program, answer)
        return None

    def compile(self, program: Program, name: str = "") -> Outcome:
        """Compile a program, unless its outcome is remembered.

        Args:
            program: The training step.
            name: What it is called in progress lines.

        Raises:
            ConfigError: The compiler is missing, or knows no such topology.
            UserError: The program cannot be: its mesh, batch or model do not fit together.
            ServiceError: The compiler's process ended without an answer.
        """
        known = self.remembered(program)
        if known is not None:
            return known
        platform = platform_of(program)
        compilers.check_installed(platform)
        self.tell(f"compiling {name or describe(program)}")
        answer = self._ask(json.dumps(program.to_dict()), platform, self._flags_for(program))
        if "refused" in answer:
            raise UserError(**answer["refused"])
        if "failed" in answer:
            failure = self._failure(platform, answer["failed"])
            self.close()
            raise failure
        self.compiled += 1
        outcome = self._outcome(program, answer)
        self.tell(f"    {summarize(outcome)}, {outcome.compile_s:.0f} s")
        self._remember(program, answer)
        return outcome

    def close(self) -> None:
        """End the compiler's process."""
        if self._child is not None:
            if self._child.stdin:
                with contextlib.suppress(OSError):
                    self._child.stdin.close()
            try:
                self._child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            if self._child.stdout:
                self._child.stdout.close()
            self._child = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._dump is not None:
            self._dump.cleanup()
            self._dump = None

    def _outcome(self, program: Program, answer: dict[str, Any]) -> Outcome:
        outcome = outcome_from_dict(answer)
        if not isinstance(outcome, Compiled):
            return outcome
        place = dataclasses.replace(parse_topology(program.topology), host_bytes=self.host_bytes)
        return dataclasses.replace(outcome, host_limit=place.host_limit)

    def _flags_for(self, program: Program) -> str:
        return compilers.flags_of_a_run(platform_of(program)) if self.flags is None else self.flags

    def _start(self, platform: str, flags: str) -> subprocess.Popen[str]:
        self._dump = tempfile.TemporaryDirectory(prefix="alpacare-plan-", ignore_cleanup_errors=True)
        self._log = tempfile.NamedTemporaryFile("w+", prefix="alpacare-plan-", suffix=".log")  # noqa: SIM115
        # The compiler for GPUs takes seconds, and needs no stopping.
        early = [] if self.whole or platform == "gpu" else ["--early"]
        return subprocess.Popen(
            [sys.executable, "-m", "alpacare_jax.plan.worker", *early],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=compilers.environment_of(platform, flags, self._dump.name),
        )

    def _ask(self, line: str, platform: str, flags: str) -> dict[str, Any]:
        if self._child is not None and (platform, flags) != self._childs:
            self.close()
        if self._child is None:
            self._child, self._childs = self._start(platform, flags), (platform, flags)
        child = self._child
        assert child.stdin
        assert child.stdout
        try:
            print(line, file=child.stdin, flush=True)
            text = child.stdout.readline()
        except OSError:
            text = ""
        if text:
            values = json.loads(text)
            values.pop("ended", None)
            if "refused" not in values and "failed" not in values:
                self.close()  # one program a process: its watcher and its folder are of no use to the next
            return values
        failure = self._failure(platform, f"the process ended with status {child.wait()}")
        self.close()
        raise failure

    def _failure(self, platform: str, found: str) -> UserError:
        tail = ""
        if self._log is not None:
            self._log.flush()
            text = Path(self._log.name).read_text(encoding="utf-8", errors="replace")
            flag = compilers.unknown_flag(text, platform)
            if flag is not None:
                return flag
            lines = text.splitlines()
            telling = [
                line
                for line in lines
                if re.search(r"Unknown|Check failed|^F\d{4}|Error: (?!unexpected)", line)
            ]
            tail = "\n            ".join([line[:300] for line in (telling or lines)[-5:]])
        return ServiceError(
            f"the {platform.upper()} compiler gave up",
            where=compilers.title(platform),
            found=f"{found}\n            {tail}",
            remedy="another mesh, kernel or flag; or another version of the compiler",
        )

    def _file(self, program: Program) -> Path:
        assert self.cache is not None
        return self.cache / f"{fingerprint(program, self._flags_for(program), self.whole)}.json"

    def _remember(self, program: Program, answer: dict[str, Any]) -> None:
        if self.cache is None:
            return
        # A cache that cannot be written is no reason to fail.
        with contextlib.suppress(OSError):
            self.cache.mkdir(parents=True, exist_ok=True)
            file = self._file(program)
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_text(
                json.dumps({"program": program.to_dict(), "outcome": answer}), encoding="utf-8"
            )
            partial.replace(file)


def platform_of(program: Program) -> str:
    """Say whether a program is for TPUs or GPUs."""
    return parse_topology(program.topology).chip.platform


def plan_cache() -> Path:
    """Return the folder in which compiled programs' outcomes are kept for this user."""
    return default_cache() / "plan"


def fingerprint(program: Program, flags: str, whole: bool = False) -> str:
    """Return what a compiled program depends on, as one hash: itself, versions, flags and the source of the step."""
    parts = {
        "program": program.to_dict(),
        "versions": compilers.versions(platform_of(program)),
        "flags": flags,
        "whole": whole,
        "source": source_hash(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def source_hash() -> str:
    """Return the hash of the source files a training step is made of."""
    root = Path(alpacare_jax.__file__).parent
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    # Of this room only what runs in the compiler's process matters.
    names = "worker programs costs products collectives hlo loops workspaces assignment chips topology gpus"
    mine = {f"{name}.py" for name in names.split()}
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0]
        if room not in NOT_IN_THE_STEP and (room != "plan" or path.name in mine):
            yield path


def describe(program: Program) -> str:
    """Name a program in one line."""
    mesh = program.config.mesh
    sizes = " ".join(f"{axis}={size}" for axis, size in vars(mesh).items() if size != 1)
    micro = program.config.train.microbatches
    parts = [
        f"{program.rows} rows of {program.seq_len}",
        sizes or "one device",
        f"remat {program.config.compute.remat}",
    ]
    if micro > 1:
        parts.append(f"{micro} microbatches")
    return f"{', '.join(parts)} for {program.topology}"


def summarize(outcome: Outcome) -> str:
    """Say in a few words whether a program fits."""
    if not isinstance(outcome, Compiled):
        return str(outcome)
    sizes = f"{outcome.needed / GIB:.2f} of {outcome.limit / GIB:.2f} GiB"
    if outcome.host and outcome.host_limit is not None:
        sizes += f", on the host {outcome.host / GIB:.2f} of {outcome.host_limit / GIB:.2f}"
    return f"fits: {sizes}" if outcome.fits else f"does not fit the host's memory: {sizes}"
