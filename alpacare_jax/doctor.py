"""What this machine offers a run: versions, devices, memory, optional parts, disk; with advice."""

import dataclasses
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from alpacare_jax import compilation, distributed, flags
from alpacare_jax.hardware.chips import GIB

PACKAGES = ("alpacare-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers")
OPTIONAL = {
    "gpu": ("NVIDIA GPUs", ("jax_cuda13_plugin", "jax_cuda12_plugin"), 'pip install "alpacare-jax[gpu]"'),
    "tpu": ("Google TPUs", ("libtpu",), 'pip install "alpacare-jax[tpu]"'),
    "tf": ("datasets as TFRecord files", ("tensorflow",), 'pip install "alpacare-jax[tf]"'),
    "beam": ("preparing datasets on a cluster", ("apache_beam",), 'pip install "alpacare-jax[beam]"'),
    "lm-eval": ("published benchmarks", ("lm_eval",), "pip install lm-eval"),
    "torch": ("the parity tests", ("torch",), "make test"),
}
"""Optional parts: what each is for, its packages, how to install it."""
SETTINGS = (
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    flags.SWITCH,
    compilation.FOLDER,
    "ALPACARE_CACHE",
    distributed.COORDINATOR,
    distributed.NUM_PROCESSES,
    distributed.PROCESS_ID,
    distributed.DISTRIBUTED,
)
"""Variables of the environment that are shown; no others are."""
ACCELERATORS = {
    "gpu": ("/dev/nvidia0", "/proc/driver/nvidia/version"),
    "tpu": ("/dev/accel0", "/dev/vfio/0"),
}
"""Files of a machine that has such an accelerator."""


@dataclasses.dataclass(frozen=True)
class Device:
    """One accelerator, or one CPU device.

    Args:
        kind: The name that jax reports.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        memory_bytes: Memory a program may use; None if it is unknown.
    """

    kind: str
    platform: str
    memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Checkup:
    """Everything ``alpacare doctor`` has to say, ready to print or to write as JSON."""

    python: str
    machine: str
    cpus: int
    memory_bytes: int | None
    disk_free_bytes: int
    versions: dict[str, str]
    platform: str
    devices: tuple[Device, ...]
    processes: int
    all_devices: int
    optional: dict[str, bool]
    environment: dict[str, str]
    attention: dict[str, str]
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        several = f", {self.processes} processes, {self.all_devices} devices" * (self.processes > 1)
        rows = {
            "python": f"{self.python} on {self.machine}, {self.cpus} CPU cores",
            "memory": _gib(self.memory_bytes),
            "disk free": _gib(self.disk_free_bytes),
            **self.versions,
            "platform": self.platform + several,
        }
        for index, device in enumerate(self.devices):
            rows[f"device {index}"] = f"{device.platform}, {device.kind}, memory {_gib(device.memory_bytes)}"
        for name, present in self.optional.items():
            purpose, _, install = OPTIONAL[name]
            rows[name] = f"present ({purpose})" if present else f"absent; for {purpose}: {install}"
        rows |= self.environment
        rows |= {f"attention {kernel}": said for kernel, said in self.attention.items()}
        width = max(map(len, rows))
        lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
        return "\n".join([*lines, "", *(f"advice: {line}" for line in self.advice or ("no action needed",))])


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> Checkup:
    """Look at this machine; starts jax, so call it once.

    Args:
        folder: Where runs would be written; its disk is measured.
        environment: Variables, as in ``os.environ``.

    Returns:
        The findings with advice, most pressing first.
    """
    import jax

    from alpacare_jax import sharding
    from alpacare_jax.attention import check_all_kernels
    from alpacare_jax.plan.compilers import version
    from alpacare_jax.train.program import memory_limit

    checkup = Checkup(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_machine_memory(),
        disk_free_bytes=shutil.disk_usage(folder).free,
        versions={name: version(name) for name in PACKAGES},
        platform=jax.default_backend(),
        devices=tuple(
            Device(device.device_kind, device.platform, memory_limit(device))
            for device in jax.local_devices()
        ),
        processes=jax.process_count(),
        all_devices=jax.device_count(),
        optional={name: any(map(_importable, modules)) for name, (_, modules, _) in OPTIONAL.items()},
        environment={name: environment[name] for name in SETTINGS if name in environment},
        attention=check_all_kernels(sharding.single_device_mesh()),
    )
    return dataclasses.replace(checkup, advice=advise(checkup))


def advise(checkup: Checkup) -> tuple[str, ...]:
    """Turn findings into advice.

    Args:
        checkup: The findings.

    Returns:
        Sentences, most pressing first; empty if no action is needed.
    """
    advice = []
    missing = [name for name, version in checkup.versions.items() if version == "missing"]
    if missing:
        advice.append(f"Not installed: {', '.join(missing)}. Install the project again: pip install -e .")
    if checkup.disk_free_bytes < 5 * GIB:
        advice.append("Less than 5 GiB of disk is free; the quickstart needs about 3 GiB.")
    if checkup.memory_bytes is not None and checkup.memory_bytes < 6 * GIB:
        advice.append("Less than 6 GiB of memory: the system may stop the quickstart for lack of it.")
    here = [name for name, files in ACCELERATORS.items() if any(Path(file).exists() for file in files)]
    absent = [name for name in here if not checkup.optional[name]]
    chosen = checkup.environment.get("JAX_PLATFORMS")
    if checkup.platform == "cpu" and absent:
        purpose, _, install = OPTIONAL[absent[0]]
        advice.append(f"jax does not see this machine's {purpose}. Install support for them: {install}")
    elif checkup.platform == "cpu" and not chosen:
        advice.append(
            "No accelerator: models of a few hundred million parameters train here, no larger ones."
        )
    if chosen == "cpu" and here:
        advice.append("JAX_PLATFORMS=cpu hides this machine's accelerator; unset it to use it.")
    return tuple(advice)


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _importable(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"
