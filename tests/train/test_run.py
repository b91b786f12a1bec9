"""Whole runs from a configuration file: figures, resume, other meshes, and what is refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from alpacare_jax import checkpoint, tokenizer
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.errors import ConfigError, DataError, ShardingError, TrainingError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.train import Trainer, load_config
from alpacare_jax.train.data_checks import check_tokenizer, check_vocabulary, record_ends


def run(path, *overrides, **kwargs):
    config = load_config(path, list(overrides))
    Trainer.from_config(config, **kwargs).train()
    return config


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return {line["step"]: line["loss"] for line in lines(folder) if "loss" in line}


def parameters(folder, step=None):
    return jax.device_get(checkpoint.flatten(checkpoint.load_params(folder, step=step)))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name]), name


def test_a_run_leaves_its_figures_its_config_and_its_checkpoints(run_yaml, packed):
    run(run_yaml, f"validation_data={packed}", "train.validate_every=3")
    finished = run_yaml.parent / "run"
    rows = lines(finished)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "val_loss" in row] == [0, 3, 6]
    validation = [row["val_loss"] for row in rows if "val_loss" in row]
    assert validation[-1] < validation[0] - 0.5, "the data are easy: the loss must fall"
    assert [row["position"] for row in rows if "loss" in row] == [8, 16, 24, 32, 40, 48]
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"2", "4", "6"}
    assert (finished / "config.yaml").exists()
    assert list((finished / "tensorboard").iterdir())
    assert json.loads((finished / "summary.json").read_text())["steps"] == 6


@pytest.mark.slow
def test_chosen_steps_are_traced_and_every_step_is_timed(run_yaml):
    # In a process of its own: with the TPU compiler loaded, as other tests do, the profiler looks for a TPU and dies.
    command = [
        sys.executable,
        "-m",
        "alpacare_jax",
        "train",
        "--config",
        str(run_yaml),
        "--profile-steps",
        "2:3",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trace of steps 2 to 3" in done.stderr
    folder = run_yaml.parent / "run"
    (trace,) = (folder / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0
    for line in lines(folder):
        parts = line["data_wait_ms"] + line["checkpoint_ms"] + line["compute_ms"]
        assert parts == pytest.approx(line["step_ms"])
        assert line["tflops_per_device"] > 0
        assert "mfu" not in line, "nobody publishes the peak of this CPU"
    assert [line["step"] for line in lines(folder) if line["checkpoint_ms"] > 0] == [3, 5]


def test_a_trace_of_no_steps_is_refused_before_anything_is_written(run_yaml):
    with pytest.raises(ConfigError, match="first:last"):
        run(run_yaml, profile_steps="3:2")
    assert not (run_yaml.parent / "run").exists()


def test_a_resumed_run_ends_exactly_where_an_uninterrupted_one_does(run_yaml, whole):
    cut = run_yaml.parent / "cut"
    shutil.copytree(whole, cut)
    for step in ("4", "6"):
        shutil.rmtree(cut / "checkpoints" / step)
    (cut / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text() + '{"step": 7, "loss"')
    run(run_yaml, f"out={cut}")
    assert losses(cut) == losses(whole)
    assert_same(parameters(cut), parameters(whole))


def test_a_run_resumed_on_another_mesh_goes_on_with_the_same_losses(run_yaml, whole):
    cut = run_yaml.parent / "cut"
    shutil.copytree(whole, cut)
    for step in ("4", "6"):
        shutil.rmtree(cut / "checkpoints" / step)
    run(run_yaml, f"out={cut}", "mesh.fsdp=2", "mesh.tensor=2", "mesh.context=2", "train.microbatches=2")
    for step, loss in losses(whole).items():
        assert losses(cut)[step] == pytest.approx(loss, rel=1e-5)


def test_a_finished_run_is_not_run_again(run_yaml, whole):
    before = (whole / "metrics.jsonl").read_text()
    run(run_yaml)
    assert (whole / "metrics.jsonl").read_text() == before


def test_a_killed_run_goes_on_from_its_last_checkpoint(run_yaml):
    command = [sys.executable, "-m", "alpacare_jax", "train", "--config", str(run_yaml), "train.steps=400"]
    folder = run_yaml.parent / "run"
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not (folder / "checkpoints" / "4").exists():
            assert process.poll() is None, "the run ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = max(losses(folder))
    assert 4 <= last < 400
    with pytest.raises(ConfigError, match="another configuration") as caught:
        run(run_yaml)
    assert "train.steps: 400 before, 6 now" in str(caught.value)
    run(run_yaml, f"train.steps={last + 2}", accept_changes=True)
    steps = [line["step"] for line in lines(folder) if "loss" in line]
    assert steps == list(range(1, last + 3)), "every step once, in order"


def test_ctrl_c_keeps_the_steps_done_and_the_same_command_goes_on(run_yaml):
    run(run_yaml, "train.steps=12", "train.checkpoint_every=0", f"out={run_yaml.parent / 'whole'}")
    command = [sys.executable, "-m", "alpacare_jax", "train", "--config", str(run_yaml)]
    command += ["train.steps=12", "train.checkpoint_every=0"]
    folder = run_yaml.parent / "run"
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while '"step": 2,' not in (
        (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    stopped = checkpoint.steps_of(folder)[-1]
    if stopped < 12:  # else the run was faster than the signal
        assert process.returncode == 130, stderr
        assert f"stopped after step {stopped}; the same command goes on from there" in stderr
    assert stopped >= 2
    run(run_yaml, "train.steps=12", "train.checkpoint_every=0")
    assert losses(folder) == losses(run_yaml.parent / "whole")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_data(run_yaml):
    with pytest.raises(TrainingError, match="not finite") as caught:
        run(
            run_yaml,
            "optim.learning_rate=1e4",
            "optim.weight_decay=1e4",
            "optim.clip_norm=0",
            "train.checkpoint_every=0",
        )
    text = str(caught.value)
    assert "step 3, samples 16 to 23" in text
    assert "rows [" in text
    assert not checkpoint.RunCheckpoints(run_yaml.parent / "run" / "checkpoints").steps()


def test_a_folder_that_holds_something_else_is_left_alone(run_yaml, tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds something else"):
        run(run_yaml, f"out={other}")
    assert [path.name for path in other.iterdir()] == ["chapter1.txt"]


def test_a_start_that_was_killed_while_it_made_the_run_folder_may_be_repeated(run_yaml, monkeypatch):
    folder = run_yaml.parent / "run"
    folder.mkdir()
    (folder / ".alpacare.json.x1y2.part").touch()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(checkpoint, "copy_config_files", killed)
        with pytest.raises(KeyboardInterrupt):
            run(run_yaml, "train.steps=1")
    (folder / "hf").mkdir(exist_ok=True)
    run(run_yaml, "train.steps=1")
    assert list(losses(folder)) == [1]


def test_a_tokenizer_of_another_model_is_refused(run_yaml, tokenizer_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tokenizer_folder, other)
    spelled = (other / "tokenizer.json").read_text().replace("</s>", "<end>")
    (other / "tokenizer.json").write_text(spelled)
    settings = (other / "tokenizer_config.json").read_text().replace("</s>", "<end>")
    (other / "tokenizer_config.json").write_text(settings)
    with pytest.raises(DataError, match="another tokenizer"):
        run(run_yaml, f"architecture={other / 'config.json'}")


def test_a_tokenizer_that_was_read_before_is_not_read_again_unless_its_files_changed(
    packed, tokenizer_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path / "cache"))
    read, data, hf = [], PackedDataset.open(packed), tmp_path / "hf"
    shutil.copytree(tokenizer_folder, hf)
    load = tokenizer.load_tokenizer
    monkeypatch.setattr(tokenizer, "load_tokenizer", lambda folder: read.append(folder) or load(folder))
    check_tokenizer(hf, data)
    check_tokenizer(hf, data)
    assert len(read) == 1
    (hf / "chat_template.jinja").write_text("{{ messages }}")
    for _ in range(2):
        with pytest.raises(DataError, match="another tokenizer"):
            check_tokenizer(hf, data)
    known = len(read)
    (hf / "chat_template.jinja").unlink()
    check_tokenizer(hf, data)
    assert len(read) == known


def test_a_model_with_a_smaller_vocabulary_is_refused(run_yaml, tokenizer_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tokenizer_folder, other)
    config = json.loads((other / "config.json").read_text()) | {"vocab_size": 96}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="more tokens than the model"):
        run(run_yaml, f"architecture={other / 'config.json'}")


def test_tokens_without_an_embedding_do_no_harm_where_no_row_holds_them(packed, tokenizer_folder):
    data = PackedDataset.open(packed)
    model = LlamaConfig.from_hf(json.loads((tokenizer_folder / "config.json").read_text()))
    rows = dataclasses.replace(model, vocab_size=data.manifest.largest_id + 1)
    check_vocabulary(tokenizer_folder, rows, data)
    with pytest.raises(DataError, match="more tokens than the model"):
        check_vocabulary(tokenizer_folder, dataclasses.replace(rows, vocab_size=rows.vocab_size - 1), data)


def test_the_end_that_is_taught_goes_with_the_run(tmp_path, caplog):
    for content, warned in (({"eos_token_id": 3}, True), ({"eos_token_id": [3, 5]}, False), ({}, False)):
        caplog.clear()
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
        record_ends(tmp_path, [5])
        assert ("generation_config.json: eos_token_id (3)" in caplog.text) == warned
        assert 5 in tokenizer.configured_ends(tmp_path).ids


@pytest.mark.parametrize(
    ("overrides", "error", "named"),
    [
        (["mesh.fsdp=3"], ShardingError, "8 devices"),
        (["mesh.fsdp=1", "mesh.tensor=8"], ShardingError, "4 heads over tensor (8)"),
        (["train.batch_rows=6"], ConfigError, "a multiple of 8"),
        (["train_data=/nowhere"], DataError, "/nowhere"),
        (["architecture=/nowhere.json"], ConfigError, "/nowhere.json"),
        (["optim.learning_rat=1"], ConfigError, "did you mean optim.learning_rate?"),
        (["init=/nowhere", "architecture=null"], Exception, "/nowhere"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(run_yaml, overrides, error, named):
    with pytest.raises(error) as caught:
        run(run_yaml, *overrides)
    assert named in str(caught.value)
    assert not (run_yaml.parent / "run" / "alpacare.json").exists()


def test_a_bad_configuration_ends_the_command_with_status_2_and_one_message(run_yaml, alpacare):
    done = alpacare("train", "--config", run_yaml, "trian.steps=1")
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr
    assert "Traceback" not in done.stderr
