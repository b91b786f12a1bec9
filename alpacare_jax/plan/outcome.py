"""What the compiler says of a program."""

import dataclasses
from typing import Any

from alpacare_jax.hardware.chips import GIB
from alpacare_jax.plan.costs import StepCosts


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program that fits the devices, bytes per device.

    Args:
        arguments: State and batch.
        temporaries: What exists only during the step.
        outputs: New state and metrics, before aliasing.
        aliased: Outputs that take the place of arguments.
        code: The program itself; 0 if the compiler was stopped before it was made.
        limit: What a program may use.
        host: Bytes kept in the host's memory for this device.
        compile_s: Seconds the compiler took.
        costs: What the step does.
        largest: The largest buffers: ``size`` and the ``shapes`` that lie there one after another.
        host_limit: What a step may keep in the host's memory for this device; None if it is not known.
        kernel: The attention kernel it was compiled with, and why it is that one.
        workspace: Allowance for libraries of GPUs, which the compiler could not ask.
    """

    arguments: int
    temporaries: int
    outputs: int
    aliased: int
    code: int
    limit: int
    host: int
    compile_s: float
    costs: StepCosts
    largest: list[dict[str, str]] = dataclasses.field(default_factory=list)
    host_limit: int | None = None
    kernel: str = ""
    workspace: int = 0

    @property
    def fits(self) -> bool:
        """Whether the hosts hold what lies with them; the devices do, or there would be no such outcome."""
        return self.host_limit is None or self.host <= self.host_limit

    @property
    def needed(self) -> int:
        """Bytes of a device's memory that the step takes."""
        return self.arguments + self.temporaries + self.outputs - self.aliased + self.workspace

    @property
    def headroom(self) -> int:
        """Bytes left over."""
        return self.limit - self.needed

    def __str__(self) -> str:
        sizes = f"{self.needed / GIB:.2f} of {self.limit / GIB:.2f} GiB"
        if self.host and self.host_limit is not None:
            sizes += f", on the host {self.host / GIB:.2f} of {self.host_limit / GIB:.2f}"
        return f"fits: {sizes}" if self.fits else f"does not fit the host's memory: {sizes}"


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A program that does not fit the devices, bytes per device.

    Args:
        needed: What the program would take.
        limit: What it may take.
        compile_s: Seconds until the compiler gave up.
    """

    needed: int
    limit: int
    compile_s: float

    fits = False

    def __str__(self) -> str:
        return f"does not fit: needs {self.needed / GIB:.2f} of {self.limit / GIB:.2f} GiB"


Outcome = Compiled | TooLarge


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain JSON values."""
    return {"fits": outcome.fits, "compiled": isinstance(outcome, Compiled), **dataclasses.asdict(outcome)}
