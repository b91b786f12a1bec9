"""How long a step should take: the slower of computing and moving, stretch by stretch, from what its program does.

In each stretch of a step (the loop through the layers forward, the one backward, the loss, the rest) these run beside
one another: the cores, which for every instruction wait for the slower of their products and the device's memory, and
stand still for collectives that the compiler put between other work rather than beside it; the links between chips;
the network between slices; the host's link. A stretch takes as long as the slowest of them, the step as long as all
its stretches. Peaks are not reached in practice; the shares assumed here are :data:`REACHED`.

An estimate, to compare ways of running one model with one another; only a run on the devices measures.
"""

import dataclasses
from typing import Any

from alpacare_jax.hardware.chips import Chip
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.plan.costs import Cost, StepCosts
from alpacare_jax.plan.program import Program

REACHED = {"cores": 0.8, "links": 0.8, "network": 0.7, "host": 0.8}
"""Shares of the published peaks that large transformers reach: what estimates assume."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Seconds of one stretch of a step, per device.

    Args:
        name: Which stretch.
        cores_s: Of products and of the device's memory.
        link_waits_s: That the cores stand still for the links, in collectives beside which nothing runs.
        network_waits_s: The same for the network between slices.
        links_s: Of the links within a slice.
        network_s: Of the network between slices.
        host_s: Of moving to and from the host's memory.
    """

    name: str
    cores_s: float
    link_waits_s: float
    network_waits_s: float
    links_s: float
    network_s: float
    host_s: float

    @classmethod
    def of(cls, name: str, cost: Cost, chip: Chip) -> "Stretch":
        """Turn the counts of a stretch into seconds."""
        return cls(
            name=name,
            cores_s=cost.busy_s / REACHED["cores"],
            link_waits_s=cost.link_wait_s / REACHED["links"],
            network_waits_s=cost.network_wait_s / REACHED["network"],
            links_s=cost.link_s / REACHED["links"],
            network_s=cost.network_s / REACHED["network"],
            host_s=cost.host_bytes / (1e9 * chip.host_gb_s) / REACHED["host"],
        )

    @property
    def waits_s(self) -> float:
        """Seconds that the cores stand still."""
        return self.link_waits_s + self.network_waits_s

    @property
    def seconds(self) -> float:
        """Seconds of the slowest of the four, the others beside it; the cores' waits are theirs."""
        return max(self.cores_s + self.waits_s, self.links_s, self.network_s, self.host_s)

    @property
    def bound(self) -> str:
        """Which of the four is the slowest; for the cores with their waits, what takes most of that time."""
        beside = {"links": self.links_s, "network": self.network_s, "host": self.host_s}
        own = {"cores": self.cores_s, "links": self.link_waits_s, "network": self.network_waits_s}
        times = beside if max(beside.values()) > self.cores_s + self.waits_s else own
        return max(times, key=lambda name: times[name])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step's estimated speed.

    Args:
        step_s: Seconds of a step.
        model_flops: Operations that the model's mathematics asks for, per device and step, nothing recomputed.
        flops: Operations of the program's matrix products and attention kernels, per device and step.
        stretches: The parts of the step.
    """

    step_s: float
    model_flops: float
    flops: float
    stretches: tuple[Stretch, ...]

    @property
    def recomputed(self) -> float:
        """Operations beyond the model's own, as a share of them."""
        return self.flops / self.model_flops - 1

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain JSON values."""
        stretches = [
            dataclasses.asdict(part) | {"waits_s": part.waits_s, "seconds": part.seconds, "bound": part.bound}
            for part in self.stretches
        ]
        return dataclasses.asdict(self) | {
            "recomputed_share": self.recomputed,
            "stretches": stretches,
            "assumed_shares_of_peak": REACHED,
        }


def estimate(program: Program, costs: StepCosts) -> Estimate:
    """Estimate a compiled step's time."""
    chip = program.place.chip
    stretches = tuple(Stretch.of(name, cost, chip) for name, cost in costs.regions.items())
    return Estimate(sum(part.seconds for part in stretches), model_flops(program), costs.flops, stretches)


def model_flops(program: Program) -> float:
    """Return the operations that the model's mathematics asks for, per device and step."""
    per_row = flops_per_row(program.model, program.seq_len, trained=not program.config.adapter.on)
    return per_row * program.rows / program.place.devices
