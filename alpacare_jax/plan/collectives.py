"""What devices send one another: the bytes of a collective, the mesh axes it runs along, the seconds it takes."""

import dataclasses
import math
import re

import numpy as np

from alpacare_jax.hardware.chips import Chip
from alpacare_jax.plan.hlo import Instruction, Module

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
STARTS = "async-collective-start"
"""Name of the fusions that start a collective; later ones carry it on, piece by piece, beside their own work."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the devices of a mesh stand.

    Args:
        coordinates: Of each device in the order of the mesh, within its slice.
        slices: The slice (of GPUs the node) of each.
        sizes: Sizes of the mesh axes, by name.
        extent: Chips along each dimension of a slice.
    """

    coordinates: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]
    sizes: dict[str, int]
    extent: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What one line makes each device receive, once.

    Args:
        name: Kind of collective, the mesh axes along which its groups run, and whether it crosses slices:
            ``all-gather over fsdp x tensor``.
        received: Bytes.
        link_s: Seconds on the links within a slice.
        network_s: Seconds on the network between slices.
        waited: Whether the cores stand still meanwhile, rather than go on with other lines.
    """

    name: str
    received: float
    link_s: float
    network_s: float
    waited: bool


def is_collective(line: Instruction) -> bool:
    """Say whether a line is a collective, whole or one end of it."""
    return line.opcode.removesuffix("-start").removesuffix("-done") in KINDS


class Collectives:
    """Reads the collectives of one program.

    Args:
        module: The program.
        places: Where the devices stand.
        chip: What they are.
    """

    def __init__(self, module: Module, places: Places, chip: Chip) -> None:
        self.places, self.chip = places, chip
        lines = [line for computation in module.computations.values() for line in computation]
        self._started = {
            channel_of(part) for line in lines if line.name.startswith(STARTS) for part in inside(line)
        }

    def of(self, line: Instruction) -> list[Transfer]:
        """Return what a line starts or does: nothing, or one collective, or those of a fusion.

        A collective that runs beside other work is named where it starts, where it ends, and in every fusion that
        carries it on; it counts where it starts.
        """
        if is_collective(line):
            return [] if line.opcode.endswith("-done") else [self._whole(line)]
        if line.opcode == "send" and "megascale" in line.rest:
            return [self._across_slices(line)]
        if line.opcode == "async-start" and self.chip.platform == "gpu":
            waited = awaited_at_once(line)
            return [self._whole(part, waited=waited) for part in line.called() or () if is_collective(part)]
        if line.opcode != "fusion":
            return []
        starts = line.name.startswith(STARTS)
        # The compiler writes a reduce-scatter as a sum of which a slice is kept.
        scatters = line.attribute("calls").startswith("all-reduce-scatter")
        return [
            self._whole(part, waited=not starts, scatters=scatters)
            for part in inside(line)
            if not part.opcode.endswith("-done") and (starts or channel_of(part) not in self._started)
        ]

    def _whole(self, line: Instruction, *, waited: bool = True, scatters: bool = False) -> Transfer:
        kind = line.opcode.removesuffix("-start")
        group = group_of(line.rest) or list(range(len(self.places.coordinates)))
        received = received_bytes(kind, line, len(group))
        if scatters and kind == "all-reduce":
            kind, received = "reduce-scatter", received / 2
        link_s, network_s = self._seconds(kind, group, received)
        waited = waited and not line.opcode.endswith("-start")
        axes = " x ".join(self._axes(group)) or "one device"
        return Transfer(f"{kind} over {axes}", received, link_s, network_s, waited)

    def _across_slices(self, line: Instruction) -> Transfer:
        """Return what a device exchanges with its like in other slices, over the hosts' network."""
        found = re.search(r'_xla_megascale_transfer_type="([A-Z_]+)"', line.rest)
        kind = found[1].lower().replace("_", "-") if found else "transfer"
        slices = len(set(self.places.slices))
        received = line.array.bytes * (slices - 1) / slices * (2 if kind == "all-reduce" else 1)
        axes = " x ".join(self._axes([0, len(self.places.slices) - 1])[:1]) or "slices"
        seconds = received / (1e9 * self.chip.network_gb_s)
        return Transfer(f"{kind} over {axes}, between slices", received, 0.0, seconds, waited=False)

    def _axes(self, group: list[int]) -> list[str]:
        """Return the mesh axes along which a group's devices differ."""
        positions = np.unravel_index(group, tuple(self.places.sizes.values()))
        return [name for name, at in zip(self.places.sizes, positions, strict=True) if len(set(at)) > 1]

    def _seconds(self, kind: str, group: list[int], received: float) -> tuple[float, float]:
        """Return seconds on the links within a slice, and on the network between slices."""
        link, network = 1e9 * self.chip.link_gb_s, 1e9 * self.chip.network_gb_s
        slices = [self.places.slices[member] for member in group]
        if len(group) < 2:
            return 0.0, 0.0
        if self.chip.platform == "gpu":
            # A ring through nodes: over the links of each, and over the network by all GPUs of a node.
            together = slices.count(slices[0])
            across = len(set(slices)) > 1
            return received / link * (together > 1), received / together / network * across
        if len(set(slices)) > 1:
            return 0.0, received / network
        here = [self.places.coordinates[member] for member in group]
        if kind == "collective-permute":
            hops = sum(self._distance(at, a, b) for at, (a, b) in enumerate(zip(*here[:2], strict=True)))
            # Permutes come in pairs, one each way around a ring; either has links of its own.
            return received * max(1, hops) / (2 * link), 0.0
        links = 0
        for at, extent in enumerate(self.places.extent):
            spanned = len({place[at] for place in here})
            links += (2 if spanned == extent and self._wraps(at) else 1) if spanned > 1 else 0
        return received / (max(1, links) * link), 0.0

    def _wraps(self, dimension: int) -> bool:
        """Say whether the chips along a dimension form a ring: 16 in two dimensions, multiples of 4 in three."""
        extent = self.places.extent
        return extent[dimension] == 16 if self.chip.links == 4 else all(size % 4 == 0 for size in extent)

    def _distance(self, dimension: int, a: int, b: int) -> int:
        apart = abs(a - b)
        if dimension >= len(self.places.extent) or not self._wraps(dimension):
            return apart
        return min(apart, self.places.extent[dimension] - apart)


def inside(line: Instruction) -> list[Instruction]:
    """Return the collectives in the computation that a line calls, and in the fusions there."""
    found: list[Instruction] = []
    for part in line.called() or ():
        if is_collective(part):
            found.append(part)
        elif part.opcode == "fusion":
            found += inside(part)
    return found


def awaited_at_once(start: Instruction) -> bool:
    """Say whether nothing stands between a start and what waits for it, in the order that a program runs in."""
    lines = list(start.home)
    for line in lines[lines.index(start) + 1 :]:
        if start.name in line.operands:
            return True
        if line.opcode in ("fusion", "custom-call", "while", "call"):
            return False
    return True


def channel_of(line: Instruction) -> str:
    """Return a collective's channel, its own name if it has none."""
    return line.attribute("channel_id") or line.name


def received_bytes(kind: str, line: Instruction, members: int) -> float:
    """Return the bytes that each device receives in a collective, by the usual ring algorithms."""
    sizes = [shape.bytes for shape in line.shapes]
    if kind == "collective-permute":
        return float(sizes[0])
    starts = line.opcode.endswith("-start")
    total = max(sizes) if starts else sum(sizes)
    share = (members - 1) / members if members > 1 else 0.0
    if kind == "reduce-scatter" and not starts:
        return total * members * share
    return total * share * (2 if kind == "all-reduce" else 1)


def group_of(text: str) -> list[int]:
    """Return the first group of devices that a collective's attributes name; empty if it names none.

    Example:
        >>> group_of("replica_groups={{0,4},{1,5}}"), group_of("source_target_pairs={{0,1},{1,2}}")
        ([0, 4], [0, 1])
        >>> group_of("replica_groups=[4,2]<=[2,4]T(1,0)")  # [groups,members]<=[sizes]T(order)
        [0, 4]
        >>> group_of("replica_groups=mesh['a'=2,'b'=4] {'b'}")  # along axes of a mesh
        [0, 1, 2, 3]
    """
    if listed := re.search(r"(?:source_target_pairs|replica_groups)=\{\{([\d,]+)\}", text):
        return numbers(listed[1])
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, sizes, order = (numbers(part) for part in iota.groups())
        laid = np.arange(math.prod(sizes)).reshape(sizes)
        return laid.transpose(order or None).reshape(shape)[0].tolist()
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        mesh = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        along = re.findall(r"'([^']+)'", named[2])
        laid = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
        if mesh and set(along) <= set(mesh):
            return laid[tuple(slice(None) if name in along else 0 for name in mesh)].flatten().tolist()
    return []


def numbers(text: str | None) -> list[int]:
    """Read whole numbers separated by commas."""
    return [int(number) for number in (text or "").split(",") if number]
