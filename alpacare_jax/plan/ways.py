"""The sensible ways to run one batch on one set of devices, and the fastest of them that fits.

Meshes x microbatches x recomputation x rows through a layer at once are too many to compile. Formulas
(:mod:`alpacare_jax.plan.formulas`) put them in order and leave out what cannot fit; the compiler then judges the most
promising, and the choice is made among those it has judged.
"""

import dataclasses
import itertools
from typing import Any

from alpacare_jax.errors import UserError
from alpacare_jax.model.compute import WHOLE_LAYERS
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.formulas import Modelled, model_step, state_bytes
from alpacare_jax.plan.outcome import Compiled, Outcome
from alpacare_jax.plan.program import Program

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
"""Ways whose estimates differ by less than this share are equally fast; the one that leaves more memory is chosen."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run the batch.

    Args:
        program: The step.
        modelled: What the formulas say.
        outcome: What the compiler says; None if it was not asked.
        speed: The estimate from the compiled program; None if there is none.
        refused: Why there is no program, if the compiler could not make one for another reason than memory.
    """

    program: Program
    modelled: Modelled
    outcome: Outcome | None = None
    speed: Estimate | None = None
    refused: UserError | None = None

    @property
    def judged(self) -> bool:
        """Whether the compiler was asked."""
        return self.outcome is not None or self.refused is not None

    @property
    def step_s(self) -> float:
        """Estimated seconds of a step, from the compiled program if there is one."""
        return (self.speed or self.modelled).step_s

    @property
    def needed(self) -> int:
        """Bytes per device, by the compiler if it was asked."""
        return (self.outcome or self.modelled).needed

    @property
    def fits(self) -> bool:
        """Whether it fits, by the compiler if it was asked."""
        return self.refused is None and (self.outcome or self.modelled).fits

    @property
    def name(self) -> str:
        """Mesh, microbatches, policy and rows in a layer, in a few words."""
        compute = self.program.config.compute
        at_once = f", {compute.layer_rows} rows in a layer" if compute.layer_rows else ""
        return f"{self.program.mesh_name}, {self.program.microbatches} x, remat {compute.remat}{at_once}"

    def to_dict(self) -> dict[str, Any]:
        """Return the way as plain JSON values."""
        program, compiled = self.program, self.outcome if isinstance(self.outcome, Compiled) else None
        received = sum(compiled.costs.collective_bytes.values()) if compiled else self.modelled.gathered
        return {
            "mesh": program.mesh,
            "microbatches": program.microbatches,
            "remat": program.config.compute.remat,
            "layer_rows": program.config.compute.layer_rows,
            "compiled": self.outcome is not None,
            "refused": str(self.refused) if self.refused else None,
            "fits": self.fits,
            "needed_bytes": self.needed,
            "host_bytes": (compiled or self.modelled).host,
            "recomputed_share": (self.speed or self.modelled).recomputed,
            "received_bytes": received,
            "step_s": self.step_s,
            "tokens_per_s": program.rows * program.seq_len / self.step_s,
            "mfu": self.modelled.model_flops / self.step_s / program.place.chip.bf16_flops,
            "is": "an estimate from the compiled program" if self.speed else "a model, not measured",
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The ways to run a batch: those that fit first and among them the fastest first; compiled ones before others."""

    ways: list[Way]

    @property
    def choice(self) -> Way | None:
        """The fastest way that fits, among compiled ones if there are any; None if none fits.

        Among those within 1% of it, which no estimate tells apart, the one that leaves the most memory.
        """
        judged = [way for way in self.ways if way.judged] or self.ways
        fitting = [way for way in judged if way.fits]
        fastest = min((way.step_s for way in fitting), default=0.0)
        close = [way for way in fitting if way.step_s <= (1 + TIE) * fastest]
        return min(close, key=lambda way: (way.needed, way.step_s), default=None)

    @property
    def fits(self) -> bool:
        """Whether any way fits."""
        return self.choice is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {
            "topology": self.ways[0].program.place.name if self.ways else None,
            "ways": [way.to_dict() for way in self.ways],
            "choice": self.choice.to_dict() if self.choice else None,
        }

    def __str__(self) -> str:
        from alpacare_jax.plan.templates import render

        judged = sum(way.judged for way in self.ways)
        return render("comparison.txt", ways=self.ways, judged=judged, choice=self.choice)


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


def list_ways(program: Program, *, this_mesh: bool = False) -> list[Way]:
    """List every way that the batch divides into, the fastest by the formulas first.

    Args:
        program: The step as configured.
        this_mesh: Keep to the configuration's mesh.
    """
    ways = []
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
        ways += [Way(one, model_step(one, parts)) for one in programs]
    return sorted(ways, key=lambda way: (not way.fits, way.step_s, way.needed))


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
        program: The step as configured; its batch is what all ways run.
        compiler: The compiler; None if there is none for these devices, and formulas have to do.
        most: Most compilations.
        this_mesh: Keep to the configuration's mesh, and compile what should be slow there too.
    """
    ways = list_ways(program, this_mesh=this_mesh)
    if compiler is None:
        return Comparison(ways)
    promising = [way for way in ways if way.needed <= SLACK * way.modelled.limit]
    judged: dict[Program, Way] = {}
    fastest = float("inf")
    for way in sorted(promising, key=lambda way: way.step_s):
        if len(judged) == most:
            break
        if way.step_s > HOPE * fastest and not this_mesh:
            continue
        compiler.tell(f"[{len(judged) + 1} of at most {most}] {way.name}")
        found = judged[way.program] = judge(compiler, way)
        if found.fits:
            fastest = min(fastest, found.step_s)
    refusals = [way.refused for way in judged.values() if way.refused is not None]
    if refusals and len(refusals) == len(judged):
        raise refusals[0]
    rest = [way for way in ways if way.program not in judged]
    return Comparison(sorted(judged.values(), key=lambda way: (not way.fits, way.step_s, way.needed)) + rest)


def judge(compiler: Compiler, way: Way) -> Way:
    """Ask the compiler about a way; what it cannot make for another reason than memory is noted and passed over."""
    try:
        outcome = compiler.compile(way.program)
    except UserError as error:
        return dataclasses.replace(way, refused=error)
    speed = estimate(way.program, outcome.costs) if isinstance(outcome, Compiled) else None
    return dataclasses.replace(way, outcome=outcome, speed=speed)
