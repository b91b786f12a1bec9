"""What a compiled step does, counted from its text with every loop's trips multiplied in.

``cost_analysis`` of jax counts a loop's body once, so a model of 32 layers under a scan looks 32 times cheaper than
it is. Here each computation counts as often as it runs:

- **products**, by :mod:`alpacare_jax.plan.products`;
- **device memory**: what each instruction reads and writes there; a fusion that takes a slice of a large array counts
  the slice;
- **links**, by :mod:`alpacare_jax.plan.collectives`.
"""

import dataclasses
from typing import Any

from alpacare_jax.hardware.chips import Chip
from alpacare_jax.plan import hlo, loops
from alpacare_jax.plan.collectives import Collectives, Places, Transfer, is_collective
from alpacare_jax.plan.hlo import DEVICE, HOST, Computation, Instruction, Module, Shape
from alpacare_jax.plan.products import is_kernel, line_flops

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

LIBRARIES = ("tpu_custom_call", "__cublas$", "__cudnn$")
"""Calls of kernels that read their operands from the device's memory and write what they give there."""

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


def count(text: str, places: Places, chip: Chip) -> dict[str, Any]:
    """Count a program's work.

    Args:
        text: The compiled program.
        places: Where the devices stand.
        chip: What it runs on.

    Returns:
        Plain JSON values, per device and step: ``flops`` of matrix products, of which ``kernel_flops`` in attention
        kernels; ``memory_bytes``; ``host_bytes``; ``collective_bytes`` by kind and mesh axes; ``regions``, one for
        every loop with its share of each and its seconds.
    """
    module = hlo.read_module(text)
    counter = Counter(module, places, chip)
    regions: dict[str, Cost] = {}
    for computation, times, loop in loops.walk(module):
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

    def __init__(self, module: Module, places: Places, chip: Chip) -> None:
        self.module, self.chip = module, chip
        self.collectives = Collectives(module, places, chip)

    def add(self, cost: Cost, computation: Computation, times: int) -> None:
        """Add what a computation does in all its runs."""
        for line in computation.instructions.values():
            if line.opcode in FREE:
                continue
            inner = self._started(line)
            if inner is not None and not any(map(is_collective, inner.instructions.values())):
                # On GPUs a fusion may run beside others, in a computation that is started here and awaited later.
                self.add(cost, inner, times)
                continue
            for transfer in self.collectives.of(line):
                add_transfer(cost, transfer, times)
            if is_collective(line) or line.opcode == "send" or inner is not None:
                continue
            flops = line_flops(self.module, computation, line)
            memory, host = self._bytes(computation, line)
            cost.flops += flops * times
            cost.kernel_flops += flops * times * is_kernel(line)
            cost.memory_bytes += memory * times
            cost.host_bytes += host * times
            rate = self.chip.bf16_flops * (EIGHT_BITS if "matmul$f8" in line.rest else 1)
            seconds = max(flops / rate, memory / self.chip.memory_bytes_per_s)
            # Copies between memories, and the ends of collectives, run beside the cores.
            beside = line.opcode in COPIES or line.name.startswith("async-collective")
            cost.busy_s += 0.0 if beside else seconds * times

    def _started(self, line: Instruction) -> Computation | None:
        """Return the computation that a line starts to run beside others; None where it starts none."""
        if line.opcode != "async-start" or self.chip.platform != "gpu":
            return None
        return self.module.computations.get(line.attribute("calls") or "")

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
        if line.opcode == "custom-call" and not any(name in line.rest for name in LIBRARIES):
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
            # What is written in place is counted with the result.
            reads = [user for user in users if not updates(user, parameter)]
            if users and all(user.opcode in ("dynamic-slice", "slice") for user in reads):
                total += sum(part.bytes for user in reads for part in user.shapes)
            else:
                total += shape.bytes
        root = inner.root
        parts = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
        if not any(part.opcode == "dynamic-update-slice" for part in parts):
            return total + sum(shape.bytes for shape in line.shapes if shape.memory == DEVICE)
        for part, shape in zip(parts, line.shapes, strict=False):
            if part.opcode == "dynamic-update-slice":
                update = inner.instructions.get(part.operands[1])
                total += update.shapes[0].bytes if update else 0
            elif shape.memory == DEVICE:
                total += shape.bytes
        return total

    def _shape_of(self, computation: Computation, name: str) -> Shape | None:
        made = computation.instructions.get(name)
        return made.shapes[0] if made is not None and made.shapes else None


def add_transfer(cost: Cost, transfer: Transfer, times: int) -> None:
    """Add a collective in all its runs."""
    name = f"{transfer.kind} over {transfer.axes}"
    cost.links[name] = cost.links.get(name, 0.0) + transfer.received * times
    cost.link_s += transfer.link_s * times
    cost.network_s += transfer.network_s * times
    if transfer.waited:
        cost.link_wait_s += transfer.link_s * times
        cost.network_wait_s += transfer.network_s * times


def updates(user: Instruction, parameter: Instruction) -> bool:
    """Say whether an instruction writes into a parameter in place."""
    return user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name
