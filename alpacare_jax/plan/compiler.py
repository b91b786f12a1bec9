"""The compilers as the rest of this room sees them: programs in, outcomes out."""

import dataclasses
import functools
import hashlib
import json
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

import alpacare_jax
from alpacare_jax.cache import remembered
from alpacare_jax.errors import ServiceError, UserError
from alpacare_jax.plan import compilers
from alpacare_jax.plan.outcome import Compiled, Outcome
from alpacare_jax.plan.program import Program

NOT_IN_THE_STEP = re.compile(
    r"(cli|convert|evaluate|generate|launch|quickstart|report)/|(doctor|inference|tokenizer|prompts)\.py"
)
"""Rooms that no training step is made of; a change in them leaves cached outcomes valid."""
TELLING = re.compile(r"Unknown|Check failed|^F\d{4}|Error: (?!unexpected)")
"""Lines of a compiler's log that say why it ended."""
PACKAGES = ("jax", "jaxlib", "flax", "optax")
"""What every outcome depends on, beside the compiler."""
OUTCOMES: pydantic.TypeAdapter[Outcome] = pydantic.TypeAdapter(Outcome)


@dataclasses.dataclass
class Compiler:
    """Compiles programs, each in a process of its own.

    Args:
        cached: Keep the outcomes in the user's cache.
        tell: Takes a line whenever a compilation starts or ends.
        whole: Let the compiler finish. It decides on memory in about a tenth of its time, and is stopped then
            otherwise; what goes wrong when machine code is made stays unseen.

    Example::

        outcome = Compiler().compile(program)
    """

    cached: bool = False
    tell: Callable[[str], None] = lambda _: None
    whole: bool = False

    def compile(self, program: Program, name: str = "") -> Outcome:
        """Compile a program, unless its outcome is in the cache.

        Args:
            program: The training step.
            name: What it is called in progress lines.

        Raises:
            ConfigError: The compiler is missing, or knows no such topology.
            UserError: The program cannot be: its mesh, batch or model do not fit together.
            ServiceError: The compiler's process ended without an answer.
        """

        def answer() -> dict[str, Any]:
            compilers.check_installed(program.place.chip.platform)
            self.tell(f"compiling {name or program}")
            outcome = self._run(program)
            self.tell(f"    {outcome}, {outcome.compile_s:.0f} s")
            return OUTCOMES.dump_python(outcome, mode="json")

        found = (
            remembered("plan", question(program, self.whole), PACKAGES, answer) if self.cached else answer()
        )
        outcome = OUTCOMES.validate_python(found)
        if isinstance(outcome, Compiled):
            return dataclasses.replace(outcome, host_limit=program.place.host_limit)
        return outcome

    def _run(self, program: Program) -> Outcome:
        """Compile in a process of its own, which the compiler may end; it reads its environment when jax starts."""
        platform = program.place.chip.platform
        with tempfile.TemporaryDirectory(prefix="alpacare-plan-", ignore_cleanup_errors=True) as folder:
            answer = Path(folder, "answer")
            Path(folder, "program").write_bytes(pickle.dumps(program))
            # The compiler for GPUs takes seconds, and needs no stopping.
            early = [] if self.whole or platform == "gpu" else ["--early"]
            done = subprocess.run(
                [sys.executable, "-m", "alpacare_jax.plan.worker", folder, *early],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=compilers.environment_of(platform, compilers.flags_of_a_run(platform), folder),
            )
            found = pickle.loads(answer.read_bytes()) if answer.exists() else None
        if found is None:
            raise _failure(platform, done)
        if isinstance(found, UserError):
            raise found
        return found


def _failure(platform: str, done: "subprocess.CompletedProcess[str]") -> UserError:
    lines = done.stdout.splitlines()
    tail = [line[:300] for line in ([line for line in lines if TELLING.search(line)] or lines)[-5:]]
    return ServiceError(
        f"the {platform.upper()} compiler failed",
        where=" ".join(compilers.package_of(platform)),
        found="\n            ".join([f"the process ended with status {done.returncode}", *tail]),
        remedy="try another mesh, attention kernel or compiler flag, or another version of the compiler",
    )


def question(program: Program, whole: bool = False) -> str:
    """Return what an outcome depends on beside packages: program, compiler, its flags and the source of the step."""
    platform = program.place.chip.platform
    parts = {
        "program": program.identity(),
        "compiler": compilers.package_of(platform),
        "memory": program.place.chip.memory_bytes,
        "flags": compilers.flags_of_a_run(platform),
        "whole": whole,
        "source": source_hash(),
    }
    return json.dumps(parts, sort_keys=True)


@functools.cache
def source_hash() -> str:
    """Return the hash of the source files a training step is made of."""
    root = Path(alpacare_jax.__file__).parent
    digest = hashlib.sha256()
    data = [*root.glob("hardware/*.yaml"), *root.glob("plan/templates/*.textproto")]
    for path in sorted([*root.rglob("*.py"), *data]):
        name = path.relative_to(root).as_posix()
        if not NOT_IN_THE_STEP.match(name):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
