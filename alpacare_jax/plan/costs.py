"""What a compiled step does, counted from its text with every loop's trips multiplied in.

``cost_analysis`` of jax counts a loop's body once, so a model of 32 layers under a scan looks 32 times cheaper than
it is. Here each computation counts as often as it runs:

- **products**, by :mod:`alpacare_jax.plan.products`;
- **device memory**: what each instruction reads and writes there; a fusion that takes a slice of a large array counts
  the slice;
- **links**, by :mod:`alpacare_jax.plan.collectives`.
"""

import dataclasses
import re
from collections import Counter

from alpacare_jax.hardware.chips import Chip
from alpacare_jax.plan import loops
from alpacare_jax.plan.collectives import Collectives, Places, is_collective
from alpacare_jax.plan.hlo import DEVICE, HOST, Computation, Instruction, Module, Shape
from alpacare_jax.plan.products import is_kernel, line_flops

FREE = re.compile(
    "parameter|constant|get-tuple-element|tuple|bitcast|while|call|conditional|after-all|partition-id|copy-done|"
    "slice-done|opt-barrier|iota|recv|recv-done|send-done|async-done|async-update"
)
"""Instructions that move nothing themselves."""
COPIES = ("copy-start", "slice-start", "async-start")
"""Copies between memories, under way while other instructions run."""
LIBRARIES = ("tpu_custom_call", "__cublas$", "__cudnn$")
"""Calls of kernels that read their operands from the device's memory and write their results there."""
EIGHT_BITS = 2
"""How many times faster than bf16 products those of 8-bit floats are, at the peak of GPUs that have them."""


@dataclasses.dataclass
class Cost:
    """What runs in one stretch of the program, in all its trips, per device.

    Args:
        flops: Operations of products and kernels.
        kernel_flops: Those of attention kernels.
        memory_bytes: Read from and written to the device's memory.
        host_bytes: Moved to and from the host's memory.
        busy_s: Seconds that the cores work at the published peaks.
        link_wait_s: Seconds that they stand still for the links, in collectives that nothing runs beside.
        network_wait_s: The same for the network between slices.
        link_s: Seconds of all collectives within a slice.
        network_s: Seconds of all between slices.
        links: Bytes received, by kind of collective and mesh axes.
    """

    flops: float = 0.0
    kernel_flops: float = 0.0
    memory_bytes: float = 0.0
    host_bytes: float = 0.0
    busy_s: float = 0.0
    link_wait_s: float = 0.0
    network_wait_s: float = 0.0
    link_s: float = 0.0
    network_s: float = 0.0
    links: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """What a step does, per device.

    Args:
        flops: Operations of matrix products and attention kernels.
        kernel_flops: Those of attention kernels.
        memory_bytes: Read from and written to the device's memory.
        host_bytes: Moved to and from the host's memory.
        collective_bytes: Received, by kind of collective and mesh axes.
        regions: Every stretch of the step with its share of each, and its seconds.
    """

    flops: float
    kernel_flops: float
    memory_bytes: float
    host_bytes: float
    collective_bytes: dict[str, float]
    regions: dict[str, Cost]

    @classmethod
    def of(cls, regions: dict[str, Cost]) -> "StepCosts":
        """Add up the stretches."""
        received: Counter[str] = Counter()
        for cost in regions.values():
            received.update(cost.links)

        def total(name: str) -> float:
            return sum(getattr(cost, name) for cost in regions.values())

        return cls(
            flops=total("flops"),
            kernel_flops=total("kernel_flops"),
            memory_bytes=total("memory_bytes"),
            host_bytes=total("host_bytes"),
            collective_bytes=dict(received),
            regions=regions,
        )


def count(module: Module, places: Places, chip: Chip) -> StepCosts:
    """Count a program's work.

    Args:
        module: The compiled program.
        places: Where the devices stand.
        chip: What it runs on.
    """
    collectives = Collectives(module, places, chip)
    regions: dict[str, Cost] = {}
    for computation, times, loop in loops.walk(module):
        add(regions.setdefault(top_loop(loop), Cost()), computation, times, collectives)
    return StepCosts.of(regions)


def top_loop(name: str) -> str:
    """Name the stretch of the step that a loop belongs to.

    Example:
        >>> top_loop("jit(_step)/transpose(jvp())/while/body/closed_call/BTD,DKH->BTKH/dot_general")
        'backward through the layers'
        >>> top_loop("jit(_step)/transpose(jvp())/while/body/closed_call/checkpoint/shard_map/while")  # attention's
        'backward through the layers'
        >>> top_loop("jit(_step)/while/body/closed_call/jvp()/shard_map/while")
        'loss'
        >>> top_loop("")
        'outside loops'
    """
    if not name:
        return "outside loops"
    # The loss's loops stand in no other that is differentiated, attention's in the one through the layers.
    around, _, _ = name.rpartition("shard_map/")
    _, differentiated, within = around.partition("jvp(")
    if (differentiated and "while" not in within) or "loss" in name or "entropy" in name:
        return "loss"
    if "transpose(" in name:
        return "backward through the layers"
    return "forward through the layers" if "jvp(" in name or "closed_call" in name else "other loops"


def add(cost: Cost, computation: Computation, times: int, collectives: Collectives) -> None:
    """Add what a computation does in all its runs."""
    chip = collectives.chip
    for line in computation:
        if FREE.fullmatch(line.opcode):
            continue
        started = line.called() if line.opcode == "async-start" and chip.platform == "gpu" else None
        if started is not None and not any(map(is_collective, started)):
            # On GPUs a fusion may run beside others, in a computation that is started here and awaited later.
            add(cost, started, times, collectives)
            continue
        for transfer in collectives.of(line):
            cost.links[transfer.name] = cost.links.get(transfer.name, 0.0) + transfer.received * times
            cost.link_s += transfer.link_s * times
            cost.network_s += transfer.network_s * times
            cost.link_wait_s += transfer.link_s * times * transfer.waited
            cost.network_wait_s += transfer.network_s * times * transfer.waited
        if is_collective(line) or line.opcode == "send" or started is not None:
            continue
        flops, (memory, host) = line_flops(line), moved_bytes(line)
        cost.flops += flops * times
        cost.kernel_flops += flops * times * is_kernel(line)
        cost.memory_bytes += memory * times
        cost.host_bytes += host * times
        # Copies between memories, and the ends of collectives, run beside the cores.
        if line.opcode not in COPIES and not line.name.startswith("async-collective"):
            rate = chip.bf16_flops * (EIGHT_BITS if "matmul$f8" in line.rest else 1)
            cost.busy_s += max(flops / rate, memory / (1e9 * chip.memory_gb_s)) * times


def moved_bytes(line: Instruction) -> tuple[float, float]:
    """Return bytes moved to and from the device's memory, and to and from the host's."""
    arrays, inner = [part.array for part in line.inputs], line.called()
    if line.opcode in COPIES:
        if not arrays:  # starts work of another core, whose own lines are counted where it is written
            return 0.0, 0.0
        target = line.shapes[min(1, len(line.shapes) - 1)]
        ends = (arrays[0].memory, target.memory)
        return float(target.bytes * ends.count(DEVICE)), float(target.bytes * (HOST in ends))
    if line.opcode == "fusion" and inner is not None:
        return fusion_bytes(line, inner), 0.0
    if line.opcode in ("dynamic-slice", "gather", "slice"):
        return 2.0 * on_device(line.shapes), 0.0
    if line.opcode == "dynamic-update-slice":
        return 2.0 * on_device(arrays[1:2]), 0.0
    if line.opcode == "custom-call" and not any(name in line.rest for name in LIBRARIES):
        return 0.0, 0.0
    return float(on_device(arrays) + on_device(line.shapes)), 0.0


def fusion_bytes(line: Instruction, inner: Computation) -> float:
    """Return bytes that a fusion moves to and from the device's memory: of slices the slice."""
    total = 0
    for parameter, given in zip(inner.parameters, line.inputs, strict=False):
        if given.array.memory != DEVICE:
            continue
        users = inner.users.get(parameter.name, [])
        # What is written in place is counted with the result.
        reads = [user for user in users if not updates(user, parameter)]
        if users and all(user.opcode in ("dynamic-slice", "slice") for user in reads):
            total += sum(part.bytes for user in reads for part in user.shapes)
        else:
            total += given.array.bytes
    parts = inner.root.inputs if inner.root.opcode == "tuple" else [inner.root]
    if not any(part.opcode == "dynamic-update-slice" for part in parts):
        return float(total + on_device(line.shapes))
    for part, shape in zip(parts, line.shapes, strict=False):
        written = part.inputs[1].array if part.opcode == "dynamic-update-slice" else None
        total += written.bytes if written else on_device([shape])
    return float(total)


def on_device(shapes: "list[Shape] | tuple[Shape, ...]") -> int:
    """Return the bytes of those arrays that lie in the device's memory."""
    return sum(shape.bytes for shape in shapes if shape.memory == DEVICE)


def updates(user: Instruction, parameter: Instruction) -> bool:
    """Say whether an instruction writes into a parameter in place."""
    return user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name
