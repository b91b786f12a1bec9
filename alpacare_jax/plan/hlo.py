"""Reading a compiled program's text (XLA's HLO) just far enough to count what it does.

Only the parts that counting needs are read: names, shapes with the memory they lie in, operands and attributes.
"""

import dataclasses
import functools
import math
import re

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
