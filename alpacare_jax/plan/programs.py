"""What the compiler is asked and what it answers: plain values that travel between processes and into a cache."""

import dataclasses
from typing import Any

from alpacare_jax.hardware.chips import GIB
from alpacare_jax.model import LlamaConfig
from alpacare_jax.train import RunConfig
from datagen.configuration import build


@dataclasses.dataclass(frozen=True)
class Program:
    """One training step to compile.

    Args:
        config: The run.
        model: The model's shape.
        topology: Name of the devices.
        rows: Rows of a batch over all devices (B).
        seq_len: Tokens of a row (T).
    """

    config: RunConfig
    model: LlamaConfig
    topology: str
    rows: int
    seq_len: int

    def to_dict(self) -> dict[str, Any]:
        """Return the program as plain JSON values; where a run reads and writes is left out."""
        config = dataclasses.asdict(self.config)
        config |= {
            "out": "",
            "train_data": "",
            "init": "model",
            "architecture": None,
            "validation_data": None,
        }
        config |= {"topology": self.topology, "seq_len": self.seq_len}
        # Set by the rows; how long a run trains and how often it looks up changes no step.
        config["train"] = {"batch_rows": self.rows, "microbatches": self.config.train.microbatches}
        return {
            "config": config,
            "model": self.model.to_dict(),
            "topology": self.topology,
            "rows": self.rows,
            "seq_len": self.seq_len,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Program":
        """Read what :meth:`to_dict` wrote."""
        config = build(RunConfig, ("the program", values["config"]))
        return cls(
            config,
            LlamaConfig.from_dict(values["model"]),
            *(values[k] for k in ("topology", "rows", "seq_len")),
        )

    def replace(self, **changes: Any) -> "Program":
        """Return the program with other rows, configuration or the like."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program that fits, bytes per device.

    Args:
        arguments: State and batch.
        temporaries: What exists only during the step.
        outputs: New state and metrics, before aliasing.
        aliased: Outputs that take the place of arguments.
        code: The program itself; 0 where the compiler was stopped before it was made.
        limit: What a program may use.
        host: Bytes kept in the host's memory for this device.
        compile_s: Seconds the compiler took.
        costs: What the step does, see :mod:`alpacare_jax.plan.costs`; plain JSON values.
        largest: The largest buffers: ``size`` and the ``shapes`` that lie there one after another.
        host_limit: What a step may keep in the host's memory for this device; None where it is not known.
        kernel: The attention kernel it was compiled with, and why it is that one.
        workspace: What is allowed for libraries of GPUs, which the compiler could not ask.
    """

    arguments: int
    temporaries: int
    outputs: int
    aliased: int
    code: int
    limit: int
    host: int
    compile_s: float
    costs: dict[str, Any]
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


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """What the compiler says of a program that does not fit, bytes per device.

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


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain JSON values."""
    return {"fits": outcome.fits, "compiled": isinstance(outcome, Compiled), **dataclasses.asdict(outcome)}


def outcome_from_dict(values: dict[str, Any]) -> Outcome:
    """Read what :func:`outcome_to_dict` wrote."""
    rest = {key: value for key, value in values.items() if key not in ("fits", "compiled")}
    return Compiled(**rest) if values["compiled"] else TooLarge(**rest)
