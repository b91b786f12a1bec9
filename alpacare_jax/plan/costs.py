"""What a compiled step does, counted from its text with every loop's trips multiplied in.

``cost_analysis`` of jax counts a loop's body once, so a model of 32 layers under a scan looks 32 times cheaper than
it is. Here each computation counts as often as it runs:

- **products**: 2 x the multiplications of every matrix product, fused or not (a TPU program calls them convolutions);
  of attention kernels, which are opaque to the compiler, by their shapes.
- **device memory**: what each instruction reads and writes there; a fusion that takes a slice of a large array counts
  the slice.
- **links**: bytes that each device receives in every collective, by the mesh axes it runs along.
"""

import dataclasses
import math
import re
from typing import Any

from alpacare_jax.plan import hlo
from alpacare_jax.plan.hlo import DEVICE, HOST, Computation, Instruction, Module, Shape

FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "while",
    "call",
    "conditional",
    "after-all",
    "partition-id",
    "copy-done",
    "slice-done",
    "opt-barrier",
    "iota",
    "recv",
    "recv-done",
    "send-done",
    "async-done",
    "async-update",
}
"""Instructions that move nothing themselves."""

COPIES = ("copy-start", "slice-start", "async-start")
"""Copies between memories, under way while other instructions run."""

KERNEL_PRODUCTS = (("dkv", 4), ("dq", 3), ("bwd", 5), ("fwd", 2), ("splash", 2), ("flash", 2))
"""Products of the size [T, S, H] in an attention kernel, by a word of its name; the first that occurs counts."""


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


@dataclasses.dataclass
class Cost:
    """What runs in one stretch of the program, in all its trips, per device."""

    flops: float = 0.0
    kernel_flops: float = 0.0
    memory_bytes: float = 0.0
    host_bytes: float = 0.0
    busy_s: float = 0.0
    link_s: float = 0.0
    network_s: float = 0.0
    links: dict[str, float] = dataclasses.field(default_factory=dict)


def count(text: str, places: Places, chip: Any) -> dict[str, Any]:
    """Count a program's work.

    Args:
        text: The compiled program.
        places: Where the devices stand.
        chip: The :class:`alpacare_jax.plan.chips.Chip` it runs on.

    Returns:
        Plain JSON values, per device and step: ``flops`` of matrix products, of which ``kernel_flops`` in attention
        kernels; ``memory_bytes``; ``host_bytes``; ``collective_bytes`` by kind and mesh axes; ``regions``, one for
        every loop with its share of each and its seconds.
    """
    module = hlo.read_module(text)
    counter = Counter(module, places, chip)
    regions: dict[str, Cost] = {}
    for computation, times, loop in hlo.walk(module):
        cost = regions.setdefault(top_loop(loop), Cost())
        counter.add(cost, computation, times)
    total = Cost()
    for cost in regions.values():
        for field in dataclasses.fields(Cost):
            if field.name != "links":
                setattr(total, field.name, getattr(total, field.name) + getattr(cost, field.name))
        for kind, size in cost.links.items():
            total.links[kind] = total.links.get(kind, 0.0) + size
    return {
        "flops": total.flops,
        "kernel_flops": total.kernel_flops,
        "memory_bytes": total.memory_bytes,
        "host_bytes": total.host_bytes,
        "collective_bytes": total.links,
        "regions": {name: dataclasses.asdict(cost) for name, cost in regions.items()},
    }


def top_loop(name: str) -> str:
    """Name the stretch of the step that a loop belongs to.

    Example:
        >>> top_loop("jit(_step)/transpose(jvp())/while/body/closed_call/BTD,DKH->BTKH/dot_general")
        'backward through the layers'
        >>> top_loop("")
        'outside loops'
    """
    if not name:
        return "outside loops"
    if "shard_map/while" in name or "loss" in name or "entropy" in name:
        return "loss"
    if "transpose(" in name:
        return "backward through the layers"
    if "jvp(" in name or "closed_call" in name:
        return "forward through the layers"
    return "other loops"


class Counter:
    """Counts one program.

    Args:
        module: The program.
        places: Where the devices stand.
        chip: What they are.
    """

    def __init__(self, module: Module, places: Places, chip: Any) -> None:
        self.module, self.places, self.chip = module, places, chip
        self._channels: set[str] = set()

    def add(self, cost: Cost, computation: Computation, times: int) -> None:
        """Add what a computation does in all its runs."""
        for line in computation.instructions.values():
            if line.opcode in FREE:
                continue
            if self._is_collective(line):
                self._add_collective(cost, line, times)
                continue
            if line.opcode == "send" and "megascale" in line.rest:
                self._add_across_slices(cost, line, times)
                continue
            flops = self._products(computation, line)
            memory, host = self._bytes(computation, line)
            cost.flops += flops * times
            cost.kernel_flops += flops * times * (line.opcode == "custom-call")
            cost.memory_bytes += memory * times
            cost.host_bytes += host * times
            seconds = max(flops / self.chip.bf16_flops, memory / self.chip.memory_bytes_per_s)
            # Copies between memories, and the ends of collectives, run beside the cores.
            beside = line.opcode in COPIES or line.name.startswith("async-collective")
            cost.busy_s += 0.0 if beside else seconds * times
            if line.opcode == "fusion":
                self._add_fused_collectives(cost, line, times)

    # -- products

    def _products(self, computation: Computation, line: Instruction) -> float:
        if line.opcode in ("convolution", "dot"):
            return product_flops(computation, line)
        if line.opcode == "custom-call" and "tpu_custom_call" in line.rest:
            return kernel_flops(computation, line)
        if line.opcode == "fusion":
            inner = self.module.computations.get(line.attribute("calls") or "")
            if inner is not None:
                return sum(self._products(inner, part) for part in inner.instructions.values())
        return 0.0

    # -- bytes

    def _bytes(self, computation: Computation, line: Instruction) -> tuple[float, float]:
        """Return bytes moved to and from the device's memory, and to and from the host's."""
        if line.opcode in COPIES:
            if (
                not line.operands
            ):  # starts work of another core, whose own lines are counted where it is written
                return 0.0, 0.0
            source = self._shape_of(computation, line.operands[0])
            target = line.shapes[1] if len(line.shapes) > 1 else line.shapes[0]
            moved = target.bytes
            host = moved if HOST in (target.memory, source.memory if source else DEVICE) else 0
            ends = (source.memory if source else DEVICE) == DEVICE, target.memory == DEVICE
            return float(moved * sum(ends)), float(host)
        if line.opcode == "fusion":
            inner = self.module.computations.get(line.attribute("calls") or "")
            if inner is not None:
                return self._fusion_bytes(computation, line, inner), 0.0
        if line.opcode in ("dynamic-slice", "gather", "slice"):
            return 2.0 * sum(shape.bytes for shape in line.shapes if shape.memory == DEVICE), 0.0
        if line.opcode == "dynamic-update-slice":
            update = self._shape_of(computation, line.operands[1])
            return (2.0 * update.bytes if update and update.memory == DEVICE else 0.0), 0.0
        if line.opcode == "custom-call" and "tpu_custom_call" not in line.rest:
            return 0.0, 0.0
        reads = [self._shape_of(computation, name) for name in line.operands]
        read = sum(shape.bytes for shape in reads if shape is not None and shape.memory == DEVICE)
        return float(read + sum(shape.bytes for shape in line.shapes if shape.memory == DEVICE)), 0.0

    def _fusion_bytes(self, computation: Computation, line: Instruction, inner: Computation) -> float:
        total = 0.0
        for parameter, operand in zip(inner.parameters, line.operands, strict=False):
            shape = self._shape_of(computation, operand)
            if shape is None or shape.memory != DEVICE:
                continue
            users = inner.users.get(parameter.name, [])
            if users and all(user.opcode in ("dynamic-slice", "slice") for user in users):
                total += sum(part.bytes for user in users for part in user.shapes)
            elif users and all(updates(user, parameter) for user in users):
                continue  # written in place, counted with the result
            else:
                total += shape.bytes
        in_place = inner.root.opcode == "dynamic-update-slice"
        if in_place:
            update = inner.instructions.get(inner.root.operands[1])
            return total + (update.shapes[0].bytes if update else 0)
        return total + sum(shape.bytes for shape in line.shapes if shape.memory == DEVICE)

    def _shape_of(self, computation: Computation, name: str) -> Shape | None:
        made = computation.instructions.get(name)
        return made.shapes[0] if made is not None and made.shapes else None

    # -- collectives

    KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

    def _is_collective(self, line: Instruction) -> bool:
        return line.opcode.removesuffix("-start").removesuffix("-done") in self.KINDS

    def _add_fused_collectives(self, cost: Cost, line: Instruction, times: int) -> None:
        inner = self.module.computations.get(line.attribute("calls") or "")
        for part in inner.instructions.values() if inner else ():
            if self._is_collective(part):
                self._add_collective(cost, part, times)
            elif part.opcode == "fusion":
                self._add_fused_collectives(cost, part, times)

    def _add_collective(self, cost: Cost, line: Instruction, times: int) -> None:
        if line.opcode.endswith("-done"):
            return
        # A collective that runs piece by piece inside several fusions is named in each, by one channel.
        channel = re.search(r"channel_id=(\d+)", line.rest)
        if channel:
            if channel[1] in self._channels:
                return
            self._channels.add(channel[1])
        kind = line.opcode.removesuffix("-start")
        group = self._group(line)
        received = received_bytes(kind, line, len(group)) * times
        axes = self._axes(group)
        name = f"{kind} over {' x '.join(axes) if axes else 'one device'}"
        cost.links[name] = cost.links.get(name, 0.0) + received
        link_s, network_s = self._seconds(kind, group, received)
        cost.link_s += link_s
        cost.network_s += network_s

    def _add_across_slices(self, cost: Cost, line: Instruction, times: int) -> None:
        """Add what a device exchanges with its like in other slices; the runtime does it over the hosts' network."""
        kind = re.search(r'_xla_megascale_transfer_type="([A-Z_]+)"', line.rest)
        name = kind[1].lower().replace("_", "-") if kind else "transfer"
        slices = len(set(self.places.slices))
        received = line.shapes[0].bytes * (slices - 1) / slices * (2 if name == "all-reduce" else 1) * times
        axes = " x ".join(self._axes([0, len(self.places.slices) - 1])[:1]) or "slices"
        cost.links[f"{name} over {axes}, between slices"] = (
            cost.links.get(f"{name} over {axes}, between slices", 0.0) + received
        )
        cost.network_s += received / self.chip.network_bytes_per_s

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


def updates(user: Instruction, parameter: Instruction) -> bool:
    """Say whether an instruction writes into a parameter in place."""
    return user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name


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


def product_flops(computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of a matrix product or convolution, padding and holes left out."""
    left, right = (computation.instructions[name].shapes[0] for name in line.operands[:2])
    result = line.shapes[0]
    if line.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        summed = math.prod(left.sizes[at] for at in numbers(contracted[1] if contracted else ""))
        return 2.0 * math.prod(result.sizes) * summed
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    if not labels:
        return 0.0
    lhs, rhs, out = labels.groups()
    taps = 1.0
    spatial = sorted(letter for letter in out if letter.isdigit())
    window = read_window(line.rest, len(spatial))
    for at, letter in enumerate(spatial):
        taps *= valid_taps(
            left.sizes[lhs.index(letter)],
            result.sizes[out.index(letter)],
            **{k: v[at] for k, v in window.items()},
        )
    batch, features = result.sizes[out.index("b")], result.sizes[out.index("f")]
    groups = re.search(r"batch_group_count=(\d+)", line.rest)
    kernel_features = right.sizes[rhs.index("i")] / (int(groups[1]) if groups else 1)
    return 2.0 * batch * features * kernel_features * taps


def read_window(text: str, spatial: int) -> dict[str, list[int]]:
    """Read a convolution's window: size, stride, low padding and the two dilations of each spatial dimension."""
    match = re.search(r"window=\{([^}]*)\}", text)
    given = dict(part.split("=") for part in match[1].split()) if match and match[1] else {}

    def sizes(key: str) -> list[int]:
        return [int(size) for size in given[key].split("x")] if key in given else [1] * spatial

    pads = [pad.split("_")[0] for pad in given["pad"].split("x")] if "pad" in given else ["0"] * spatial
    return {
        "size": sizes("size"),
        "stride": sizes("stride"),
        "pad": [int(pad) for pad in pads],
        "lhs_dilate": sizes("lhs_dilate"),
        "rhs_dilate": sizes("rhs_dilate"),
    }


def valid_taps(
    length: int, results: int, *, size: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Count the pairs of output and window positions that meet an element, neither padding nor a hole.

    Example:
        >>> valid_taps(1, 32, size=32, stride=1, pad=31, lhs_dilate=1, rhs_dilate=1)
        32
    """
    if size == 1 and stride == 1 and pad == 0 and lhs_dilate == 1:
        return min(results, length)
    found = 0
    for tap in range(size):
        for result in range(results):
            at = result * stride + tap * rhs_dilate - pad
            found += at % lhs_dilate == 0 and 0 <= at // lhs_dilate < length
    return found


def kernel_flops(computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of an attention kernel, blocks behind the causal line left out.

    The kernel's name says how many products of [T, S, H] it holds; its operands say how large they are, and one
    operand says which blocks run.
    """
    products = next((n for word, n in KERNEL_PRODUCTS if word in line.name or word in line.op_name), 0)
    if not products:
        return 0.0
    given = [
        computation.instructions[name].shapes for name in line.operands if name in computation.instructions
    ]
    large = [
        shapes[0] for shapes in given if shapes and len(shapes[0].sizes) == 4 and shapes[0].dtype == "bf16"
    ]
    large = large or [shapes[0] for shapes in given if shapes and len(shapes[0].sizes) == 4]
    blocks = next((s[0].sizes for s in given if s and s[0].dtype == "s8" and len(s[0].sizes) == 3), None)
    if len(large) < 2:
        return 0.0
    queries, keys = max(large, key=lambda shape: math.prod(shape.sizes)), large[1]
    rows, heads, length, head = queries.sizes
    share = (blocks[1] + 1) / (2 * blocks[1]) if blocks and blocks[1] == blocks[2] else 1.0
    return 2.0 * products * rows * heads * length * keys.sizes[2] * head * share
