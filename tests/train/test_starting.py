"""A start is timed by its stages, and what it compiles beside its other work is still refused and still exact."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from alpacare_jax import compilation, sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.startup import StartupTimer, process_began
from alpacare_jax.train import RunConfig, Schedule
from alpacare_jax.train.program import begin_to_compile

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=16,
)
SCHEDULE = Schedule(steps=3, batch_rows=8, epoch_rows=8)


@pytest.fixture(scope="module")
def train_step():
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=8))
    return RunConfig(out="", train_data="", architecture="llama2-7b").train_step(TINY, 3, mesh)


def command(run_yaml, *overrides):
    return [sys.executable, "-m", "alpacare_jax", "train", "--config", str(run_yaml), *overrides]


def test_the_second_start_takes_its_programs_from_the_cache_and_learns_the_same(run_yaml, tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    told, losses = [], []
    for number in range(2):
        out = tmp_path / f"run-{number}"
        done = subprocess.run(
            command(run_yaml, f"out={out}", "train.steps=1"), env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        told += re.findall(
            r"started in [\d.]+ s: .*imports [\d.]+.*; meanwhile program [\d.]+ \((.*)\)", done.stderr
        )
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows])
    assert told == ["compiled", "from the cache"]
    assert losses[0] == losses[1]


def test_ctrl_c_while_a_run_starts_ends_it_and_the_same_command_starts_it(run_yaml, tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    process = subprocess.Popen(
        command(run_yaml, "train.steps=1"), env=environment, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:  # the last line before weights are made and the step is waited for
        if line.startswith("run  "):
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    done = subprocess.run(command(run_yaml, "train.steps=1"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_step_is_compiled_in_a_thread_of_its_own_where_nothing_speaks_against_it(train_step, monkeypatch):
    threads, timer = [], StartupTimer()
    monkeypatch.setattr(
        "alpacare_jax.train.program.compile_fitting", lambda *_: threads.append(threading.current_thread())
    )
    begin_to_compile(train_step, SCHEDULE, 32, timer, resuming=True)()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    begin_to_compile(train_step, SCHEDULE, 32, timer, resuming=False)()
    assert [thread is threading.main_thread() for thread in threads] == [False, True]
    assert [stage.beside for stage in timer.phases] == [True, False]


def test_where_memory_is_known_a_state_too_large_is_refused_at_once_and_a_checkpoint_waits_for_the_step(
    train_step, monkeypatch
):
    monkeypatch.setattr("alpacare_jax.train.program.memory_limit", lambda _: 10_000)
    with pytest.raises(ConfigError, match="does not fit"):
        begin_to_compile(train_step, SCHEDULE, 32, StartupTimer(), resuming=False)
    monkeypatch.setattr("alpacare_jax.train.program.memory_limit", lambda _: 100_000)
    with pytest.raises(ConfigError, match="does not fit"):
        begin_to_compile(train_step, SCHEDULE, 32, StartupTimer(), resuming=True)
    step = begin_to_compile(train_step, SCHEDULE, 32, StartupTimer(), resuming=False)
    with pytest.raises(ConfigError, match="does not fit"):
        step()


def test_programs_are_counted_for_the_thread_that_asks_for_them(tmp_path):
    def other():
        jax.jit(lambda x: x * 3 + 1)(1.0)

    with compilation.watch() as found:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == []


def test_stages_of_one_name_are_added_up_and_those_too_short_to_count_left_out():
    timer = StartupTimer(since=time.monotonic() - 3)
    for seconds in (0.5, 0.7, 0.01):
        timer.add("imports" if seconds > 0.1 else "attention", seconds)
    with timer.time("program", beside=True) as stage:
        stage.note = "from the cache"
    assert str(timer) == "started in 3.0 s: imports 1.2; meanwhile program 0.0 (from the cache)"


def test_a_process_knows_when_it_began():
    program = "import time; time.sleep(0.5); from alpacare_jax.startup import process_began as began; "
    program += "print(time.monotonic() - began())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.5 < float(done.stdout) < 30
    assert process_began() < time.monotonic()


SLOW_COMPILER = """
import sys, time
from alpacare_jax.cli import ending
from alpacare_jax.train import program
compile_now, seconds = program.compile_fitting, float(sys.argv[1])
def slowly(*arguments):
    time.sleep(seconds)
    return compile_now(*arguments)
program.compile_fitting = slowly
sys.argv[1:] = sys.argv[2:]
ending.run()
"""


def test_a_start_that_fails_ends_at_once_beside_its_compiler_and_leaves_no_run(run_yaml, tmp_path):
    """Weights that cannot be read, while the step would compile for ten minutes more."""
    first = tmp_path / "first"
    done = subprocess.run(command(run_yaml, f"out={first}", "train.steps=1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = tmp_path / "model"
    exported = [sys.executable, "-m", "alpacare_jax", "export", str(first), "--out", str(model)]
    assert subprocess.run(exported, capture_output=True, text=True).returncode == 0
    for weights in model.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    run = [sys.executable, "-c", SLOW_COMPILER, "600", *command(run_yaml)[3:]]
    out = tmp_path / "second"
    began = time.monotonic()
    broken = [*run, f"init={model}", "architecture=null", f"out={out}"]
    done = subprocess.run(broken, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 120
    assert not (out / "alpacare.json").exists()
    assert not (out / "hf").exists()


def test_two_ctrl_c_while_a_step_compiles_end_it_at_once(run_yaml, tmp_path):
    run = [sys.executable, "-c", SLOW_COMPILER, "600", *command(run_yaml, "train.steps=1")[3:]]
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), stderr
    assert "Exception ignored" not in stderr
