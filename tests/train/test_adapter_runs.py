"""Runs that train adapters, from a configuration file to an exported model."""

import json
import shutil

import jax
import numpy as np
import pytest
from marking import slow_but

from alpacare_jax import checkpoint, convert, load, sharding
from alpacare_jax.cli import export_verb
from alpacare_jax.convert.adapted import load_adapters, read_partition
from alpacare_jax.errors import CheckpointError, ConfigError, ConversionError, TrainingError
from alpacare_jax.train import Trainer, load_config

TOKENS = np.arange(48, dtype=np.int32).reshape(2, 24)


def run(path, *overrides, **kwargs):
    config = load_config(path, ["adapter.kind=lora", "adapter.rank=4", *overrides])
    Trainer.from_config(config, **kwargs).train()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return {line["step"]: line["loss"] for line in lines(folder) if "loss" in line}


def adapter_logits(folder):
    """Logits of base and adapters side by side, nothing merged."""
    described = checkpoint.read_description(folder)
    partition, mesh = read_partition(described), sharding.single_device_mesh()
    found, dtype = convert.opening.find_base(folder, described)
    base = found.read(mesh, dtype)
    joined = partition.join(load_adapters(folder, partition, mesh), partition.freeze_base(base, mesh))
    return np.asarray(jax.jit(lambda params: partition.architecture.model(params)(TOKENS))(joined))


@pytest.mark.parametrize("kind", slow_but(["rslora"], ["rslora", "dora"]))
def test_a_run_keeps_adapters_alone_and_exports_them_merged(run_yaml, tmp_path, kind):
    run(run_yaml, f"adapter.kind={kind}", "train.checkpoint_every=0")
    folder = tmp_path / "run"
    assert losses(folder)[6] < losses(folder)[1] - 0.05
    saved = checkpoint.folders.stored_leaves(folder / "checkpoints" / "6" / "params")
    assert {name.rpartition(".")[2] for name in saved} == {"a", "b"} | (
        {"magnitude"} if kind == "dora" else set()
    )
    merged = load(folder)
    found, expected = np.asarray(merged.logits(TOKENS)), adapter_logits(folder)
    assert np.abs(found - expected).max() <= 1e-5
    convert.export(merged.params, merged.config, merged.hf_folder, tmp_path / "hf")
    assert np.abs(np.asarray(load(tmp_path / "hf").logits(TOKENS)) - expected).max() <= 1e-5


def test_a_resumed_run_of_adapters_ends_exactly_where_an_uninterrupted_one_does(run_yaml, tmp_path):
    run(run_yaml)
    whole, cut = tmp_path / "run", tmp_path / "cut"
    shutil.copytree(whole, cut)
    for step in ("4", "6"):
        shutil.rmtree(cut / "checkpoints" / step)
    run(run_yaml, f"out={cut}")
    assert losses(cut) == losses(whole)
    last = [checkpoint.flatten(load(folder).params) for folder in (cut, whole)]
    assert all(np.array_equal(last[0][name], last[1][name]) for name in last[1])


@pytest.mark.slow
def test_a_run_on_a_quantised_base_with_noise_and_guard_resumes_exactly(run_yaml, tmp_path, caplog):
    method = ["adapter.base=nf4", "adapter.dropout=0.1", "train.neftune_alpha=5"]
    # Every norm above a hair more than the median is called a spike, so that some steps are skipped.
    method += [
        "train.guard.action=skip",
        "train.guard.factor=1.0001",
        "train.guard.window=8",
        "train.steps=14",
    ]
    method += ["train.guard.patience=14", "optim.learning_rate=1e-3"]
    run(run_yaml, *method)
    whole, cut = tmp_path / "run", tmp_path / "cut"
    skipped = [line for line in lines(whole) if "skipped" in line]
    assert skipped, "no step was skipped"
    assert skipped[-1]["skipped"] == len(skipped)
    assert len(losses(whole)) + len(skipped) == 14
    shutil.copytree(whole, cut)
    for step in ("12", "14"):
        shutil.rmtree(cut / "checkpoints" / step)
    run(run_yaml, f"out={cut}", *method)
    assert losses(cut) == losses(whole)
    assert [line for line in lines(cut) if "skipped" in line] == skipped
    last = [checkpoint.flatten(load(folder).params) for folder in (cut, whole)]
    assert all(np.array_equal(last[0][name], last[1][name]) for name in last[1])


@pytest.mark.slow
def test_a_run_that_starts_as_the_residual_resumes_and_exports_what_it_trained(run_yaml, tmp_path):
    method = [
        "adapter.base=nf4",
        "adapter.start=residual",
        "adapter.start_rows=9",
        "adapter.targets=[query,down]",
    ]
    run(run_yaml, *method, "train.steps=4")
    whole, cut = tmp_path / "run", tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "4")
    run(run_yaml, f"out={cut}", *method, "train.steps=4")
    assert losses(cut) == losses(whole)
    found = np.asarray(load(cut).logits(TOKENS))
    assert np.abs(found - adapter_logits(whole)).max() <= 1e-5
    with pytest.raises(ConfigError, match=r"adapter\.start: residual") as caught:
        export_verb.command(whole, tmp_path / "peft", None, None, "5GB", peft=True)
    assert str(whole) in str(caught.value)
    assert not (tmp_path / "peft").exists()


def test_a_run_whose_every_step_is_bad_stops_after_some(run_yaml):
    bad = [
        "adapter.kind=none",
        "optim.learning_rate=1e4",
        "optim.weight_decay=1e4",
        "optim.clip_norm=0",
        "train.checkpoint_every=0",
    ]
    with pytest.raises(TrainingError, match="2 steps skipped in a row") as caught:
        run(run_yaml, *bad, "train.guard.action=skip", "train.guard.patience=2")
    assert "step 4, samples 24 to 31" in str(caught.value)


@pytest.mark.slow
def test_adapters_are_opened_from_an_existing_base_or_the_run_says_what_is_wrong(run_yaml, tmp_path):
    run(run_yaml, "adapter.kind=none", "train.steps=1", f"out={tmp_path / 'first'}")
    first = load(tmp_path / "first")
    checkpoint.save_model(tmp_path / "base", first.params, first.config, hf=first.hf_folder)
    run(run_yaml, f"init={tmp_path / 'base'}", "architecture=null", "train.steps=2")
    folder = tmp_path / "run"
    found = np.asarray(load(folder).logits(TOKENS))
    assert np.abs(found - adapter_logits(folder)).max() <= 1e-5
    with pytest.raises(CheckpointError, match="holds only adapters"):
        checkpoint.load_params(folder)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match="no longer there") as caught:
        load(folder)
    assert str(tmp_path / "base") in str(caught.value)
    other = jax.tree.map(lambda leaf: leaf + 0.1, first.params)
    checkpoint.save_model(tmp_path / "base", other, first.config, hf=first.hf_folder)
    with pytest.raises(CheckpointError, match="not the one the adapters were trained on"):
        load(folder)


def test_what_an_adapter_cannot_be_is_refused_before_anything_is_written(run_yaml, tmp_path):
    for overrides, named in (
        (["adapter.kind=lorra"], "did you mean lora"),
        (["adapter.rank=64"], "rank 64"),
        (["train.freeze=[layers.0.mlp]"], "train.freeze matches an adapted weight"),
        (["adapter.kind=none", "adapter.base=nf4"], "only frozen weights can be quantised"),
    ):
        with pytest.raises(ConfigError) as caught:
            run(run_yaml, *overrides)
        assert named in str(caught.value)
    assert not (tmp_path / "run").exists()
