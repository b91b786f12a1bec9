"""Reading a compiled program's text (XLA's HLO) just far enough to count what it does.

Only the parts that counting needs are read: names, shapes with the memory they lie in, operands and attributes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

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
        digits = re.search(r"\d+", self.dtype)  # bf16, s4, f8e4m3fn; a bool takes a byte, a token nothing
        bits = 8 if self.dtype == "pred" else int(digits[0]) if digits else 0
        return math.prod(self.sizes) * bits // 8


ARRAY = re.compile(r"(\b[a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
NOTHING = Shape("token", ())


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


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line of a computation.

    Args:
        home: The computation it belongs to.
        name: Its name.
        shape: What it returns, as text.
        opcode: What it does.
        operands: Names of its operands.
        argument: The text between the brackets of a constant or parameter.
        rest: What follows the operands: attributes as text.
        root: Whether the computation returns what this line returns.
    """

    home: "Computation"
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...] = ()
    argument: str = ""
    rest: str = ""
    root: bool = False

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays that it returns, a tuple's in their order."""
        return read_shapes(self.shape)

    @property
    def array(self) -> Shape:
        """The first of them; an empty shape if there is none."""
        return self.shapes[0] if self.shapes else NOTHING

    @property
    def inputs(self) -> list["Instruction"]:
        """The lines that return its operands."""
        return [self.home.lines[name] for name in self.operands if name in self.home.lines]

    def attribute(self, name: str) -> str:
        """Return the value of an attribute that is one word or a computation's name; empty if it is missing."""
        match = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return match[1] if match else ""

    def called(self, attribute: str = "calls") -> "Computation | None":
        """Return the computation that an attribute names."""
        return self.home.module.computations.get(self.attribute(attribute))

    @property
    def op_name(self) -> str:
        """Where in the source the line comes from, as jax names it."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
    """A named list of instructions of a module."""

    module: "Module"
    name: str
    lines: dict[str, Instruction] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.lines.values())

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(line for line in self if line.root)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Every instruction's users."""
        found: dict[str, list[Instruction]] = {}
        for line in self:
            for operand in line.operands:
                found.setdefault(operand, []).append(line)
        return found

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """The parameters in their order."""
        lines = [line for line in self if line.opcode == "parameter"]
        return sorted(lines, key=lambda line: int(line.argument))


@dataclasses.dataclass(eq=False)
class Module:
    """A program: its computations, and the name of the one it starts with."""

    computations: dict[str, Computation] = dataclasses.field(default_factory=dict)
    entry: str = ""


HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
OPCODE = re.compile(r" ([a-z][\w\-]*)\(")


def read_module(text: str) -> Module:
    """Read a program's text."""
    module, current = Module(), None
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = module.computations[head[2]] = Computation(module, head[2])
            module.entry = head[2] if head[1] else module.entry
        elif current is not None and (match := LINE.match(line)):
            current.lines[match[2]] = read_instruction(current, match[2], match[3], bool(match[1]))
    for computation in module.computations.values():
        write_out_parts(computation)
    return module


def read_instruction(home: Computation, name: str, text: str, root: bool) -> Instruction:
    """Read the text to the right of a name."""
    match = OPCODE.search(text)
    if match is None:
        return Instruction(home, name, "", "unknown", rest=text, root=root)
    inside, rest = split_brackets(text[match.end() :])
    argument = ",".join(inside)
    operands = tuple(re.findall(r"%([\w.\-#]+)", argument))
    return Instruction(home, name, text[: match.start()], match[1], operands, argument, rest, root)


def write_out_parts(computation: Computation) -> None:
    """Add the ``get-tuple-element`` of every part of a tuple that is named as ``%fusion.7#2``.

    jax 0.12 writes programs so; before, every such part was an instruction of its own.
    """
    lines = computation.lines
    named = dict.fromkeys(operand for line in computation for operand in line.operands if "#" in operand)
    for operand in named:
        whole, *indices = operand.split("#")
        for index in indices:
            part = f"{whole}#{index}"
            if part not in lines and whole in lines:
                texts = split_brackets(lines[whole].shape.strip().removeprefix("("))[0]
                shape = re.sub(r"/\*.*?\*/", "", texts[int(index)])
                lines[part] = Instruction(
                    computation, part, shape, "get-tuple-element", (whole,), rest=f", index={index}"
                )
            whole = part


def split_brackets(text: str) -> tuple[list[str], str]:
    """Split what follows an opening bracket into its parts, and the text after the closing bracket.

    Example:
        >>> split_brackets("f32[2,3]{1,0:T(8,128)}, (s32[], u32[4])), c=1")
        (['f32[2,3]{1,0:T(8,128)}', ' (s32[], u32[4])'], ', c=1')
    """
    parts, depth, begun = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0 or (depth == 0 and letter == ","):
            parts.append(text[begun:at])
            begun = at + 1
        if depth < 0:
            return parts, text[begun:]
    return [text], ""
