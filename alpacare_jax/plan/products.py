"""Operations of matrix products and attention kernels, read from the lines of a compiled program."""

import json
import math
import re

from alpacare_jax.plan.hlo import Computation, Instruction, Module

KERNEL_PRODUCTS = (("dkv", 4), ("dq", 3), ("bwd", 5), ("fwd", 2), ("splash", 2), ("flash", 2))
"""Products of the size [T, S, H] in an attention kernel, by a word of its name; the first that occurs counts."""


def line_flops(module: Module, computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of a line: a product, a kernel, or a fusion that holds some."""
    if line.opcode in ("convolution", "dot"):
        return product_flops(computation, line)
    if line.opcode == "custom-call":
        if "__cublas$" in line.rest:
            return library_product_flops(computation, line)
        return kernel_flops(computation, line) if is_kernel(line) else 0.0
    if line.opcode == "fusion":
        inner = module.computations.get(line.attribute("calls") or "")
        if inner is not None:
            return sum(line_flops(module, inner, part) for part in inner.instructions.values())
    return 0.0


def is_kernel(line: Instruction) -> bool:
    """Say whether a line calls an attention kernel: one of Pallas on TPUs, one of cuDNN on GPUs."""
    return line.opcode == "custom-call" and ("tpu_custom_call" in line.rest or "__cudnn$fmha" in line.rest)


def library_product_flops(computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of a matrix product that cuBLAS does; its dimensions stand in its settings."""
    settings = re.search(r'"dot_dimension_numbers":(\{[^}]*\})', line.rest)
    left = computation.instructions[line.operands[0]].shapes[0]
    contracted = json.loads(settings[1])["lhs_contracting_dimensions"] if settings else []
    return 2.0 * math.prod(line.shapes[0].sizes) * math.prod(left.sizes[int(at)] for at in contracted)


def product_flops(computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of a matrix product or convolution, padding and holes left out."""
    left, right = (computation.instructions[name].shapes[0] for name in line.operands[:2])
    result = line.shapes[0]
    if line.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        summed = math.prod(
            left.sizes[at] for at in map(int, re.findall(r"\d+", contracted[1] if contracted else ""))
        )
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
    if "__cudnn$fmha" in line.rest:
        return library_attention_flops(computation, line)
    products = next((n for word, n in KERNEL_PRODUCTS if word in line.name or word in line.op_name), 0)
    if not products:
        return 0.0
    given = [
        computation.instructions[name].shapes for name in line.operands if name in computation.instructions
    ]
    # [B, N, T, H], or [N, T, H] where a device has one row.
    arrays = [s[0] for s in given if s and len(s[0].sizes) in (3, 4) and s[0].dtype in ("bf16", "f16", "f32")]
    large = [shape for shape in arrays if shape.dtype != "f32"] or arrays
    blocks = next((s[0].sizes for s in given if s and s[0].dtype == "s8" and len(s[0].sizes) == 3), None)
    if len(large) < 2:
        return 0.0
    queries, keys = max(large, key=lambda shape: math.prod(shape.sizes)), large[1]
    *rows, heads, length, head = queries.sizes
    share = (blocks[1] + 1) / (2 * blocks[1]) if blocks and blocks[1] == blocks[2] else 1.0
    return 2.0 * products * math.prod(rows) * heads * length * keys.sizes[-2] * head * share


def library_attention_flops(computation: Computation, line: Instruction) -> float:
    """Return 2 x the multiplications of attention by cuDNN, what causality discards left out.

    Queries come first, [B, T, N, H], then keys, [B, S, K, H].
    """
    queries, keys = (computation.instructions[name].shapes[0] for name in line.operands[:2])
    products = 5 if "Backward" in line.rest else 2
    length = keys.sizes[1]
    share = (length + 1) / (2 * length) if "CAUSAL" in line.rest else 1.0
    return 2.0 * products * math.prod(queries.sizes) * length * share
