"""What devices send one another: the bytes of a collective, the mesh axes it runs along, the seconds it takes."""

import dataclasses
import math
import re

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
        slices: The slice of each.
        sizes: Sizes of the mesh axes, by name.
        extent: Chips along each dimension of a slice.
    """

    coordinates: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]
    sizes: dict[str, int]
    extent: tuple[int, ...]


def is_collective(line: Instruction) -> bool:
    """Say whether a line is a collective, whole or one end of it."""
    return line.opcode.removesuffix("-start").removesuffix("-done") in KINDS


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What one line makes each device receive, once.

    Args:
        kind: Kind of collective.
        axes: Mesh axes along which its groups run, and whether it crosses slices: ``fsdp x tensor``.
        received: Bytes.
        link_s: Seconds on the links within a slice.
        network_s: Seconds on the network between slices.
        waited: Whether the cores stand still meanwhile, rather than go on with other lines.
    """

    kind: str
    axes: str
    received: float
    link_s: float
    network_s: float
    waited: bool


class Collectives:
    """Reads the collectives of one program.

    Args:
        module: The program.
        places: Where the devices stand.
        chip: What they are.
    """

    def __init__(self, module: Module, places: Places, chip: Chip) -> None:
        self.module, self.places, self.chip = module, places, chip
        lines = [line for one in module.computations.values() for line in one.instructions.values()]
        self._started = {
            channel_of(part) for line in lines if line.name.startswith(STARTS) for part in self._inside(line)
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
            inner = self.module.computations.get(line.attribute("calls") or "")
            parts = inner.instructions.values() if inner else ()
            return [
                self._whole(part, waited=self._awaited_at_once(line)) for part in parts if is_collective(part)
            ]
        if line.opcode != "fusion":
            return []
        starts = line.name.startswith(STARTS)
        # The compiler writes a reduce-scatter as a sum of which a slice is kept.
        scatters = (line.attribute("calls") or "").startswith("all-reduce-scatter")
        return [
            self._whole(part, waited=not starts, scatters=scatters)
            for part in self._inside(line)
            if not part.opcode.endswith("-done") and (starts or channel_of(part) not in self._started)
        ]

    def _awaited_at_once(self, start: Instruction) -> bool:
        """Say whether nothing stands between a start and what waits for it, in the order that a program runs in."""
        home = next(
            one for one in self.module.computations.values() if one.instructions.get(start.name) is start
        )
        after = iter(home.instructions.values())
        for line in after:
            if line is start:
                break
        for line in after:
            if start.name in line.operands:
                return True
            if line.opcode in ("fusion", "custom-call", "while", "call"):
                return False
        return True

    def _inside(self, line: Instruction) -> list[Instruction]:
        inner = self.module.computations.get(line.attribute("calls") or "")
        found: list[Instruction] = []
        for part in inner.instructions.values() if inner else ():
            if is_collective(part):
                found.append(part)
            elif part.opcode == "fusion":
                found += self._inside(part)
        return found

    def _whole(self, line: Instruction, *, waited: bool = True, scatters: bool = False) -> Transfer:
        kind = line.opcode.removesuffix("-start")
        group = self._group(line)
        received = received_bytes(kind, line, len(group))
        if scatters and kind == "all-reduce":
            kind, received = "reduce-scatter", received / 2
        axes = " x ".join(self._axes(group)) or "one device"
        waited = waited and not line.opcode.endswith("-start")
        return Transfer(kind, axes, received, *self._seconds(kind, group, received), waited)

    def _across_slices(self, line: Instruction) -> Transfer:
        """Return what a device exchanges with its like in other slices, over the hosts' network."""
        found = re.search(r'_xla_megascale_transfer_type="([A-Z_]+)"', line.rest)
        kind = found[1].lower().replace("_", "-") if found else "transfer"
        slices = len(set(self.places.slices))
        received = line.shapes[0].bytes * (slices - 1) / slices * (2 if kind == "all-reduce" else 1)
        axes = " x ".join(self._axes([0, len(self.places.slices) - 1])[:1]) or "slices"
        seconds = received / self.chip.network_bytes_per_s
        return Transfer(kind, f"{axes}, between slices", received, 0.0, seconds, waited=False)

    def _group(self, line: Instruction) -> list[int]:
        everyone = list(range(len(self.places.coordinates)))
        pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line.rest)
        if pairs:
            return [int(pairs[1]), int(pairs[2])]
        listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line.rest)
        if listed:
            return [int(number) for number in listed[1].split(",")]
        iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line.rest)
        if iota:
            return first_iota_group(*(numbers(part) for part in iota.groups()))
        named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line.rest)
        if named:
            return named_group(named[1], named[2]) or everyone
        return everyone

    def _axes(self, group: list[int]) -> list[str]:
        """Return the mesh axes along which a group's devices differ."""
        sizes = list(self.places.sizes.values())
        varying = []
        for at, name in enumerate(self.places.sizes):
            below = math.prod(sizes[at + 1 :])
            if len({member // below % sizes[at] for member in group}) > 1:
                varying.append(name)
        return varying

    def _seconds(self, kind: str, group: list[int], received: float) -> tuple[float, float]:
        """Return seconds on the links within a slice, and on the network between slices."""
        if len(group) < 2:
            return 0.0, 0.0
        if self.chip.platform == "gpu":
            return self._seconds_of_gpus(group, received)
        if len({self.places.slices[member] for member in group}) > 1:
            return 0.0, received / self.chip.network_bytes_per_s
        here = [self.places.coordinates[member] for member in group]
        if kind == "collective-permute":
            hops = sum(
                self._distance(at, a, b) for at, (a, b) in enumerate(zip(here[0], here[1], strict=True))
            )
            # Permutes come in pairs, one each way around a ring; either has links of its own.
            return received * max(1, hops) / (2 * self.chip.link_bytes_per_s), 0.0
        links = 0
        for at, extent in enumerate(self.places.extent):
            spanned = len({place[at] for place in here})
            if spanned > 1:
                links += 2 if spanned == extent and self._wraps(at) else 1
        return received / (max(1, links) * self.chip.link_bytes_per_s), 0.0

    def _seconds_of_gpus(self, group: list[int], received: float) -> tuple[float, float]:
        """Return seconds of a ring through nodes: on the links of each, and on the network, by all GPUs of a node."""
        nodes = [self.places.slices[member] for member in group]
        on_a_node = nodes.count(nodes[0])
        link_s = received / self.chip.link_bytes_per_s if on_a_node > 1 else 0.0
        network_s = received / on_a_node / self.chip.network_bytes_per_s if len(set(nodes)) > 1 else 0.0
        return link_s, network_s

    def _wraps(self, dimension: int) -> bool:
        """Say whether the chips along a dimension form a ring: 16 in two dimensions, multiples of 4 in three."""
        extent = self.places.extent
        if self.chip.links == 4:
            return extent[dimension] == 16
        return all(size % 4 == 0 for size in extent)

    def _distance(self, dimension: int, a: int, b: int) -> int:
        apart = abs(a - b)
        extent = self.places.extent[dimension] if dimension < len(self.places.extent) else 1
        return (
            min(apart, extent - apart)
            if dimension < len(self.places.extent) and self._wraps(dimension)
            else apart
        )


def channel_of(line: Instruction) -> str:
    """Return a collective's channel, its own name where it has none."""
    found = re.search(r"channel_id=(\d+)", line.rest)
    return found[1] if found else line.name


def received_bytes(kind: str, line: Instruction, members: int) -> float:
    """Return the bytes that each device receives in a collective, by the usual ring algorithms."""
    shapes = line.shapes
    if kind == "collective-permute":
        return float(shapes[0].bytes)
    if line.opcode.endswith("-start") and len(shapes) > 1:
        whole = max(shape.bytes for shape in shapes)
    else:
        whole = sum(shape.bytes for shape in shapes)
    share = (members - 1) / members if members > 1 else 0.0
    if kind == "reduce-scatter" and not line.opcode.endswith("-start"):
        return whole * members * share
    return whole * share * (2 if kind == "all-reduce" else 1)


def numbers(text: str | None) -> tuple[int, ...]:
    """Read whole numbers parted by commas."""
    return tuple(int(number) for number in (text or "").split(",") if number)


def first_iota_group(shape: tuple[int, ...], sizes: tuple[int, ...], order: tuple[int, ...]) -> list[int]:
    """Return the first group of devices written as ``[groups,members]<=[sizes]T(order)``.

    Example:
        >>> first_iota_group((4, 2), (2, 4), (1, 0))
        [0, 4]
    """
    import numpy as np

    laid = np.arange(math.prod(sizes)).reshape(sizes)
    return list(map(int, laid.transpose(order or tuple(range(len(sizes)))).reshape(shape)[0]))


def named_group(mesh: str, axes: str) -> list[int]:
    """Return the first group of devices written by axes of a mesh, ``'a'=2,'b'=4`` and ``'b'``.

    Example:
        >>> named_group("'a'=2,'b'=4", "'b'")
        [0, 1, 2, 3]
    """
    import numpy as np

    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = re.findall(r"'([^']+)'", axes)
    if not sizes or any(name not in sizes for name in chosen):
        return []
    laid = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    index = tuple(slice(None) if name in chosen else 0 for name in sizes)
    return sorted(map(int, laid[index].reshape(-1)))
