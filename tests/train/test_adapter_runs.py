"""Runs that train adapters, from a configuration file to an exported model."""

import json
import shutil

import jax
import numpy as np
import pytest

from alpacare_jax import checkpoint, convert, sharding
from alpacare_jax.cli.training import train_from_config
from alpacare_jax.config import RunConfig, load_config
from alpacare_jax.convert.adapted import load_adapters, read_division

TOKENS = np.arange(48, dtype=np.int32).reshape(2, 24)


def run(path, *overrides, **kwargs):
    config = load_config(path, ["adapter.kind=lora", "adapter.rank=4", *overrides], RunConfig)
    train_from_config(config, **kwargs)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def adapter_logits(folder):
    """Logits of base and adapters side by side, nothing merged."""
    described = checkpoint.read_description(folder)
    division, mesh = read_division(described), sharding.single_device_mesh()
    base = convert.opening.open_base(folder, described, mesh).params
    joined = division.join(load_adapters(folder, division, mesh), division.freeze_base(base, mesh))
    return np.asarray(jax.jit(lambda params: division.architecture.model(params)(TOKENS))(joined))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_run_keeps_adapters_alone_and_exports_them_merged(run_yaml, tmp_path, kind):
    run(run_yaml, f"adapter.kind={kind}", "train.checkpoint_every=0")
    folder = tmp_path / "run"
    assert losses(folder)[6] < losses(folder)[1] - 0.05
    saved = checkpoint.folders.stored_leaves(folder / "checkpoints" / "6" / "params")
    assert {name.rpartition(".")[2] for name in saved} == {"a", "b"} | (
        {"magnitude"} if kind == "dora" else set()
    )
    merged = convert.open_model(folder)
    found, expected = np.asarray(merged.model(TOKENS)), adapter_logits(folder)
    assert np.abs(found - expected).max() <= 1e-5
    convert.export(merged.params, merged.config, merged.hf_folder, tmp_path / "hf")
    assert np.abs(np.asarray(convert.open_model(tmp_path / "hf").model(TOKENS)) - expected).max() <= 1e-5


def test_a_resumed_run_of_adapters_ends_exactly_where_an_uninterrupted_one_does(run_yaml, tmp_path):
    run(run_yaml)
    whole, cut = tmp_path / "run", tmp_path / "cut"
    shutil.copytree(whole, cut)
    for step in ("4", "6"):
        shutil.rmtree(cut / "checkpoints" / step)
    run(run_yaml, f"out={cut}")
    assert losses(cut) == losses(whole)
    last = [checkpoint.flatten(convert.open_model(folder).params) for folder in (cut, whole)]
    assert all(np.array_equal(last[0][name], last[1][name]) for name in last[1])
