"""Operations of matrix products and attention kernels, read from the lines of a compiled program."""

import json
import math
import re

from alpacare_jax.plan.hlo import Instruction, Module

KERNEL_PRODUCTS = (("dkv", 4), ("dq", 3), ("bwd", 5), ("fwd", 2), ("splash", 2), ("flash", 2))
"""Products of the size [T, S, H] in an attention kernel, by a word of its name; the first that occurs counts."""
WINDOW = {"size": 1, "stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}
"""What a convolution's window says of each spatial dimension, and what holds where it does not."""


def line_flops(line: Instruction) -> float:
    """Return 2 x the multiplications of a line: a product, a kernel, or a fusion that holds some."""
    if line.opcode == "dot":
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        return product_flops(line, summed[1].split(",") if summed else [])
    if line.opcode == "convolution":
        return convolution_flops(line)
    if line.opcode == "custom-call" and "__cublas$" in line.rest:
        settings = re.search(r'"dot_dimension_numbers":(\{[^}]*\})', line.rest)
        return product_flops(line, json.loads(settings[1])["lhs_contracting_dimensions"] if settings else [])
    if "__cudnn$fmha" in line.rest and line.opcode == "custom-call":
        return library_attention_flops(line)
    if is_kernel(line):
        return kernel_flops(line)
    inner = line.called() if line.opcode == "fusion" else None
    return sum(map(line_flops, inner)) if inner is not None else 0.0


def is_kernel(line: Instruction) -> bool:
    """Say whether a line calls an attention kernel: one of Pallas on TPUs, one of cuDNN on GPUs."""
    return line.opcode == "custom-call" and ("tpu_custom_call" in line.rest or "__cudnn$fmha" in line.rest)


def product_flops(line: Instruction, summed: list[str]) -> float:
    """Return 2 x the multiplications of a matrix product over the summed dimensions of its left side."""
    left = line.inputs[0].array.sizes
    return 2.0 * math.prod(line.array.sizes) * math.prod(left[int(at)] for at in summed if at)


def convolution_flops(line: Instruction) -> float:
    """Return 2 x the multiplications of a convolution, padding and holes left out."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    if not labels:
        return 0.0
    lhs, rhs, out = labels.groups()
    left, right = (part.array.sizes for part in line.inputs[:2])
    result = line.array.sizes
    spatial = sorted(letter for letter in out if letter.isdigit())
    window = read_window(line.rest, len(spatial))
    taps = 1.0
    for at, letter in enumerate(spatial):
        sizes = {key: values[at] for key, values in window.items()}
        taps *= valid_taps(left[lhs.index(letter)], result[out.index(letter)], **sizes)
    groups = re.search(r"batch_group_count=(\d+)", line.rest)
    kernel_features = right[rhs.index("i")] / (int(groups[1]) if groups else 1)
    return 2.0 * result[out.index("b")] * result[out.index("f")] * kernel_features * taps


def read_window(text: str, spatial: int) -> dict[str, list[int]]:
    """Read a convolution's window: size, stride, low padding and the two dilations of each spatial dimension."""
    match = re.search(r"window=\{([^}]*)\}", text)
    given = dict(part.split("=") for part in match[1].split()) if match else {}
    return {
        key: [int(number.split("_")[0]) for number in given[key].split("x")]
        if key in given
        else [usual] * spatial
        for key, usual in WINDOW.items()
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


def kernel_flops(line: Instruction) -> float:
    """Return 2 x the multiplications of an attention kernel, blocks behind the causal line left out.

    The kernel's name says how many products of [T, S, H] it holds; its operands say how large they are, and one
    operand says which blocks run.
    """
    products = next((n for word, n in KERNEL_PRODUCTS if word in line.name or word in line.op_name), 0)
    given = [part.array for part in line.inputs]
    # [B, N, T, H], or [N, T, H] where a device has one row.
    arrays = [
        array for array in given if len(array.sizes) in (3, 4) and array.dtype in ("bf16", "f16", "f32")
    ]
    large = [array for array in arrays if array.dtype != "f32"] or arrays
    if not products or len(large) < 2:
        return 0.0
    queries, keys = max(large, key=lambda array: math.prod(array.sizes)), large[1]
    blocks = next((array.sizes for array in given if array.dtype == "s8" and len(array.sizes) == 3), None)
    share = (blocks[1] + 1) / (2 * blocks[1]) if blocks and blocks[1] == blocks[2] else 1.0
    return 2.0 * products * math.prod(queries.sizes) * keys.sizes[-2] * share


def library_attention_flops(line: Instruction) -> float:
    """Return 2 x the multiplications of attention by cuDNN, what causality discards left out.

    Queries come first, [B, T, N, H], then keys, [B, S, K, H].
    """
    queries, keys = (part.array.sizes for part in line.inputs[:2])
    products = 5 if "Backward" in line.rest else 2
    share = (keys[1] + 1) / (2 * keys[1]) if "CAUSAL" in line.rest else 1.0
    return 2.0 * products * math.prod(queries) * keys[1] * share


def attention_workspace(module: Module) -> int:
    """Return bytes to allow for the workspace of cuDNN's attention, of which one call runs at a time.

    A compiler without a GPU cannot ask the library. Its backward pass sums the gradient of the queries in fp32, and
    one number for each of the statistics that the forward pass leaves.
    """
    most = 0
    for line in (line for computation in module.computations.values() for line in computation):
        if line.opcode == "custom-call" and "__cudnn$fmhaSoftmaxBackward" in line.rest:
            given = [part.array for part in line.inputs[:5]]
            statistics = next((array.bytes for array in given if array.dtype == "f32"), 0)
            most = max(most, 4 * math.prod(given[0].sizes) + statistics)
    return most
