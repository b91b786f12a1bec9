"""The check at start-up: a kernel against attention written out in fp32, on packed rows of the run's own shapes.

A kernel that is fast and wrong silently trains a worse model. So before a run, values and gradients of the
kernel, on the run's devices, mesh and dtype, are held against the reference; rows have one segment, few, many and
padding. A kernel that differs is refused, and a named one takes its place.
"""

import dataclasses
import logging
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.attention.attend import attend
from alpacare_jax.attention.names import AUTO, KERNELS
from alpacare_jax.attention.packed import SEGMENTS
from alpacare_jax.attention.plain import attend_masked, segment_mask
from alpacare_jax.attention.selection import (
    KernelChoice,
    kernel_context,
    select_kernel,
    unsupported_reason,
)
from alpacare_jax.errors import ConfigError

logger = logging.getLogger(__name__)

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 3e-3}
"""Largest relative error by dtype, about three times the error of rounding."""
ACCELERATOR_FLOAT32 = 1e-2
"""That of fp32 on accelerators, whose fast matrix units round its factors to fewer bits."""
TOKEN_SHARE = 10.0
"""How much larger than its bound the error of the worst single token may be."""
REFERENCE_LENGTH = 4096
"""Longest row that the reference scores in full; longer rows are cut to it, as far as the mesh divides it."""
REFERENCE = "xla"
"""The plain form, which is not checked against itself."""
PARTS = ("values", "d_query", "d_key", "d_value")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of the queries, keys and values of a run.

    Args:
        heads: Query heads.
        kv_heads: Key/value heads.
        head_dim: Size of a head.
        length: Tokens in a row.
        dtype: Compute dtype.
    """

    heads: int
    kv_heads: int
    head_dim: int
    length: int
    dtype: str


SAMPLE = Shapes(heads=8, kv_heads=2, head_dim=128, length=1024, dtype="bfloat16")
"""Shapes that kernels are tried on where no run gives them: a Llama 3's, with fewer heads."""
SMALL = Shapes(heads=4, kv_heads=2, head_dim=64, length=256, dtype="float32")
"""The same for CPUs."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What the comparison of a kernel with the reference found.

    Args:
        kernel: The kernel.
        bound: Largest relative error allowed.
        errors: Relative error by part: ``values``, ``d_query``, ``d_key``, ``d_value``; empty where it did not run.
        worst_token: The largest error of a single token, relative to an average one, over all parts.
        failure: Why it did not run; None where it did.
        seconds: Wall time, compiling included.
    """

    kernel: str
    bound: float
    errors: dict[str, float]
    worst_token: float
    failure: str | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the kernel ran and stayed within its bounds; an error that is not a number is beyond any."""
        within = bool(self.errors) and all(error <= self.bound for error in self.errors.values())
        return self.failure is None and within and self.worst_token <= TOKEN_SHARE * self.bound

    def __str__(self) -> str:
        if self.failure is not None:
            return f"{self.kernel} did not run: {self.failure}"
        errors = ", ".join(f"{part} {error:.1e}" for part, error in self.errors.items())
        verdict = "agrees with" if self.passed else "DIFFERS FROM"
        return (
            f"{self.kernel} {verdict} plain fp32: {errors}, worst token {self.worst_token:.1e} "
            f"(bounds {self.bound:.0e}, {TOKEN_SHARE * self.bound:.0e}; {self.seconds:.1f} s)"
        )


def select_and_verify(
    shapes: Shapes,
    mesh: Mesh,
    asked: str = AUTO,
    *,
    segments: Callable[[], int] = lambda: 0,
    most_segments: int = SEGMENTS,
) -> KernelChoice:
    """Choose a run's kernel and check it; where its output differs, warn and take the fallback.

    Args:
        shapes: Of the run.
        mesh: Of the run.
        asked: The kernel that was asked for, or "auto".
        segments: Counts the segments of the run's fullest row; asked on GPUs, whose kernel "cudnn" takes so many only.
        most_segments: How many that is.

    Raises:
        ConfigError: The kernel asked for does not exist, cannot run here, or differs from the reference.
    """
    here = kernel_context(shapes.dtype, shapes.head_dim, shapes.length, mesh)
    if here.platform == "gpu":
        here = dataclasses.replace(here, segments=segments(), most_segments=most_segments)
    checks: list[Check] = []
    while True:
        choice = select_kernel(here, asked, refused=[check.kernel for check in checks])
        if choice.name != REFERENCE:
            checks.append(check_kernel(choice.name, shapes, mesh, segments=most_segments))
        if choice.name == REFERENCE or checks[-1].passed:
            return dataclasses.replace(choice, checks=tuple(checks))
        if asked != AUTO:
            raise ConfigError(
                "the kernel's output differs from the reference",
                where="compute.attention",
                found=checks[-1],
                expected="the values and gradients of plain attention in fp32",
                remedy=f"take {choice.fallback}, or auto",
            )
        logger.warning("ATTENTION KERNEL REFUSED. %s. Taking %r instead.", checks[-1], choice.fallback)


def check_kernel(name: str, shapes: Shapes, mesh: Mesh, *, segments: int = SEGMENTS) -> Check:
    """Compare a kernel's values and gradients with attention written out in fp32, on a mesh.

    Two rows for each device that rows are split over, and as many heads as show the run's sharing of key/value heads:
    two key/value heads for each device that heads are split over, where there are so many.

    Args:
        name: The kernel.
        shapes: Of the run.
        mesh: Of the run.
        segments: See :func:`alpacare_jax.attention.attend`.
    """
    started = time.monotonic()
    platform = mesh.devices.flat[0].platform
    bound = BOUNDS[shapes.dtype] if platform == "cpu" or shapes.dtype != "float32" else ACCELERATOR_FLOAT32
    try:
        with sharding.use_mesh(mesh):
            errors, worst = _compare(name, _cut(shapes), mesh, segments)
        failure = None
    except (RuntimeError, NotImplementedError, ValueError, TypeError, ImportError, AttributeError) as error:
        # What kernels and compilers raise; the caller refuses the kernel or the run.
        errors, worst, failure = {}, float("nan"), f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return Check(name, bound, errors, worst, failure, time.monotonic() - started)


def check_all_kernels(mesh: Mesh) -> dict[str, str]:
    """Check every kernel that can run on a mesh, on a sample of shapes that suits the platform.

    Returns:
        Kernel -> its state, for people. The kernel that "auto" takes comes first.
    """
    shapes = SMALL if mesh.devices.flat[0].platform == "cpu" else SAMPLE
    here = kernel_context(shapes.dtype, shapes.head_dim, shapes.length, mesh)
    checks: dict[str, Check] = {}
    said = {REFERENCE: "the plain form, which the others are checked against"}
    for name in KERNELS:
        if reason := unsupported_reason(name, here):
            said[name] = f"cannot run: {reason}"
        elif name != REFERENCE:
            checks[name] = check_kernel(name, shapes, mesh)
            said[name] = str(checks[name]).removeprefix(f"{name} ")
    choice = select_kernel(here, refused=[name for name, check in checks.items() if not check.passed])
    taken = f"taken by auto ({choice.reason})"
    found = {choice.name: taken if choice.name == REFERENCE else f"{taken}; {said[choice.name]}"}
    return found | {name: said[name] for name in KERNELS if name != choice.name}


def _cut(shapes: Shapes) -> Shapes:
    """Leave out heads and tokens that would only repeat what the others show."""
    shards = sharding.shards_of("kv_heads")
    kv_heads = min(shapes.kv_heads, 2 * shards)
    unit = 256 * sharding.shards_of("length")
    length = shapes.length
    if length > REFERENCE_LENGTH and unit <= REFERENCE_LENGTH:
        length = REFERENCE_LENGTH // unit * unit
    return dataclasses.replace(
        shapes, heads=shapes.heads // shapes.kv_heads * kv_heads, kv_heads=kv_heads, length=length
    )


def _compare(name: str, shapes: Shapes, mesh: Mesh, segments: int) -> tuple[dict[str, float], float]:
    rows = 2 * sharding.shards_of("batch")
    ids = jax.device_put(packed_segments(rows, shapes.length, segments), sharding.batch_sharding(mesh))
    sizes = (shapes.heads, shapes.kv_heads, shapes.kv_heads)
    axes = ("heads", "kv_heads", "kv_heads")

    def draw() -> tuple[jax.Array, ...]:
        keys = jax.random.split(jax.random.key(0), 3)
        shape = (rows, shapes.length)
        return tuple(
            sharding.constrain(
                jax.random.normal(key, (*shape, size, shapes.head_dim), jnp.dtype(shapes.dtype)),
                "batch",
                "length",
                axis,
                None,
            )
            for key, size, axis in zip(keys, sizes, axes, strict=True)
        )

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k, v, ids, kernel=name, segments=segments)

    def reference(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend_masked(q, k, v, segment_mask(ids))

    qkv = jax.jit(draw)()
    found = jax.jit(lambda *qkv: _values_and_gradients(kernel, qkv))(*qkv)
    with jax.default_matmul_precision("highest"):
        exact = tuple(x.astype(jnp.float32) for x in qkv)
        expected = jax.jit(lambda *qkv: _values_and_gradients(reference, qkv))(*exact)
    relative, worst = jax.device_get(jax.jit(_errors)(found, expected))
    return dict(zip(PARTS, map(float, relative), strict=True)), float(np.max(worst))


def _values_and_gradients(function: object, qkv: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Return values, and the gradients of a sum that weighs every one of them differently."""

    def summed(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = function(*qkv)  # type: ignore[operator]
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    grads, out = jax.grad(summed, argnums=(0, 1, 2), has_aux=True)(*qkv)
    return (out, *grads)


def _errors(found: tuple[jax.Array, ...], expected: tuple[jax.Array, ...]) -> tuple[list, list]:
    """Return each part's relative error, and its worst token's error relative to an average token's size."""
    relative, worst = [], []
    for a, b in zip(found, expected, strict=True):
        error = jnp.sum((a.astype(jnp.float32) - b) ** 2, axis=(2, 3))
        size = jnp.sum(b**2, axis=(2, 3))
        relative.append(jnp.sqrt(error.sum() / size.sum()))
        worst.append(jnp.sqrt(error.max() / size.mean()))
    return relative, worst


def packed_segments(rows: int, length: int, segments: int = SEGMENTS) -> np.ndarray:
    """Draw segment ids of packed rows: in turn few segments, as many as are allowed, one, and some with padding.

    Returns:
        Ids [rows, length], int32, 0 for padding at the end.
    """
    rng = np.random.default_rng(0)
    ids = np.zeros((rows, length), np.int32)
    for row in range(rows):
        count, padding = ((7, length // 10), (segments, 0), (1, 0), (2, length // 3))[row % 4]
        used = length - padding
        count = min(count, used)
        cuts = np.sort(rng.choice(np.arange(1, used), count - 1, replace=False))
        for number, part in enumerate(np.split(np.arange(used), cuts), start=1):
            ids[row, part] = number
    return ids
