"""The two compilers that work without their devices: the package of each, its environment and its flags."""

import importlib.metadata
import importlib.util
import os

from alpacare_jax import flags
from alpacare_jax.errors import ConfigError
from alpacare_jax.plan import gpus

QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a machine's real TPU, if any, stays free for others
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # NVIDIA's libraries, which run programs, need not be there
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
}
"""What a compiler's process needs besides the environment of this one."""
HIDDEN = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "TPU_WORKER_HOSTNAMES", "TPU_TOPOLOGY", "TPU_ACCELERATOR_TYPE")
"""What would lead it astray: flags of other platforms, and the description of a real slice."""
WITHOUT_A_GPU = "--xla_gpu_autotune_level=0"
"""Kernels cannot be tried out on a GPU that is not there; the compiler chooses them by rule."""


def check_installed(platform: str) -> None:
    """Check that the compiler of a platform is installed.

    Raises:
        ConfigError: It is not; says what to install.
    """
    if platform == "tpu" and importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the TPU compiler is not installed",
            found="no package libtpu",
            remedy='pip install "alpacare-jax[plan]" (libtpu alone; it runs on any Linux machine, no TPU needed)',
        )
    if platform == "gpu" and gpus.plugin() is None and gpus.fetched() is None:
        raise ConfigError(
            "the GPU compiler is not installed",
            found="no package " + " or ".join(gpus.PLUGINS),
            remedy="alpacare plan --fetch-gpu-compiler (200 MB, once, on Linux; no GPU needed)",
        )


def package_of(platform: str) -> tuple[str, str]:
    """Return the package that holds a platform's compiler, and its version."""
    if platform == "tpu":
        return "libtpu", version("libtpu")
    installed = gpus.plugin()
    if installed is None:
        return gpus.FETCHED[0], gpus.fetched() or "missing"
    return installed.replace("_", "-"), version(installed.replace("_", "-"))


def version(package: str) -> str:
    """Return an installed package's version, ``missing`` if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def flags_of_a_run(platform: str) -> str:
    """Return the compiler flags that a run started from here would have: the user's, and this platform's table.

    Of ``XLA_FLAGS`` only those for GPUs are taken, since the others would be another compiler's.

    Raises:
        ConfigError: The compiler does not know a flag that the user has set.
    """
    environment = os.environ | {"JAX_PLATFORMS": platform}
    flags.set_flags(environment)
    given = environment.get(flags.VARIABLES[platform], "").split()
    return " ".join(flag for flag in given if platform == "tpu" or flag.lstrip("-").startswith("xla_gpu_"))


def environment_of(platform: str, given: str, dump: str) -> dict[str, str]:
    """Return the environment of a compiler's process.

    Args:
        platform: ``tpu`` or ``gpu``.
        given: Flags of that compiler.
        dump: Folder that it writes its decisions to.
    """
    written = f"--xla_dump_to={dump} --xla_dump_hlo_as_text"
    found = {key: value for key, value in os.environ.items() if key not in HIDDEN} | QUIET
    if platform == "gpu":
        paths = ["" if gpus.plugin() else str(gpus.own_folder()), found.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return found | {"XLA_FLAGS": f"{WITHOUT_A_GPU} {given} {written}"}
    return found | {"XLA_FLAGS": written} | ({"LIBTPU_INIT_ARGS": given} if given else {})
