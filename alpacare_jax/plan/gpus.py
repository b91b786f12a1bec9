"""GPUs that are not there, as XLA's compiler for NVIDIA GPUs wants them described.

The compiler comes with jax's CUDA plug-in and needs neither a GPU nor NVIDIA's libraries, as long as it is told what
it would otherwise ask a device, and does not try kernels out. So kernels are chosen by rule here, and by trial where
the program runs; what they read, write and keep is the same but for workspaces, for which an allowance is made.

Where jax finds that plug-in and no CUDA, it ends the process (seen with 0.10 and 0.12). So on machines without a GPU
the plug-in lies in a folder of its own, which only the compiler's process looks into.

Sources: ``xla/backends/gpu/target_config/specs`` and NVIDIA's architecture white papers for the figures;
https://github.com/openxla/xla/pull/16913 for compiling without a device.
"""

import dataclasses
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ServiceError
from alpacare_jax.hardware.chips import Chip
from alpacare_jax.hardware.topology import Topology

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""Packages that hold the compiler, the newer first."""
FETCHED = ("jax-cuda12-plugin", "jax-cuda12-pjrt")
"""What is fetched where none is installed; the older needs less from drivers, and compiles the same."""
CUDNN = (9, 12)
"""Version of cuDNN that a program is compiled for: what jax's CUDA plug-ins ask for at least, rounded up."""
RUNTIME = (12, 9)
"""Version of the CUDA runtime it is compiled for."""


@dataclasses.dataclass(frozen=True)
class Silicon:
    """What a compiler for GPUs needs to know beside memory and bandwidth.

    Args:
        called: What such a device calls itself.
        cores: Streaming multiprocessors.
        fp32_units: Units for fp32 in each.
        threads: Most threads in each.
        shared: Bytes of shared memory of each, of which a block may take 1 KiB less.
        l2: Bytes of the second-level cache.
        ghz: Highest clock.
        accelerated: Whether its instruction set has an accelerated variant (``sm_90a``).
    """

    called: str
    cores: int
    fp32_units: int
    threads: int
    shared: int
    l2: int
    ghz: float
    accelerated: bool = False


KIB, MIB = 1 << 10, 1 << 20
SILICON = {
    "a100-40gb": Silicon("NVIDIA A100-SXM4-40GB", 108, 64, 2048, 164 * KIB, 40 * MIB, 1.41),
    "a100-80gb": Silicon("NVIDIA A100-SXM4-80GB", 108, 64, 2048, 164 * KIB, 40 * MIB, 1.41),
    "h100-80gb": Silicon(
        "NVIDIA H100 80GB HBM3", 132, 128, 2048, 228 * KIB, 50 * MIB, 1.98, accelerated=True
    ),
    "h200-141gb": Silicon("NVIDIA H200", 132, 128, 2048, 228 * KIB, 50 * MIB, 1.98, accelerated=True),
    "b200-180gb": Silicon("NVIDIA B200", 148, 128, 2048, 228 * KIB, 126 * MIB, 1.965, accelerated=True),
    "l4-24gb": Silicon("NVIDIA L4", 58, 128, 1536, 100 * KIB, 48 * MIB, 2.04),
    "l40s-48gb": Silicon("NVIDIA L40S", 142, 128, 1536, 100 * KIB, 96 * MIB, 2.52),
}
"""By chip of :data:`alpacare_jax.hardware.chips.CHIPS`."""


def plugin() -> str | None:
    """Return the installed package that holds the compiler; None where there is none."""
    return next((name for name in PLUGINS if importlib.util.find_spec(name) is not None), None)


def own_folder() -> Path:
    """Return where the compiler lies for this environment and its jax, if it was fetched."""
    return Path(sys.prefix) / "share" / "alpacare" / f"gpu-compiler-{importlib.metadata.version('jax')}"


def fetched() -> str | None:
    """Return the version of the compiler that was fetched; None where none was."""
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
            found=f"pip ended with status {done.returncode}; its messages stand above",
            remedy="run this in another way: " + " ".join(command[2:]),
        )
    return folder


def target(chip: Chip) -> str:
    """Describe a GPU in the compiler's own words (a ``GpuTargetConfigProto`` as text).

    Example:
        >>> from alpacare_jax.hardware.chips import CHIPS
        >>> "core_count: 132" in target(CHIPS["h100-80gb"])
        True
    """
    silicon = SILICON[chip.name]
    assert chip.compute_capability is not None
    major, minor = chip.compute_capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * KIB}
  shared_memory_per_core: {silicon.shared}
  shared_memory_per_block_optin: {silicon.shared - KIB}
  threads_per_core_limit: {silicon.threads}
  core_count: {silicon.cores}
  fpus_per_core: {silicon.fp32_units}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: {2**16}
  registers_per_block_limit: {2**16}
  memory_bandwidth: {int(chip.memory_bytes_per_s)}
  l2_cache_size: {silicon.l2}
  clock_rate_ghz: {silicon.ghz}
  device_memory_size: {chip.nominal_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor}{_extension(silicon)} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}
runtime_version {{ major: {RUNTIME[0]} minor: {RUNTIME[1]} }}
device_description_str: "{silicon.called}"
"""


def _extension(silicon: Silicon) -> str:
    return " feature_extension: ACCELERATED_FEATURES" if silicon.accelerated else ""


def devices_of(topology: Topology) -> list[Any]:
    """Return GPUs that are not there, to compile for; nodes one after another."""
    from jax.experimental import topologies

    per_node = topology.devices // topology.nodes
    made = topologies.get_topology_desc(
        platform="cuda", target_config=target(topology.chip), topology=f"1x{topology.nodes}x{per_node}"
    )
    answer_for(topology.chip)
    return list(made.devices)


def answer_for(chip: Chip) -> None:
    """Let jax's cuDNN attention ask about a chip that is not there: it looks at the first device of this process."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    capability = chip.compute_capability
    assert capability is not None

    def at_least(wanted: str) -> bool:
        return capability >= tuple(map(int, wanted.split(".")))

    def exactly(wanted: str) -> bool:
        return capability == tuple(map(int, wanted.split(".")))

    cudnn.check_compute_capability = at_least
    cudnn.is_cuda_compute_capability_equal = exactly
    cudnn.check_cudnn_version = lambda: CUDNN[0] * 10000 + CUDNN[1] * 100
