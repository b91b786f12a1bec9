"""The compiler flags of each platform, in one table; tried in a child process before this process depends on them.

An unknown flag ends a process without an exception, and which flags a version of XLA knows changes from release to
release. So a child process, on no accelerator, reads them first; those it does not know are left out, with a warning.
What it found is remembered for the versions installed.

Flags that the user has set stay, and win; one that no compiler here knows is an error that names the nearest.
``ALPACARE_FLAGS=0`` leaves this table out.
"""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

from alpacare_jax.cache import remembered
from alpacare_jax.errors import ConfigError, did_you_mean

logger = logging.getLogger("alpacare")

SWITCH = "ALPACARE_FLAGS"


GPU_MEMORY_SHARE = 0.92
"""Share of a GPU's memory that jax takes for programs; the rest is left to the driver and NVIDIA's libraries. By
itself jax takes 0.75, and what it does not take no program can use."""
MEMORY_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""Where jax reads that share; a value set by the user stays."""
JAX_MEMORY_SHARE = 0.75
"""What jax takes where nothing is said."""

CPU_THREADS = "NPROC"
"""Where XLA's CPU runtime reads how many threads it may start. It has as many as there are cores or devices, and a
device that waits in a collective keeps one: where a loop runs beside what follows it, all of them may wait for a
collective that no thread is left to join."""
THREADS_A_DEVICE = 8

VARIABLES = {"cpu": "XLA_FLAGS", "gpu": "XLA_FLAGS", "tpu": "LIBTPU_INIT_ARGS"}
"""Where a platform's flags stand. In ``XLA_FLAGS`` those of the TPU compiler would end the process."""

FLAGS: Mapping[str, Sequence[str]] = {
    "cpu": (
        # Keeps collectives in one order on every device; else a program loaded from disk may wait forever.
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    ),
    "gpu": (
        # Transfers are started early and waited for late; parameters and gradients move while other work runs.
        "--xla_gpu_enable_latency_hiding_scheduler=true",
        "--xla_gpu_enable_pipelined_all_gather=true",
        "--xla_gpu_enable_pipelined_reduce_scatter=true",
        "--xla_gpu_enable_pipelined_all_reduce=true",
        # A layer's gathers overlap the layer before.
        "--xla_gpu_enable_while_loop_double_buffering=true",
        # A layer's weights are gathered at once, its gradients summed in few pieces.
        f"--xla_gpu_all_gather_combine_threshold_bytes={1 << 30}",
        f"--xla_gpu_all_reduce_combine_threshold_bytes={1 << 30}",
        f"--xla_gpu_reduce_scatter_combine_threshold_bytes={1 << 27}",
        # Nothing is computed again beyond `compute.remat`.
        "--xla_gpu_memory_limit_slop_factor=200",
        # Products are left to cuBLASLt: runs take what was planned.
        "--xla_gpu_enable_triton_gemm=false",
    ),
}
"""The flags by platform. One CPU device needs none, several need theirs. A TPU gets none: what the compiler does by
itself takes the same memory and time by its own account, and a flag that suits one generation another refuses."""

_ATTEMPTS = {
    "XLA_FLAGS": "import jax; jax.devices()",
    "LIBTPU_INIT_ARGS": "from jax.experimental import topologies as t; "
    "t.get_topology_desc(platform='tpu', topology_name='v5e:2x2')",
}
_QUIET = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
_UNKNOWN = re.compile(r"[Uu]nknown (?:command line )?flags?(?: in \w+:)? (.*)")
_TIMEOUT_S = 120


def expected_platform(environment: Mapping[str, str] = os.environ) -> str:
    """Say on which platform jax will run, without starting it.

    Returns:
        ``gpu``, ``tpu`` or ``cpu``.

    Example:
        >>> expected_platform({"JAX_PLATFORMS": "cuda,cpu"})
        'gpu'
    """
    wanted = environment.get("JAX_PLATFORMS", "").split(",")[0]
    if wanted:
        return {"cuda": "gpu", "rocm": "gpu"}.get(wanted, wanted)
    if Path("/dev/nvidia0").exists() and any(
        importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
    ):
        return "gpu"
    on_tpu = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return "tpu" if on_tpu and importlib.util.find_spec("libtpu") else "cpu"


def set_flags(environment: MutableMapping[str, str] = os.environ) -> str:
    """Add the platform's flags to the environment, before jax is started; those that a child process refuses are not.

    For GPUs the share of their memory that jax takes is set too, for several CPU devices the number of threads.

    Args:
        environment: Where to set them; a child process started from here sees them too.

    Returns:
        What was added, for the log; empty where nothing was.

    Raises:
        ConfigError: The environment holds a flag that the compiler does not know.
    """
    platform = expected_platform(environment)
    for variable in dict.fromkeys(VARIABLES.values()):
        check_given(variable, environment.get(variable, ""))
    if platform not in FLAGS or environment.get(SWITCH) == "0":
        return ""
    if platform == "cpu":
        if (devices := _cpu_devices(environment)) == 1:
            return ""
        environment.setdefault(CPU_THREADS, str((os.cpu_count() or 1) + THREADS_A_DEVICE * devices))
    if platform == "gpu" and not any(environment.get(name) for name in MEMORY_VARIABLES):
        environment[MEMORY_VARIABLES[0]] = str(GPU_MEMORY_SHARE)
    variable = VARIABLES[platform]
    given = environment.get(variable, "")
    added = " ".join(known_flags(platform, given))
    if added:
        environment[variable] = f"{given} {added}".strip()
    return added


def gpu_memory_share(environment: Mapping[str, str] = os.environ) -> float:
    """Return the share of a GPU's memory that a run started from here would take for programs.

    Example:
        >>> gpu_memory_share({}), gpu_memory_share({"ALPACARE_FLAGS": "0"})
        (0.92, 0.75)
    """
    given = next((environment[name] for name in MEMORY_VARIABLES if environment.get(name)), "")
    if re.fullmatch(r"\d*\.?\d+", given):
        return float(given)
    return JAX_MEMORY_SHARE if environment.get(SWITCH) == "0" else GPU_MEMORY_SHARE


def _cpu_devices(environment: Mapping[str, str]) -> int:
    """Return the largest number of devices or processes that the environment names; at least 1."""
    simulated = re.search(r"--xla_force_host_platform_device_count=(\d+)", environment.get("XLA_FLAGS", ""))
    counts = [
        simulated[1] if simulated else "1",
        environment.get("JAX_NUM_CPU_DEVICES", "1"),
        environment.get("ALPACARE_NUM_PROCESSES", "1"),
    ]
    return max(1, *(int(count) for count in counts if count.isdigit()))


def known_flags(platform: str, given: str = "") -> list[str]:
    """Return a platform's flags that the installed compiler knows; what was found is kept in the user's cache.

    Args:
        platform: ``cpu``, ``gpu`` or ``tpu``.
        given: Flags that are set already, which win.
    """
    own = {name_of(flag) for flag in given.split()}
    wanted = [flag for flag in FLAGS[platform] if name_of(flag) not in own]
    return _remembered(f"{platform}: {' '.join(wanted)}", lambda: try_flags(platform, wanted))


def check_given(variable: str, given: str) -> None:
    """Check that the compiler knows the flags that the user has set.

    Args:
        variable: ``XLA_FLAGS`` or ``LIBTPU_INIT_ARGS``.
        given: Its value.

    Raises:
        ConfigError: It does not know them all; each is named with the nearest that it does know.
    """
    if not given.strip() or (variable == "LIBTPU_INIT_ARGS" and not importlib.util.find_spec("libtpu")):
        return
    unknown = _remembered(f"{variable} {given}", lambda: unknown_flags(variable, given) or [])
    if unknown:
        there = flags_of_the_compiler(variable)
        hints = [f"{name}: {near}" for name in unknown if (near := did_you_mean(name, there, most=2))]
        raise ConfigError(
            "the compiler does not know a flag",
            where=variable,
            found=", ".join(unknown),
            expected="flags of the installed jaxlib" + (" and libtpu" if variable != "XLA_FLAGS" else ""),
            remedy="; ".join(hints) or "leave it out",
        )


def flags_of_the_compiler(variable: str) -> list[str]:
    """Find what look like names of flags in the compiler's own file; takes a second or two."""
    package = importlib.util.find_spec("jaxlib" if variable == "XLA_FLAGS" else "libtpu")
    found: set[bytes] = set()
    for folder in (package.submodule_search_locations or []) if package else []:
        for file in sorted(Path(folder).rglob("*.so")):
            found |= set(re.findall(rb"(?<![a-z_])xla_[a-z0-9_]{4,80}", file.read_bytes()))
    return sorted(name.decode() for name in found)


def _remembered(question: str, answer: Callable[[], list[str]]) -> list[str]:
    return remembered(
        "flags", question, ("jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin"), answer
    )


def try_flags(platform: str, wanted: Sequence[str]) -> list[str]:
    """Start child processes with the flags until one starts; leave out what it says it does not know.

    Returns:
        The flags that were taken; none where the child does not say what is wrong.
    """
    left = list(wanted)
    while left:
        unknown = unknown_flags(VARIABLES[platform], " ".join(left))
        if unknown == []:
            return left
        kept = [flag for flag in left if name_of(flag) not in (unknown or ())]
        if len(kept) == len(left):
            logger.warning("a child process ended with the compiler flags of this platform; none is set")
            return []
        logger.warning(
            "this compiler does not know %s", ", ".join(name_of(flag) for flag in left if flag not in kept)
        )
        left = kept
    return left


def unknown_flags(variable: str, given: str) -> list[str] | None:
    """Start a child process with flags and return the names that it says it does not know.

    Returns:
        Names without dashes, none where the process starts; None where it ends and does not say why.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ATTEMPTS[variable]],
            env={**os.environ, **_QUIET, variable: given},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return []
    words = [word for line in _UNKNOWN.findall(done.stderr) for word in line.replace("'", " ").split()]
    return [name_of(word) for word in words] or None


def name_of(flag: str) -> str:
    """Return the name of a flag, without its dashes and value."""
    return flag.lstrip("-").partition("=")[0]
