"""The TPU compiler as the rest of this room sees it: programs in, outcomes out, each compiled once per user."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
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
from alpacare_jax.errors import ConfigError, ServiceError, UserError
from alpacare_jax.plan.chips import GIB
from alpacare_jax.plan.programs import Compiled, Outcome, Program, outcome_from_dict
from alpacare_jax.plan.topology import parse_topology

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a machine's real TPU, if any, stays free for others
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
}
"""What the compiler's process needs beside the environment of this one."""
HIDDEN = ("XLA_FLAGS", "TPU_WORKER_HOSTNAMES", "TPU_TOPOLOGY", "TPU_ACCELERATOR_TYPE")
"""What would lead it astray: flags of other platforms, and the description of a real slice."""
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")
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
        flags: Flags of the TPU compiler, as in ``LIBTPU_INIT_ARGS``; those that a run would set when None.

    Example:
        >>> with Compiler() as compiler:
        ...     outcome = compiler.compile(program)
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
        self._childs_flags = ""
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
            ConfigError: libtpu is missing, or knows no such topology.
            UserError: The program cannot be: its mesh, batch or model do not fit together.
            ServiceError: The compiler's process ended without an answer.
        """
        known = self.remembered(program)
        if known is not None:
            return known
        check_installed()
        self.tell(f"compiling {name or describe(program)}")
        answer = self._ask(json.dumps(program.to_dict()), self._flags_for(program))
        if "refused" in answer:
            raise UserError(**answer["refused"])
        if "failed" in answer:
            failure = self._failure(answer["failed"])
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
        return os.environ.get("LIBTPU_INIT_ARGS", "") if self.flags is None else self.flags

    def _start(self, flags: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key not in HIDDEN}
        environment |= ENVIRONMENT
        if flags:
            environment["LIBTPU_INIT_ARGS"] = flags
        self._dump = tempfile.TemporaryDirectory(prefix="alpacare-plan-", ignore_cleanup_errors=True)
        environment["XLA_FLAGS"] = f"--xla_dump_to={self._dump.name} --xla_dump_hlo_as_text"
        self._log = tempfile.NamedTemporaryFile("w+", prefix="alpacare-plan-", suffix=".log")  # noqa: SIM115
        return subprocess.Popen(
            [sys.executable, "-m", "alpacare_jax.plan.worker", *([] if self.whole else ["--early"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def _ask(self, line: str, flags: str) -> dict[str, Any]:
        if self._child is not None and flags != self._childs_flags:
            self.close()
        if self._child is None:
            self._child, self._childs_flags = self._start(flags), flags
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
        failure = self._failure(f"the process ended with status {child.wait()}")
        self.close()
        raise failure

    def _failure(self, found: str) -> UserError:
        tail = ""
        if self._log is not None:
            self._log.flush()
            text = Path(self._log.name).read_text(encoding="utf-8", errors="replace")
            flag = re.search(r"Unknown command line flag '([^']+)'(?:\. Did you mean: (\S+) ?\?)?", text)
            if flag:
                return unknown_flag(flag[1], flag[2])
            lines = text.splitlines()
            telling = [
                line
                for line in lines
                if re.search(r"Unknown|Check failed|^F\d{4}|Error: (?!unexpected)", line)
            ]
            tail = "\n            ".join([line[:300] for line in (telling or lines)[-5:]])
        return ServiceError(
            "the TPU compiler gave up",
            where="libtpu " + version("libtpu"),
            found=f"{found}\n            {tail}",
            remedy="another mesh, kernel or flag; or another libtpu",
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


def unknown_flag(name: str, near: str | None) -> ConfigError:
    """Say that the TPU compiler has no flag of a name, with the nearest that it knows of."""
    return ConfigError(
        "the TPU compiler knows no such flag",
        where=f"LIBTPU_INIT_ARGS, libtpu {version('libtpu')}",
        found=f"--{name}",
        expected=f"--{near}" if near else None,
        remedy="mend or leave out the flag",
    )


def plan_cache() -> Path:
    """Return the folder in which compiled programs' outcomes are kept for this user."""
    return default_cache() / "plan"


def check_installed() -> None:
    """Check that the TPU compiler is installed.

    Raises:
        ConfigError: It is not; says what to install.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the TPU compiler is not installed",
            found="no package libtpu",
            remedy='pip install "alpacare-jax[plan]" (libtpu alone; it runs on any Linux machine, no TPU needed)',
        )


def version(package: str) -> str:
    """Return an installed package's version, ``missing`` where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def fingerprint(program: Program, flags: str, whole: bool = False) -> str:
    """Return what a compiled program depends on, as one hash: itself, versions, flags and the source of the step."""
    parts = {
        "program": program.to_dict(),
        "versions": {name: version(name) for name in PACKAGES},
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
    names = "worker programs costs products collectives hlo assignment chips topology"
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
