"""What this machine offers a run: versions, devices, memory, optional parts, disk; with advice."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alpacare_jax import compilation, distributed, flags

PACKAGES = ("alpacare-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers")

OPTIONAL = {
    "gpu": ("NVIDIA GPUs", ("jax_cuda13_plugin", "jax_cuda12_plugin"), 'pip install "alpacare-jax[gpu]"'),
    "tpu": ("Google TPUs", ("libtpu",), 'pip install "alpacare-jax[tpu]"'),
    "tf": ("datasets as TFRecord files", ("tensorflow",), 'pip install "alpacare-jax[tf]"'),
    "beam": ("preparing datasets on a cluster", ("apache_beam",), 'pip install "alpacare-jax[beam]"'),
    "lm-eval": ("published benchmarks", ("lm_eval",), "pip install lm-eval"),
    "torch": ("the parity tests", ("torch",), "make test"),
}

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """One accelerator, or one CPU device.

    Args:
        kind: What the hardware calls itself.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        memory_bytes: Memory a program may use; None where the device does not say.
    """

    kind: str
    platform: str
    memory_bytes: int | None


@dataclass(frozen=True)
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
    advice: tuple[str, ...] = field(default=())


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

    devices = tuple(
        Device(device.device_kind, device.platform, _device_memory(device)) for device in jax.local_devices()
    )
    checkup = Checkup(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_machine_memory(),
        disk_free_bytes=shutil.disk_usage(folder).free,
        versions={name: _version(name) for name in PACKAGES},
        platform=jax.default_backend(),
        devices=devices,
        processes=jax.process_count(),
        all_devices=jax.device_count(),
        optional={name: any(map(_importable, modules)) for name, (_, modules, _) in OPTIONAL.items()},
        environment={name: environment[name] for name in _SETTINGS if name in environment},
        attention=check_all_kernels(sharding.single_device_mesh()),
    )
    return Checkup(**{**checkup.__dict__, "advice": advise(checkup)})


_SETTINGS = (
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


def advise(checkup: Checkup) -> tuple[str, ...]:
    """Turn findings into advice.

    Args:
        checkup: The findings.

    Returns:
        Sentences, most pressing first; empty where nothing needs doing.
    """
    advice = []
    missing = [name for name, version in checkup.versions.items() if version == "missing"]
    if missing:
        advice.append(f"Not installed: {', '.join(missing)}. Install the project again: pip install -e .")
    if checkup.disk_free_bytes < 5 * GIB:
        advice.append(
            "Less than 5 GiB of disk is free; the quickstart needs about 3 GiB besides its environment."
        )
    if checkup.memory_bytes is not None and checkup.memory_bytes < 6 * GIB:
        advice.append(
            "Less than 6 GiB of memory: the quickstart may be stopped by the system for lack of it."
        )
    if checkup.platform == "cpu":
        if _nvidia_present() and not checkup.optional["gpu"]:
            advice.append(
                f"An NVIDIA GPU is here and jax does not see it. Install its part: {OPTIONAL['gpu'][2]}"
            )
        elif _tpu_present() and not checkup.optional["tpu"]:
            advice.append(f"A TPU is here and jax does not see it. Install its part: {OPTIONAL['tpu'][2]}")
        elif not checkup.environment.get("JAX_PLATFORMS"):
            advice.append(
                "No accelerator: models of a few hundred million parameters train here, larger ones do not."
            )
    if checkup.environment.get("JAX_PLATFORMS") == "cpu" and (_nvidia_present() or _tpu_present()):
        advice.append("JAX_PLATFORMS=cpu hides this machine's accelerator; unset it to use it.")
    return tuple(advice)


def _device_memory(device: object) -> int | None:
    statistics = getattr(device, "memory_stats", lambda: None)()
    return None if not statistics else statistics.get("bytes_limit")


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _importable(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _nvidia_present() -> bool:
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()


def _tpu_present() -> bool:
    return Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
