"""GPUs that are not present, as XLA's compiler for NVIDIA GPUs wants them described.

The compiler comes with jax's CUDA plug-in and needs neither a GPU nor NVIDIA's libraries, as long as it is told what
it would otherwise ask a device, and does not try kernels out. So kernels are chosen by rule here, and by trial where
the program runs; what they read, write and keep is the same but for workspaces, for which an allowance is made.

Where jax finds that plug-in and no CUDA, it ends the process (seen with 0.10 and 0.12). So on machines without a GPU
the plug-in lies in a folder of its own, which only the compiler's process looks into.

Source: https://github.com/openxla/xla/pull/16913 for compiling without a device.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ServiceError
from alpacare_jax.hardware.chips import Chip
from alpacare_jax.hardware.topology import Topology
from alpacare_jax.plan.templates import render

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""Packages that hold the compiler, the newer first."""
FETCHED = ("jax-cuda12-plugin", "jax-cuda12-pjrt")
"""What is fetched if none is installed; the older needs less from drivers, and compiles the same."""
CUDNN = (9, 12)
"""Version of cuDNN that a program is compiled for: what jax's CUDA plug-ins ask for at least, rounded up."""
RUNTIME = (12, 9)
"""Version of the CUDA runtime it is compiled for."""


def plugin() -> str | None:
    """Return the installed package that holds the compiler; None if there is none."""
    return next((name for name in PLUGINS if importlib.util.find_spec(name) is not None), None)


def own_folder() -> Path:
    """Return where the compiler lies for this environment and its jax, if it was fetched."""
    return Path(sys.prefix) / "share" / "alpacare" / f"gpu-compiler-{importlib.metadata.version('jax')}"


def fetched() -> str | None:
    """Return the version of the compiler that was fetched; None if none was."""
    found = importlib.metadata.distributions(name=FETCHED[0], path=[str(own_folder())])
    return next((one.version for one in found), None)


def fetch() -> Path:
    """Fetch the compiler, about 200 MB, into a folder of its own in this environment.

    Raises:
        ServiceError: pip did not install it; the message holds the command.
    """
    jax, folder = importlib.metadata.version("jax"), own_folder()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(folder)]
    command += [f"{package}=={jax}" for package in FETCHED]
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ServiceError(
            "the GPU compiler could not be fetched",
            where=str(folder),
            found=f"pip ended with status {done.returncode}; see its messages above",
            remedy="install it by hand: " + " ".join(command[2:]),
        )
    return folder


def target(chip: Chip) -> str:
    """Describe a GPU in the compiler's own words.

    Example:
        >>> from alpacare_jax.hardware.chips import CHIPS
        >>> "core_count: 132" in target(CHIPS["h100-80gb"])
        True
    """
    return render("gpu_target.textproto", chip=chip, gpu=chip.processor, cudnn=CUDNN, runtime=RUNTIME)


def devices_of(topology: Topology) -> list[Any]:
    """Return GPUs that are not present, to compile for; nodes one after another."""
    from jax.experimental import topologies

    per_node = topology.devices // topology.nodes
    made = topologies.get_topology_desc(
        platform="cuda", target_config=target(topology.chip), topology=f"1x{topology.nodes}x{per_node}"
    )
    answer_for(topology.chip)
    return list(made.devices)


def answer_for(chip: Chip) -> None:
    """Let jax's cuDNN attention ask about a chip that is not present: it looks at the first device of this process."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    capability = chip.compute_capability
    assert capability is not None

    def version(wanted: str) -> tuple[int, ...]:
        return tuple(map(int, wanted.split(".")))

    cudnn.check_compute_capability = lambda wanted: capability >= version(wanted)
    cudnn.is_cuda_compute_capability_equal = lambda wanted: capability == version(wanted)
    cudnn.check_cudnn_version = lambda: CUDNN[0] * 10000 + CUDNN[1] * 100
