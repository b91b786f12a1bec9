"""The sensible ways to run one batch on one set of devices, and the fastest of them that fits.

Meshes x microbatches x recomputation x rows through a layer at once are too many to compile. Formulas
(:mod:`alpacare_jax.plan.model`) put them in order and leave out what cannot fit; the compiler then judges the most
promising, and the choice is made among those it has judged.
"""

import dataclasses
from typing import Any

from alpacare_jax.errors import UserError
from alpacare_jax.hardware.topology import Topology
from alpacare_jax.model.compute import WHOLE_LAYERS
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.model import Modelled, model_step, state_bytes
from alpacare_jax.plan.programs import Compiled, Outcome, Program

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
        outcome: What the compiler says; None where it was not asked.
        speed: The estimate from the compiled program; None where there is none.
        refused: Why there is no program, where the compiler could not make one for another reason than memory.
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
        """Estimated seconds of a step, from the compiled program where there is one."""
        return self.speed.step_s if self.speed else self.modelled.step_s

    @property
    def fits(self) -> bool:
        """Whether it fits, by the compiler where it was asked."""
        if self.refused is not None:
            return False
        return self.outcome.fits if self.outcome is not None else self.modelled.fits

    def name(self, place: Topology) -> str:
        """Say in a few words which way it is."""
        compute, micro = self.program.config.compute, self.program.config.train.microbatches
        at_once = f", {compute.layer_rows} rows in a layer" if compute.layer_rows else ""
        return f"{mesh_name(self.program, place)}, {micro} x, remat {compute.remat}{at_once}"

    def to_dict(self, place: Topology) -> dict[str, Any]:
        """Return the way as plain JSON values."""
        outcome, speed = self.outcome, self.speed
        compiled = outcome if isinstance(outcome, Compiled) else None
        found = compiled.costs["collective_bytes"] if compiled else {}
        return {
            "mesh": dict(
                zip(("data", "fsdp", "tensor", "context"), _sizes(self.program, place), strict=True)
            ),
            "microbatches": self.program.config.train.microbatches,
            "remat": self.program.config.compute.remat,
            "layer_rows": self.program.config.compute.layer_rows,
            "compiled": outcome is not None,
            "refused": str(self.refused) if self.refused else None,
            "fits": self.fits,
            "needed_bytes": needed(self),
            "host_bytes": compiled.host if compiled else self.modelled.host,
            "recomputed_share": speed.recomputed if speed else self.modelled.recomputed,
            "received_bytes": sum(found.values()) if compiled else self.modelled.gathered,
            "step_s": self.step_s,
            "tokens_per_s": self.program.rows * self.program.seq_len / self.step_s,
            "mfu": self.modelled.model_flops / self.step_s / place.chip.bf16_flops,
            "is": "an estimate from the compiled program" if speed else "a model, not measured",
        }


def needed(way: Way) -> int:
    """Return bytes per device, by the compiler where it was asked."""
    if isinstance(way.outcome, Compiled):
        return way.outcome.needed
    return way.outcome.needed if way.outcome is not None else way.modelled.needed


def _sizes(program: Program, place: Topology) -> tuple[int, int, int, int]:
    return program.config.mesh.shape(place.devices)


def mesh_name(program: Program, place: Topology) -> str:
    """Name a mesh by its sizes: ``fsdp 8 x tensor 2``."""
    names = ("data", "fsdp", "tensor", "context")
    parts = [f"{name} {size}" for name, size in zip(names, _sizes(program, place), strict=True) if size > 1]
    return " x ".join(parts) or "one device"


def meshes(program: Program, place: Topology) -> list[dict[str, int]]:
    """List the sensible meshes: fsdp alone, with tensor, with replicas; ``data`` spans slices always.

    A length split over ``context`` stays as the configuration has it.
    """
    context = program.config.mesh.context if program.config.mesh.context > 0 else 1
    found = []
    inside = place.devices_per_slice // context
    for tensor in (1, 2, 4, 8):
        for replicas in (1, 2, 4):
            if inside % (tensor * replicas) or (tensor > 1 and replicas > 1):
                continue
            sizes = {
                "data": place.slices * replicas,
                "fsdp": inside // tensor // replicas,
                "tensor": tensor,
                "context": context,
            }
            if sizes["fsdp"] > 1 or place.devices == 1:
                found.append(sizes)
    return found


def list_ways(program: Program, place: Topology, *, this_mesh: bool = False) -> list[Way]:
    """List every way that the batch divides into, the fastest by the formulas first.

    Args:
        program: The step as configured.
        place: The devices.
        this_mesh: Keep to the configuration's mesh.
    """
    ways = []
    here = dict(zip(("data", "fsdp", "tensor", "context"), _sizes(program, place), strict=True))
    for sizes in [here] if this_mesh else meshes(program, place):
        on_mesh = [
            _changed(program, place, sizes, micro, remat, at_once)
            for micro in MICROBATCHES
            for remat in REMAT
            for at_once in LAYER_ROWS
        ]
        programs = [changed for changed in on_mesh if changed is not None]
        try:
            parts = state_bytes(programs[0], place) if programs else {}
        except UserError:
            continue  # heads or widths that this mesh does not divide
        ways += [Way(changed, model_step(changed, place, parts)) for changed in programs]
    return sorted(ways, key=lambda way: (not way.modelled.fits, way.modelled.step_s, way.modelled.needed))


def _changed(
    program: Program, place: Topology, sizes: dict[str, int], micro: int, remat: str, at_once: int | None
) -> Program | None:
    """Return the program run another way, None where the batch does not divide or the way makes no sense."""
    shards = sizes["data"] * sizes["fsdp"]
    if program.rows % (shards * micro):
        return None
    if remat == "offload" and place.chip.platform == "gpu":
        return None
    rows = program.rows // (shards * micro)
    if at_once is not None and (
        remat not in WHOLE_LAYERS or rows % at_once or rows <= at_once or program.config.adapter.dropout
    ):
        return None
    config = program.config
    return program.replace(
        config=dataclasses.replace(
            config,
            mesh=dataclasses.replace(config.mesh, **sizes),
            compute=dataclasses.replace(config.compute, remat=remat, layer_rows=at_once),
            train=dataclasses.replace(config.train, microbatches=micro),
        )
    )


def compare(
    program: Program, place: Topology, compiler: Compiler | None, *, most: int, this_mesh: bool = False
) -> list[Way]:
    """Judge the ways to run a batch.

    Args:
        program: The step as configured; its batch is what all ways run.
        place: The devices.
        compiler: The compiler; None where there is none for these devices, and formulas have to do.
        most: Most compilations.
        this_mesh: Keep to the configuration's mesh, and compile what should be slow there too.

    Returns:
        The ways, those that fit first and among them the fastest first; compiled ones before others.
    """
    ways = list_ways(program, place, this_mesh=this_mesh)
    if compiler is None:
        return ways
    promising = [way for way in ways if way.modelled.needed <= SLACK * way.modelled.limit]
    promising.sort(key=lambda way: way.modelled.step_s)
    judged: list[Way] = []
    fastest = float("inf")
    for way in promising:
        if len(judged) == most:
            break
        if way.modelled.step_s > HOPE * fastest and not this_mesh:
            continue
        compiler.tell(f"[{len(judged) + 1} of at most {most}] {way.name(place)}")
        found = judge(compiler, place, way)
        judged.append(found)
        if found.fits:
            fastest = min(fastest, found.step_s)
    refusals = [way.refused for way in judged if way.refused is not None]
    if refusals and len(refusals) == len(judged):
        raise refusals[0]
    rest = [way for way in ways if not any(way.program == found.program for found in judged)]
    judged.sort(key=lambda way: (not way.fits, way.step_s, needed(way)))
    return judged + rest


def judge(compiler: Compiler, place: Topology, way: Way) -> Way:
    """Ask the compiler about a way; what it cannot make for another reason than memory is noted and passed over."""
    try:
        outcome = compiler.compile(way.program)
    except UserError as error:
        return dataclasses.replace(way, refused=error)
    speed = estimate(way.program, place, outcome) if isinstance(outcome, Compiled) else None
    return dataclasses.replace(way, outcome=outcome, speed=speed)


def choose(ways: list[Way]) -> Way | None:
    """Return the fastest way that fits, among compiled ones where there are any; None where none fits.

    Among those within 1% of it, which no estimate tells apart, the one that leaves the most memory.
    """
    judged = [way for way in ways if way.judged] or ways
    fitting = [way for way in judged if way.fits]
    fastest = min((way.step_s for way in fitting), default=0.0)
    close = [way for way in fitting if way.step_s <= (1 + TIE) * fastest]
    return min(close, key=lambda way: (needed(way), way.step_s), default=None)
