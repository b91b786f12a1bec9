"""Reading a compiled program's text (XLA's HLO) just far enough to count what it does.

Only the parts that counting needs are read: names, shapes with the memory they lie in, operands and attributes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

DTYPE_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
"""Widths of the types whose name does not end in theirs."""

DEVICE, VECTOR, HOST = 0, 1, 5
"""Memories as TPU programs number them: the device's own (HBM), the one beside the cores (VMEM), the host's."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: its type, sizes and the memory it lies in."""

    dtype: str
    sizes: tuple[int, ...]
    memory: int = DEVICE

    @property
    def bytes(self) -> int:
        """Size without padding."""
        bits = DTYPE_BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"(\d+)", self.dtype)
            bits = int(digits[1]) if digits else 0
        return math.prod(self.sizes) * bits // 8


ARRAY = re.compile(r"(\b[a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Read every array of a shape's text, a tuple's in their order.

    Example:
        >>> read_shapes("(bf16[2,8]{1,0:T(8,128)S(1)}, s32[])")
        (Shape(dtype='bf16', sizes=(2, 8), memory=1), Shape(dtype='s32', sizes=(), memory=0))
    """
    shapes = []
    for dtype, sizes, layout in ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        numbers = tuple(int(size.strip("<=")) for size in sizes.split(",") if size)
        shapes.append(Shape(dtype, numbers, int(space[1]) if space else DEVICE))
    return tuple(shapes)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Args:
        name: Its name.
        shapes: What it gives, a tuple's parts in their order.
        opcode: What it does.
        operands: Names of what it takes.
        rest: What follows the operands: attributes as text.
        root: Whether the computation gives what this line gives.
        argument: The text between the brackets of a constant or parameter.
        parts: Of a tuple, the shape of each part as text.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool
    argument: str = ""
    parts: tuple[str, ...] = ()

    def attribute(self, name: str) -> str | None:
        """Return the value of an attribute that is one word or a computation's name."""
        match = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return match[1] if match else None

    @property
    def op_name(self) -> str:
        """Where in the source the line comes from, as jax names it."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of instructions."""

    name: str
    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation gives."""
        return next(line for line in self.instructions.values() if line.root)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Every instruction's users."""
        found: dict[str, list[Instruction]] = {}
        for line in self.instructions.values():
            for operand in line.operands:
                found.setdefault(operand, []).append(line)
        return found

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """The parameters in their order."""
        lines = [line for line in self.instructions.values() if line.opcode == "parameter"]
        return sorted(lines, key=lambda line: int(line.argument))


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations, and the one it starts with."""

    computations: dict[str, Computation]
    entry: str


HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
OPCODE = re.compile(r" ([a-z][\w\-]*)\(")


def read_module(text: str) -> Module:
    """Read a program's text."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            current = Computation(head[2], {})
            computations[head[2]] = current
            entry = head[2] if head[1] else entry
        elif current is not None:
            match = LINE.match(line)
            if match:
                read = read_instruction(match[2], match[3], bool(match[1]))
                current.instructions[read.name] = read
    for computation in computations.values():
        write_out_parts(computation)
    return Module(computations, entry)


def read_instruction(name: str, text: str, root: bool) -> Instruction:
    """Read what stands to the right of a name."""
    match = OPCODE.search(text)
    if match is None:
        return Instruction(name, (), "unknown", (), text, root)
    inside, rest = split_brackets(text[match.end() :])
    operands = tuple(re.findall(r"%([\w.\-#]+)", inside))
    shape = text[: match.start()]
    return Instruction(name, read_shapes(shape), match[1], operands, rest, root, inside, tuple_texts(shape))


def write_out_parts(computation: Computation) -> None:
    """Give parts of tuples that are named as ``%fusion.7#2`` the ``get-tuple-element`` that stands for them.

    jax 0.12 writes programs so; before, every such part was an instruction of its own.
    """
    named = dict.fromkeys(
        operand for line in computation.instructions.values() for operand in line.operands if "#" in operand
    )
    for operand in named:
        names = operand.split("#")
        for depth in range(1, len(names)):
            whole, index = "#".join(names[:depth]), int(names[depth])
            part = f"{whole}#{index}"
            texts = computation.instructions[whole].parts if whole in computation.instructions else ()
            if part not in computation.instructions and index < len(texts):
                computation.instructions[part] = Instruction(
                    name=part,
                    shapes=read_shapes(texts[index]),
                    opcode="get-tuple-element",
                    operands=(whole,),
                    rest=f", index={index}",
                    root=False,
                    parts=tuple_texts(texts[index]),
                )


def tuple_texts(shape: str) -> tuple[str, ...]:
    """Split a tuple's shape into the texts of its parts; an array has none.

    Example:
        >>> tuple_texts("(f32[2,3]{1,0:T(8,128)}, (s32[], u32[4]))")
        ('f32[2,3]{1,0:T(8,128)}', '(s32[], u32[4])')
    """
    shape = shape.strip()
    if not shape.startswith("("):
        return ()
    parts, depth, begun = [], 0, 1
    for at, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(re.sub(r"/\*.*?\*/", "", shape[begun:at]).strip())
            begun = at + 1
        if depth == 0:
            break
    return tuple(part for part in parts if part)


def split_brackets(text: str) -> tuple[str, str]:
    """Split what follows an opening bracket at the closing one.

    Example:
        >>> split_brackets("a, (b)), c=1")
        ('a, (b)', ', c=1')
    """
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:at], text[at + 1 :]
    return text, ""


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int:
    """Return how often a ``while`` runs: known to the compiler, or told from its counter, bound and step.

    A loop whose end depends on data counts once.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition = module.computations.get(loop.attribute("condition") or "")
    body = module.computations.get(loop.attribute("body") or "")
    if condition is None or body is None or condition.root.opcode != "compare":
        return 1
    counter, bound = (condition.instructions[name] for name in condition.root.operands)
    if counter.opcode == "constant":
        counter, bound = bound, counter
    index = counter.attribute("index")
    if counter.opcode != "get-tuple-element" or bound.opcode != "constant" or index is None:
        return 1
    start = constant_of(computation, tuple_part(computation, loop.operands[0], int(index)))
    last = tuple_part(body, body.root.name, int(index))
    step = step_of(body, last)
    direction = condition.root.attribute("direction")
    span = abs(int(bound.argument) - (start or 0)) + (direction in ("LE", "GE"))
    return max(0, -(-span // max(1, abs(step))))


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


def tuple_part(computation: Computation, name: str, index: int) -> Instruction | None:
    """Return the instruction that gives a tuple's part, where the tuple is built in the same computation."""
    made = computation.instructions.get(name)
    if made is None or made.opcode != "tuple" or index >= len(made.operands):
        return None
    return computation.instructions.get(made.operands[index])


def constant_of(computation: Computation, line: Instruction | None) -> int | None:
    """Return the whole number that an instruction stands for, looking through copies."""
    while line is not None and line.opcode in ("copy", "bitcast", "convert", "copy-done", "copy-start"):
        line = computation.instructions.get(line.operands[0])
    if line is None or line.opcode != "constant" or not re.fullmatch(r"-?\d+", line.argument):
        return None
    return int(line.argument)


def step_of(body: Computation, line: Instruction | None) -> int:
    """Return by how much a loop's counter grows each time: the constant that is added, else 1."""
    while line is not None and line.opcode in ("copy", "copy-done", "copy-start"):
        line = body.instructions.get(line.operands[0])
    if line is None or line.opcode != "add":
        return 1
    found = [constant_of(body, body.instructions.get(name)) for name in line.operands]
    return next((number for number in found if number), 1)


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
