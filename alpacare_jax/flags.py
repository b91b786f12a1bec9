"""The compiler flags of each platform, in one table; tried in a child process before this process depends on them.

An unknown flag ends a process without an exception, and which flags a version of XLA knows changes from release to
release. So a child process, on no accelerator, reads them first; those it does not know are left out, with a warning.
What it found is remembered for the versions installed.

Flags that the user has set stay, and win. ``ALPACARE_FLAGS=0`` leaves this table out.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from alpacare_jax.cache import default_cache

logger = logging.getLogger("alpacare")

SWITCH = "ALPACARE_FLAGS"


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag of a compiler: its name without dashes, its value, and what it is for."""

    name: str
    value: str
    purpose: str

    def __str__(self) -> str:
        return f"--{self.name}={self.value}"


VARIABLES = {"gpu": "XLA_FLAGS", "tpu": "LIBTPU_INIT_ARGS"}
"""Where a platform's flags stand. In ``XLA_FLAGS`` those of the TPU compiler would end the process."""

_MOVES = "moves parameters and gradients while other work runs"
FLAGS: Mapping[str, Sequence[Flag]] = {
    "gpu": (
        Flag(
            "xla_gpu_enable_latency_hiding_scheduler",
            "true",
            "starts transfers early and waits for them late",
        ),
        Flag("xla_gpu_enable_pipelined_all_gather", "true", _MOVES),
        Flag("xla_gpu_enable_pipelined_reduce_scatter", "true", _MOVES),
        Flag("xla_gpu_enable_pipelined_all_reduce", "true", _MOVES),
        Flag(
            "xla_gpu_enable_while_loop_double_buffering",
            "true",
            "lets a layer's gathers overlap the layer before",
        ),
        Flag("xla_gpu_all_gather_combine_threshold_bytes", str(1 << 30), "gathers a layer's weights at once"),
        Flag("xla_gpu_all_reduce_combine_threshold_bytes", str(1 << 30), "sums gradients at once"),
        Flag("xla_gpu_reduce_scatter_combine_threshold_bytes", str(1 << 27), "sums gradients in few pieces"),
    ),
    "tpu": (
        Flag(
            "xla_tpu_enable_async_collective_fusion", "true", "runs gathers within the products beside them"
        ),
        Flag("xla_tpu_enable_async_collective_fusion_fuse_all_gather", "true", "the same, for parameters"),
        Flag("xla_tpu_overlap_compute_collective_tc", "true", "computes while collectives run"),
        Flag("xla_enable_async_all_gather", "true", _MOVES),
    ),
}
"""The flags by platform; a CPU needs none."""

_ATTEMPTS = {
    "gpu": "import jax; jax.devices()",
    "tpu": "from jax.experimental import topologies as t; "
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

    Args:
        environment: Where to set them; a child process started from here sees them too.

    Returns:
        What was added, for the log; empty where nothing was.
    """
    platform = expected_platform(environment)
    if platform not in FLAGS or environment.get(SWITCH) == "0":
        return ""
    variable = VARIABLES[platform]
    given = environment.get(variable, "")
    own = {_name(flag) for flag in given.split()}
    wanted = [flag for flag in FLAGS[platform] if flag.name not in own]
    added = " ".join(map(str, known_flags(platform, wanted)))
    if added:
        environment[variable] = f"{given} {added}".strip()
    return added


def known_flags(platform: str, wanted: Sequence[Flag]) -> list[Flag]:
    """Leave out the flags that the installed compiler does not know; what was found is kept in the user's cache.

    Args:
        platform: ``gpu`` or ``tpu``.
        wanted: The flags to try.
    """
    remembered = default_cache() / "flags" / f"{_fingerprint(platform, wanted)}.json"
    try:
        names = json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        names = [flag.name for flag in try_flags(platform, wanted)]
        try:
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.write_text(json.dumps(names), encoding="utf-8")
        except OSError as error:
            logger.debug("flags are not remembered: %s", error)
    return [flag for flag in wanted if flag.name in names]


def try_flags(platform: str, wanted: Sequence[Flag]) -> list[Flag]:
    """Start child processes with the flags until one starts; leave out what it says it does not know.

    Returns:
        The flags that were taken; none where the child does not say what is wrong.
    """
    left = list(wanted)
    while left:
        environment = {**os.environ, **_QUIET, VARIABLES[platform]: " ".join(map(str, left))}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _ATTEMPTS[platform]],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            logger.warning("the compiler flags of this platform could not be tried; none is set")
            return []
        if done.returncode == 0:
            return left
        unknown = {
            _name(word) for line in _UNKNOWN.findall(done.stderr) for word in line.replace("'", " ").split()
        }
        kept = [flag for flag in left if flag.name not in unknown]
        if len(kept) == len(left):
            logger.warning("a child process ended with the compiler flags of this platform; none is set")
            return []
        logger.warning("this compiler does not know %s", ", ".join(f.name for f in left if f not in kept))
        left = kept
    return left


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]


def _fingerprint(platform: str, wanted: Sequence[Flag]) -> str:
    versions = []
    for package in ("jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    text = "\n".join([platform, *versions, *map(str, wanted)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
