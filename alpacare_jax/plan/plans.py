"""Plans of one run, and the comparison of the sensible ways to run one batch on one set of devices.

Meshes x microbatches x recomputation x rows through a layer at once are too many to compile. Formulas
(``alpacare_jax.plan.formulas``) put them in order and leave out what cannot fit; the compiler then judges the most
promising, and the choice is made among those it has judged.
"""

import dataclasses
import functools
import itertools
from typing import Any

from alpacare_jax import sharding
from alpacare_jax.errors import UserError
from alpacare_jax.hardware.chips import HOST_RESERVED
from alpacare_jax.model.compute import WHOLE_LAYERS
from alpacare_jax.model.uneven import describe_uneven
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.formulas import Modelled, model_step, state_bytes
from alpacare_jax.plan.outcome import Compiled, Outcome, outcome_values
from alpacare_jax.plan.program import Program
from alpacare_jax.plan.search import Search
from alpacare_jax.plan.templates import render

REMAT = ("full", "attention", "projections", "products", "offload")
"""Policies that are compared."""
MICROBATCHES = (1, 2, 4, 8, 16)
LAYER_ROWS = (None, 4, 2, 1)
"""Rows of a device that go through a layer at once, where a policy computes the layer again; None for all."""
SLACK = 1.25
"""What the formulas find larger than this many times the memory is not compiled."""
HOPE = 1.1
"""Nor what they find slower than this many times the fastest that was compiled."""
TIE = 0.01
"""Plans whose estimates differ by less than this share are equally fast; the one that leaves more memory is chosen."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run's training step needs, and how fast it should be; figures are per device.

    Attributes:
        program: The step: configuration, model, devices (``program.place``), rows and length.
        modelled: What formulas say.
        outcome: What the compiler says; None if it was not asked, or is not installed (GPUs).
        refused: Why there is no program, if the compiler could not make one for another reason than memory.
        search: The search for the most rows, if it was asked for.
    """

    program: Program
    modelled: Modelled
    outcome: Outcome | None = None
    refused: UserError | None = None
    search: Search | None = None

    @property
    def judged(self) -> bool:
        """Whether the compiler was asked."""
        return self.outcome is not None or self.refused is not None

    @property
    def compiled(self) -> Compiled | None:
        """The compiled program; None if there is none."""
        return self.outcome if isinstance(self.outcome, Compiled) else None

    @functools.cached_property
    def speed(self) -> Estimate | Modelled:
        """The estimate from the compiled program if there is one, else what formulas say."""
        return estimate(self.program, self.compiled.costs) if self.compiled else self.modelled

    @property
    def needed(self) -> int:
        """Bytes of a device's memory, by the compiler if it was asked."""
        return (self.outcome or self.modelled).needed

    @property
    def fits(self) -> bool:
        """Whether the step fits the devices' and the hosts' memory, by the compiler if it was asked."""
        return self.refused is None and (self.outcome or self.modelled).fits

    @property
    def step_s(self) -> float:
        """Estimated seconds of a step."""
        return self.speed.step_s

    @property
    def tokens_per_s(self) -> float:
        """Estimated tokens per second of all devices together."""
        return self.program.rows * self.program.seq_len / self.step_s

    @property
    def mfu(self) -> float:
        """Estimated share of the devices' peak that the model's own operations take."""
        return self.modelled.model_flops / self.step_s / self.program.place.chip.bf16_flops

    @property
    def uneven(self) -> str | None:
        """What the mesh does not divide of the model, and what that costs; None if it divides everything."""
        mesh = sharding.abstract_mesh(self.program.config.mesh, self.program.place.devices)
        return describe_uneven(self.program.model, mesh, self.program.seq_len)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        program, place = self.program, self.program.place
        head = {"topology": place.name, "rows": program.rows, "uneven": self.uneven}
        if self.outcome is None:
            speed = {"tokens_per_s": self.tokens_per_s, "mfu": self.mfu, "is": "a model, not measured"}
            return head | {"model": self.modelled.to_dict() | speed}
        host = estimated = None
        if self.compiled:
            count, limit = place.devices_per_host, place.host_limit
            host = {
                "machine": place.host.machine if place.host and place.host_bytes is None else None,
                "devices": count,
                "memory_bytes": place.host_memory,
                "limit_bytes": None if limit is None else limit * count,
                "needed_bytes": self.compiled.host * count,
            }
            speed = {"tokens_per_s": self.tokens_per_s, "mfu": self.mfu}
            estimated = self.speed.to_dict() | speed | {"is": "an estimate, not a measurement"}
        return head | {
            "devices": place.devices,
            "mesh": program.mesh,
            "seq_len": program.seq_len,
            "microbatches": program.microbatches,
            "remat": program.config.compute.remat,
            "parameters": program.model.parameter_count,
            "search": self.search.to_dict() if self.search else None,
            "outcome": outcome_values(self.outcome),
            "host": host,
            "estimate": estimated,
        }

    def row(self) -> dict[str, Any]:
        """Return the figures that a comparison shows, as plain JSON values."""
        program, found = self.program, self.compiled
        received = sum(found.costs.collective_bytes.values()) if found else self.modelled.gathered
        return {
            "mesh": program.mesh,
            "microbatches": program.microbatches,
            "remat": program.config.compute.remat,
            "layer_rows": program.config.compute.layer_rows,
            "compiled": self.outcome is not None,
            "refused": str(self.refused) if self.refused else None,
            "fits": self.fits,
            "needed_bytes": self.needed,
            "host_bytes": (found or self.modelled).host,
            "recomputed_share": self.speed.recomputed,
            "received_bytes": received,
            "step_s": self.step_s,
            "tokens_per_s": self.tokens_per_s,
            "mfu": self.mfu,
            "is": "an estimate from the compiled program" if found else "a model, not measured",
        }

    def __str__(self) -> str:
        template = "modelled.txt" if self.outcome is None else "plan.txt"
        return render(template, plan=self, program=self.program, reserved=HOST_RESERVED)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ways to run a batch: those that fit first and among them the fastest first; compiled ones before others."""

    plans: list[Plan]

    @property
    def choice(self) -> Plan | None:
        """The fastest that fits, among compiled ones if there are any; None if none fits.

        Among those within 1% of it, which no estimate tells apart, the one that leaves the most memory.
        """
        fitting = [plan for plan in self.judged or self.plans if plan.fits]
        fastest = min((plan.step_s for plan in fitting), default=0.0)
        close = [plan for plan in fitting if plan.step_s <= (1 + TIE) * fastest]
        return min(close, key=lambda plan: (plan.needed, plan.step_s), default=None)

    @property
    def judged(self) -> list[Plan]:
        """Those that the compiler was asked about."""
        return [plan for plan in self.plans if plan.judged]

    @property
    def fits(self) -> bool:
        """Whether any of them fits."""
        return self.choice is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {
            "topology": self.plans[0].program.place.name if self.plans else None,
            "ways": [plan.row() for plan in self.plans],
            "choice": self.choice.row() if self.choice else None,
        }

    def __str__(self) -> str:
        return render("comparison.txt", comparison=self, judged=len(self.judged), choice=self.choice)


def meshes(program: Program) -> list[dict[str, int]]:
    """List the sensible meshes: fsdp alone, with tensor, with replicas; ``data`` spans slices always.

    A length split over ``context`` stays as the configuration has it.
    """
    place, context = program.place, max(1, program.config.mesh.context)
    inside, found = place.devices_per_slice // context, []
    for tensor, replicas in ((1, 1), (1, 2), (1, 4), (2, 1), (4, 1), (8, 1)):
        fsdp = inside // tensor // replicas
        if inside % (tensor * replicas) == 0 and (fsdp > 1 or place.devices == 1):
            data = place.slices * replicas
            found.append({"data": data, "fsdp": fsdp, "tensor": tensor, "context": context})
    return found


def list_plans(program: Program, *, this_mesh: bool = False) -> list[Plan]:
    """List every way that the batch divides into, the fastest by the formulas first.

    Args:
        program: The step as configured.
        this_mesh: Keep to the configuration's mesh.
    """
    plans = []
    for mesh in [program.mesh] if this_mesh else meshes(program):
        programs = [
            program.configured(mesh=mesh, microbatches=micro, remat=remat, layer_rows=at_once)
            for micro, remat, at_once in itertools.product(MICROBATCHES, REMAT, LAYER_ROWS)
            if is_sensible(program, mesh["data"] * mesh["fsdp"] * micro, remat, at_once)
        ]
        try:
            parts = state_bytes(programs[0]) if programs else {}
        except UserError:
            continue  # heads or widths that this mesh does not divide
        plans += [Plan(one, model_step(one, parts)) for one in programs]
    return sorted(plans, key=lambda plan: (not plan.fits, plan.step_s, plan.needed))


def is_sensible(program: Program, parts: int, remat: str, at_once: int | None) -> bool:
    """Say whether a batch divides into so many parts, and whether a policy and rows in a layer make sense for them."""
    rows = program.rows // parts
    if program.rows % parts or (remat == "offload" and program.place.chip.platform == "gpu"):
        return False
    splits = remat in WHOLE_LAYERS and not program.config.adapter.dropout
    return at_once is None or (splits and rows > at_once and rows % at_once == 0)


def compare(
    program: Program, compiler: Compiler | None, *, most: int = 10, this_mesh: bool = False
) -> Comparison:
    """Judge the ways to run a batch.

    Args:
        program: The step as configured; its batch is what all of them run.
        compiler: The compiler; None if there is none for these devices, and formulas have to do.
        most: Most compilations.
        this_mesh: Keep to the configuration's mesh, and compile what should be slow there too.
    """
    plans = list_plans(program, this_mesh=this_mesh)
    if compiler is None:
        return Comparison(plans)
    judged: list[Plan] = []
    fastest = float("inf")
    for plan in sorted(plans, key=lambda plan: plan.step_s):
        if plan.needed > SLACK * plan.modelled.limit or len(judged) == most:
            continue
        if plan.step_s > HOPE * fastest and not this_mesh:
            continue
        compiler.tell(f"[{len(judged) + 1} of at most {most}] {plan.program.name}")
        try:
            judged.append(dataclasses.replace(plan, outcome=compiler.compile(plan.program)))
        except UserError as error:  # what it cannot make for another reason than memory is passed over
            judged.append(dataclasses.replace(plan, refused=error))
        if judged[-1].fits:
            fastest = min(fastest, judged[-1].step_s)
    if judged and all(plan.refused for plan in judged):
        raise judged[0].refused  # type: ignore[misc]
    programs = [plan.program for plan in judged]
    judged.sort(key=lambda plan: (not plan.fits, plan.step_s, plan.needed))
    return Comparison(judged + [plan for plan in plans if plan.program not in programs])
