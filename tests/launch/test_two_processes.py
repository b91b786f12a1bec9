"""Two real processes that compute together, over Gloo."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ALPACARE = [sys.executable, "-m", "alpacare_jax"]
TWO_BY_TWO = ["launch", "local", "--processes", "2", "--devices-per-process", "2", "--"]

PSUM = """
import sys
from alpacare_jax import distributed
assert distributed.initialize_from_environment()
assert distributed.initialize_from_environment(), "a second call joins nothing and still says yes"
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("all"))
numbers = jax.make_array_from_callback((6,), sharding, lambda index: np.arange(1.0, 7.0)[index])
total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(numbers)
print("local", jax.local_device_count(), "all", jax.device_count(), "sum", float(total))
print("primary", jax.process_index() == 0)
"""


LARGE_SUMS = """
from alpacare_jax import collectives, distributed
distributed.initialize_from_environment()
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

mesh = jax.make_mesh((2,), ("all",))
rows = [np.random.default_rng(i).integers(0, 100, (96, 49152)).astype(np.float32) for i in range(2)]
sharding = NamedSharding(mesh, PartitionSpec("all"))
x = jax.make_array_from_callback((2, 96, 49152), sharding, lambda index: rows[index[0].start][None])

def scattered(x):
    return collectives.sum_scatter(x[0], "all", 0)

def through_a_gather(x):  # the gradient of a gather by what comes back
    _, back = jax.vjp(lambda part: collectives.gather(part, "all", 0), scattered(x))
    return back(x[0])[0]

for function in (scattered, through_a_gather):
    run = jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=PartitionSpec("all"), out_specs=PartitionSpec("all"), check_vma=False
        )
    )
    for _ in range(10):
        for part in run(x).addressable_shards:
            np.testing.assert_array_equal(np.asarray(part.data), sum(rows)[part.index])
print("exact")
"""


def launch(
    program: list[str], *, processes: int, devices_per_process: int
) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "from alpacare_jax.launch.local import run_processes\n"
        f"sys.exit(run_processes({program!r}, processes={processes},"
        f" devices_per_process={devices_per_process}))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


def alpacare(*arguments: str, devices: int = 8, folder: Path | None = None) -> str:
    """Run the command with so many devices in one process, unless it launches others; return what it printed."""
    count = "--xla_force_host_platform_device_count="
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if not flag.startswith(count)]
    environment = {**os.environ, "XLA_FLAGS": " ".join([*flags, f"{count}{devices}"])}
    with subprocess.Popen(
        [*ALPACARE, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.terminate()  # which the launcher passes on; killed, it would leave its processes behind
            printed, _ = process.communicate(timeout=60)
            pytest.fail(f"{arguments} took more than 400 seconds and printed:\n{printed}")
    assert process.returncode == 0, printed
    return printed


@pytest.mark.slow
def test_two_processes_of_three_devices_add_up_over_all_six() -> None:
    done = launch([sys.executable, "-c", PSUM], processes=2, devices_per_process=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[0] local 3 all 6 sum 21.0" in done.stdout
    assert "[1] local 3 all 6 sum 21.0" in done.stdout
    assert "[0] primary True" in done.stdout
    assert "[1] primary False" in done.stdout


def test_large_sums_that_devices_share_out_are_exact() -> None:
    """Gloo's own reduce-scatter overwrites what it still sends: every eighth sum of this size came out wrong."""
    done = launch([sys.executable, "-c", LARGE_SUMS], processes=2, devices_per_process=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"[0] exact", "[1] exact"} <= set(done.stdout.splitlines())


def test_cpu_processes_leave_the_compilation_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that one process takes from the cache and another compiles can hang both."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    done = launch([sys.executable, "-c", PSUM], processes=2, devices_per_process=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_command_starts_joined_processes() -> None:
    command = [sys.executable, "-m", "alpacare_jax", "launch", "local", "--processes", "2"]
    done = subprocess.run(
        [*command, "--devices-per-process", "2", "--", "doctor"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        len(re.findall(r"^\[[01]\] platform +cpu, 2 processes, 4 devices$", done.stdout, re.MULTILINE)) == 2
    )


def test_a_process_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    code = "from alpacare_jax import distributed; distributed.initialize_from_environment()"
    environment = {
        "PATH": "/usr/bin:/bin",
        "JAX_PLATFORMS": "cpu",
        "ALPACARE_COORDINATOR": "127.0.0.1:9",
        "ALPACARE_NUM_PROCESSES": "2",
        "ALPACARE_PROCESS_ID": "1",
        "ALPACARE_WAIT_S": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "the processes of this run did not come together" in done.stderr


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

RUN = """
architecture: config.json
train_data: packed
mesh: {fsdp: 4}
optim: {learning_rate: 1.0e-2}
train: {batch_rows: 4, steps: 4, checkpoint_every: 2}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packed data and ``two/``, a run of two processes that was resumed after half its steps."""
    folder = tmp_path_factory.mktemp("two-processes")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "run.yaml").write_text(RUN)
    (folder / "tokenizer.model").write_bytes(
        files("mistral_common").joinpath("data/tokenizer.model.v1").read_bytes()
    )
    tasks = [
        {
            "id": f"t{n}",
            "instruction": f"Count to {n}.",
            "input": "",
            "output": " ".join(map(str, range(1, n + 1))),
        }
        for n in range(2, 18)
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    pack = [
        "pack",
        "tasks.jsonl",
        "--tokenizer",
        "tokenizer.model",
        "--seq-len",
        "96",
        "--out",
        "packed",
        "--no-pack",
    ]
    alpacare(*pack, folder=folder)
    train = [*TWO_BY_TWO, "train", "--config", "run.yaml", "out=two"]
    alpacare(*train, folder=folder)
    # Back to where the run stood after two steps: the later checkpoint is gone, as if it had never been written.
    shutil.rmtree(folder / "two" / "checkpoints" / "4")
    resumed = alpacare(*train, folder=folder)
    assert "step 00003/00004" in resumed
    assert "step 00002/00004" not in resumed
    return folder


def losses(run: Path) -> list[float]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_two_processes_train_and_resume_as_one_process_trains(trained: Path) -> None:
    alpacare("train", "--config", "run.yaml", "mesh.fsdp=1", "out=one", devices=1, folder=trained)
    alone = losses(trained / "one")
    assert len(alone) == 4
    assert losses(trained / "two") == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_two_processes_answer_as_one_process_answers(trained: Path) -> None:
    generate = ["generate", "--model", "two", "--prompts", "tasks.jsonl", "--max-tokens", "6", "--name", "m"]
    alpacare(*generate, "--out", "one.jsonl", devices=1, folder=trained)
    alpacare(*TWO_BY_TWO, *generate, "--out", "two.jsonl", "--mesh", "fsdp=2,tensor=2", folder=trained)
    answers = (trained / "two.jsonl").read_text()
    assert len(answers.splitlines()) == 16
    assert answers == (trained / "one.jsonl").read_text()
