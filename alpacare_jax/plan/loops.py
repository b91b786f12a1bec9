"""How often every part of a compiled program runs: loops, their trips read from counters, bounds and steps."""

import dataclasses
import re
from collections.abc import Iterator

from alpacare_jax.plan.hlo import Computation, Instruction, Module

COPIES = ("copy", "bitcast", "convert", "copy-done", "copy-start")


def walk(module: Module) -> Iterator[tuple[Computation, int, str]]:
    """Yield every computation that runs on its own (not fused) with how often, and the loop it stands in.

    Yields:
        The computation, how many times it runs in a step, and the name of its loop, empty at the top.
    """
    waiting = [(module.entry, 1, "")]
    while waiting:
        name, times, loop = waiting.pop()
        computation = module.computations[name]
        yield computation, times, loop
        for line in computation.instructions.values():
            if line.opcode == "while":
                body = line.attribute("body")
                if body:
                    trips = times * trip_count(module, computation, line)
                    waiting.append((body, trips, loop_name(module, line, body)))
            elif line.opcode == "call":
                target = line.attribute("to_apply")
                if target:
                    waiting.append((target, times, loop))
            elif line.opcode == "conditional":
                # One branch runs; the last one named is as good as any.
                branches = re.search(r"branch_computations=\{([^}]*)\}", line.rest)
                names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
                waiting += [(name, times, loop) for name in names[-1:]]


def loop_name(module: Module, loop: Instruction, body: str) -> str:
    """Return where in the source a loop comes from; by its lines, the backward pass first, where it does not say."""
    if loop.op_name:
        return loop.op_name
    names = [line.op_name for line in module.computations[body].instructions.values()]
    for word in ("transpose(", "jvp("):
        for name in names:
            if word in name:
                return name
    return body


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int:
    """Return how often a ``while`` runs: known to the compiler, or told from its counter, bound and step.

    A loop whose end depends on data counts once.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition = module.computations.get(loop.attribute("condition") or "")
    body = module.computations.get(loop.attribute("body") or "")
    if condition is None or body is None:
        return 1
    test = settled(module, Value(condition, condition.root))
    if test is None or test.line.opcode != "compare":
        return 1
    sides = [settled(module, side) for side in test.operands]
    bound = next((number for number in (whole(module, side) for side in sides) if number is not None), None)
    counter = next((side.line for side in sides if side and side.line.opcode == "get-tuple-element"), None)
    index = counter.attribute("index") if counter else None
    if bound is None or index is None:
        return 1
    start = whole(module, tuple_part(computation, loop.operands[0], int(index))) or 0
    step = step_of(module, tuple_part(body, body.root.name, int(index)))
    span = abs(bound - start) + (test.line.attribute("direction") in ("LE", "GE"))
    return max(0, -(-span // max(1, abs(step))))


@dataclasses.dataclass(frozen=True)
class Value:
    """What an instruction gives, with what the parameters of its computation stand for.

    Args:
        home: The computation the instruction stands in.
        line: The instruction.
        arguments: Of a fused computation, what it is given.
    """

    home: Computation
    line: Instruction
    arguments: tuple["Value", ...] = ()

    @property
    def operands(self) -> list["Value"]:
        """What the instruction takes."""
        found = [self.home.instructions.get(name) for name in self.line.operands]
        return [Value(self.home, line, self.arguments) for line in found if line is not None]


def settled(module: Module, value: Value | None) -> Value | None:
    """Look through copies, into fusions, and from a fused computation's parameters to what they stand for."""
    while value is not None:
        line = value.line
        if line.opcode in COPIES:
            value = next(iter(value.operands), None)
        elif line.opcode == "parameter" and value.arguments:
            value = value.arguments[int(line.argument)]
        elif line.opcode == "fusion":
            inner = module.computations.get(line.attribute("calls") or "")
            value = Value(inner, inner.root, tuple(value.operands)) if inner else None
        else:
            return value
    return None


def whole(module: Module, value: Value | None) -> int | None:
    """Return the whole number that a value is, None where it is not known before the program runs."""
    value = settled(module, value)
    if value is None:
        return None
    line = value.line
    if line.opcode == "constant" and re.fullmatch(r"-?\d+", line.argument):
        return int(line.argument)
    if line.opcode in ("add", "subtract"):
        numbers = [whole(module, operand) for operand in value.operands]
        if len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None:
            return numbers[0] + (numbers[1] if line.opcode == "add" else -numbers[1])
    return None


def tuple_part(computation: Computation, name: str, index: int) -> Value | None:
    """Return a tuple's part, where the tuple is built in the same computation."""
    made = computation.instructions.get(name)
    if made is None or made.opcode != "tuple" or index >= len(made.operands):
        return None
    line = computation.instructions.get(made.operands[index])
    return Value(computation, line) if line is not None else None


def step_of(module: Module, value: Value | None) -> int:
    """Return by how much a loop's counter grows each time: the constants that are added to it, else 1."""
    total, value = 0, settled(module, value)
    while value is not None and value.line.opcode == "add":
        numbers = [whole(module, operand) for operand in value.operands]
        known = [number for number in numbers if number is not None]
        if len(known) != 1:
            break
        total += known[0]
        value = settled(module, value.operands[numbers.index(None)])
    return total or 1
