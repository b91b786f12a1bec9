"""Every kernel on this machine, for people: the one that is taken, those that agree, those that cannot run and why."""

from jax.sharding import Mesh

from alpacare_jax.attention.check import REFERENCE, Shapes, check_kernel
from alpacare_jax.attention.names import KERNELS
from alpacare_jax.attention.selection import kernel_context, select_kernel, unsupported_reason

SAMPLE = Shapes(heads=8, kv_heads=2, head_dim=128, length=1024, dtype="bfloat16")
"""Shapes that kernels are tried on where no run gives them: a Llama 3's, with fewer heads."""
SMALL = Shapes(heads=4, kv_heads=2, head_dim=64, length=256, dtype="float32")
"""The same for CPUs."""


def check_all_kernels(mesh: Mesh, shapes: Shapes | None = None) -> dict[str, str]:
    """Check every kernel that can run on a mesh.

    Args:
        mesh: Devices to run on.
        shapes: What to run; a sample that suits the platform when None.

    Returns:
        Kernel -> what is to be said of it. The one that "auto" takes stands first.
    """
    if shapes is None:
        shapes = SMALL if mesh.devices.flat[0].platform == "cpu" else SAMPLE
    here = kernel_context(shapes.dtype, shapes.head_dim, shapes.length, mesh)
    checks = {
        name: check_kernel(name, shapes, mesh)
        for name in KERNELS
        if name != REFERENCE and not unsupported_reason(name, here)
    }
    choice = select_kernel(here, refused=[name for name, check in checks.items() if not check.passed])
    found = {choice.name: f"taken by auto ({choice.reason})"}
    for name in KERNELS:
        if name in checks:
            found[name] = "; ".join(
                part for part in (found.get(name), str(checks[name]).removeprefix(f"{name} ")) if part
            )
        elif name == REFERENCE:
            found.setdefault(name, "the plain form, which the others are checked against")
        else:
            found[name] = f"cannot run: {unsupported_reason(name, here)}"
    return found
