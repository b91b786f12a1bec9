"""How often every part of a compiled program runs: loops, their trips read from counters, bounds and steps."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from alpacare_jax.plan.hlo import Computation, Instruction, Module

COPIES = ("copy", "bitcast", "convert", "copy-done", "copy-start")


def walk(module: Module) -> Iterator[tuple[Computation, int, str]]:
    """Yield every computation that runs on its own (not fused).

    Yields:
        The computation, how many times it runs in a step, and the name of its loop, empty at the top.
    """
    waiting: list[tuple[Computation | None, int, str]] = [(module.computations[module.entry], 1, "")]
    while waiting:
        computation, times, loop = waiting.pop()
        if computation is None:
            continue
        yield computation, times, loop
        for line in computation:
            if line.opcode == "while":
                waiting.append((line.called("body"), times * trip_count(line), loop_name(line)))
            elif line.opcode == "call":
                waiting.append((line.called("to_apply"), times, loop))
            elif line.opcode == "conditional":
                # One branch runs; the last one named is as good as any.
                branches = re.search(r"branch_computations=\{(?:[^}]*%)?([\w.\-]+)\}", line.rest)
                waiting.append((module.computations.get(branches[1]) if branches else None, times, loop))


def loop_name(loop: Instruction) -> str:
    """Return where in the source a loop comes from; by its lines, the backward pass first, if it does not say."""
    body = loop.called("body")
    names = [line.op_name for line in body] if body else []
    by_lines = (name for word in ("transpose(", "jvp(") for name in names if word in name)
    return loop.op_name or next(by_lines, loop.attribute("body"))


def trip_count(loop: Instruction) -> int:
    """Return how often a ``while`` runs: known to the compiler, or from its counter, bound and step.

    A loop whose end depends on data counts once.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition, body = loop.called("condition"), loop.called("body")
    if condition is None or body is None:
        return 1
    test = resolve(Value(condition.root))
    sides = [resolve(side) for side in test.inputs]
    bounds = [number for number in map(whole, sides) if number is not None]
    counters = [side.line for side in sides if side.line.opcode == "get-tuple-element"]
    if test.line.opcode != "compare" or not bounds or not counters:
        return 1
    at = int(counters[0].attribute("index"))
    start, following = tuple_part(loop.inputs[0], at), tuple_part(body.root, at)
    span = abs(bounds[0] - ((whole(start) if start else None) or 0))
    span += test.line.attribute("direction") in ("LE", "GE")
    return -(-span // max(1, abs(step_of(following)))) if following else span


class Value(NamedTuple):
    """What a line returns, and what the parameters of its fused computation stand for."""

    line: Instruction
    given: tuple["Value", ...] = ()

    @property
    def inputs(self) -> list["Value"]:
        """The values that the line takes."""
        return [Value(line, self.given) for line in self.line.inputs]


def resolve(value: Value) -> Value:
    """Look through copies, into fusions, and from a fused computation's parameters to what they stand for."""
    line, inner = value.line, value.line.called()
    if line.opcode in COPIES:
        return resolve(value.inputs[0])
    if line.opcode == "parameter" and value.given:
        return resolve(value.given[int(line.argument)])
    if line.opcode == "fusion" and inner is not None:
        return resolve(Value(inner.root, tuple(value.inputs)))
    return value


def whole(value: Value) -> int | None:
    """Return the whole number that a value is, None if it is not known before the program runs."""
    value = resolve(value)
    line = value.line
    if line.opcode == "constant" and re.fullmatch(r"-?\d+", line.argument):
        return int(line.argument)
    if line.opcode in ("add", "subtract"):
        first, second = map(whole, value.inputs)
        if first is not None and second is not None:
            return first + (second if line.opcode == "add" else -second)
    return None


def tuple_part(made: Instruction, index: int) -> Value | None:
    """Return a tuple's part, if the tuple is built in the same computation."""
    return Value(made.inputs[index]) if made.opcode == "tuple" else None


def step_of(value: Value) -> int:
    """Return by how much a loop's counter grows each time: the constants that are added to it, else 1."""
    total, value = 0, resolve(value)
    while value.line.opcode == "add":
        numbers = [whole(side) for side in value.inputs]
        known = [number for number in numbers if number is not None]
        if len(known) != 1:
            break
        total += known[0]
        value = resolve(value.inputs[numbers.index(None)])
    return total or 1
