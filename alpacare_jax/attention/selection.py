"""Which kernel runs: the fastest supported one, or the one that was asked for."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from alpacare_jax import sharding
from alpacare_jax.attention.names import AUTO, KERNELS, check_name
from alpacare_jax.attention.packed import SEGMENTS
from alpacare_jax.attention.splash import LANES
from alpacare_jax.errors import ConfigError

PREFERENCES = {
    "tpu": ("splash", "chunked", "xla"),
    "gpu": ("cudnn", "tokamax", "chunked", "xla"),
    "cpu": ("xla", "chunked"),
}
"""Kernels by platform, the fastest first."""
PLAIN_LENGTH = 2048
"""Longest row for which plain attention is chosen: its scores grow with the square."""
OLDEST_JAX = (0, 11, 1)
"""Oldest jax whose packed cuDNN attention is right where query heads share key/value heads."""
OLDEST_GPU = (9, 0)
"""Oldest compute capability, Hopper's, of the packed kernels."""


@dataclasses.dataclass(frozen=True)
class KernelContext:
    """What a kernel would have to work with.

    Args:
        platform: "cpu", "gpu" or "tpu".
        device_kind: What the device calls itself.
        dtype: Of queries, keys and values.
        head_dim: Size of a head.
        length: Tokens in a row.
        context: Over how many devices the length of a row is split.
        segments: Segments of the fullest row, its padding counted as one; 0 where that is not known.
        most_segments: Most segments that the kernel "cudnn" is to take.
        compute_capability: Of an NVIDIA GPU that is here; None for other devices and those that are not here.
        jax_version: Of the jax that runs.
        has_tokamax: Whether that package is installed.
    """

    platform: str
    device_kind: str
    dtype: str
    head_dim: int
    length: int
    context: int = 1
    segments: int = 0
    most_segments: int = SEGMENTS
    compute_capability: tuple[int, int] | None = None
    jax_version: tuple[int, ...] = jax.__version_info__
    has_tokamax: bool = False


@dataclasses.dataclass(frozen=True)
class KernelChoice:
    """The selected kernel, and why.

    Args:
        name: The kernel.
        reason: Why it was selected, for log lines.
        fallback: The kernel to take where this one fails its check; None where there is none.
        checks: Every check that was made, the last one of the kernel that is taken; none where nothing was checked,
            or the plain form is taken.
    """

    name: str
    reason: str
    fallback: str | None
    checks: tuple[Any, ...] = ()


def kernel_context(
    dtype: str, head_dim: int, length: int, mesh: Mesh | AbstractMesh | None = None
) -> KernelContext:
    """Describe where attention would run: on a mesh, or on the first device where None is given."""
    local = jax.local_devices()
    device: Any = local[0]
    context = 1
    if mesh is not None and not mesh.empty:
        device = mesh.abstract_mesh.abstract_device or device
        context = sharding.shards_on(mesh, "length")
    capability = None
    if device.platform == "gpu":  # of the first GPU here; none where the program is for others
        texts = (str(getattr(each, "compute_capability", "")) for each in local)
        found = next((text.split(".") for text in texts if text), None)
        capability = (int(found[0]), int(found[1])) if found else None
    return KernelContext(
        device.platform,
        device.device_kind,
        jnp.dtype(dtype).name,
        head_dim,
        length,
        context,
        compute_capability=capability,
        has_tokamax=importlib.util.find_spec("tokamax") is not None,
    )


def unsupported_reason(name: str, here: KernelContext) -> str | None:
    """Say why a kernel cannot run in a context, or None where it is supported.

    Example:
        >>> unsupported_reason("splash", kernel_context("float32", 128, 1024))
        'it is for TPUs, and these devices are cpu'
    """
    if name == "splash":
        return _unsupported_on_splash(here)
    if name in ("cudnn", "tokamax"):
        return _unsupported_on_gpu(name, here)
    return None


def _unsupported_on_splash(here: KernelContext) -> str | None:
    if here.platform != "tpu":
        return f"it is for TPUs, and these devices are {here.platform}"
    if here.dtype not in ("float32", "bfloat16"):
        return f"it takes float32 and bfloat16, not {here.dtype}"
    if here.context > 1 and here.length % (here.context * LANES):
        return (
            f"each of {here.context} context shards must hold a multiple of {LANES} tokens, and rows have "
            f"{here.length}"
        )
    return None


def _unsupported_on_gpu(name: str, here: KernelContext) -> str | None:
    if here.platform != "gpu":
        return f"it is for NVIDIA GPUs, and these devices are {here.platform}"
    if here.compute_capability is not None and here.compute_capability < OLDEST_GPU:
        found = ".".join(map(str, here.compute_capability))
        return f"it needs Hopper or newer (compute capability 9.0), and {here.device_kind} has {found}"
    if here.jax_version < OLDEST_JAX:
        found = ".".join(map(str, here.jax_version))
        return f"it needs jax 0.11.1 or newer, and this is {found}"
    if here.dtype not in ("bfloat16", "float16"):
        return f"it takes bfloat16 and float16, not {here.dtype}"
    if here.head_dim % 8 or here.head_dim > 256:
        return f"it takes head sizes that are multiples of 8 up to 256, not {here.head_dim}"
    if here.context > 1:
        return f"it does not split the length of rows, and the mesh splits it over {here.context} devices"
    if name == "cudnn" and here.segments > here.most_segments:
        return (
            f"a row has {here.segments} segments, its padding counted, and compute.attention_segments is "
            f"{here.most_segments}; more of them cost memory"
        )
    if name == "tokamax" and not here.has_tokamax:
        return 'the package is not installed: pip install "alpacare-jax[tokamax]"'
    return None


def select_kernel(here: KernelContext, asked: str = AUTO, refused: Sequence[str] = ()) -> KernelChoice:
    """Choose the kernel for a context.

    Args:
        here: Devices, dtype and shapes.
        asked: The kernel that was asked for, or "auto".
        refused: Kernels that are not to be taken, because they failed.

    Raises:
        ConfigError: The kernel asked for does not exist, or cannot run here; the message says why and what could.
    """
    check_name(asked)
    order = PREFERENCES.get(here.platform, ("chunked", "xla"))
    if here.platform == "cpu" and here.length > PLAIN_LENGTH:
        order = ("chunked", "xla")
    against = {name: unsupported_reason(name, here) for name in KERNELS}
    against |= dict.fromkeys(refused, "it was refused")
    able = [name for name in order if against[name] is None]
    if asked == AUTO:
        passed_over = [f"{name}: {against[name]}" for name in order[: order.index(able[0])]]
        reason = f"first choice for {here.device_kind}" if not passed_over else "; ".join(passed_over)
        return KernelChoice(able[0], reason, able[1] if len(able) > 1 else None)
    if against[asked] is not None:
        raise ConfigError(
            "the attention kernel cannot run here",
            where="compute.attention",
            found=f"{asked}: {against[asked]}",
            expected=", ".join((AUTO, *(name for name in KERNELS if against[name] is None))),
            remedy=f"take {able[0]}, or auto, which does",
        )
    others = [name for name in able if name != asked]
    return KernelChoice(asked, "asked for", others[0] if others else None)
