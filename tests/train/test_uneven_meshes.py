"""Runs on meshes that divide neither heads nor vocabulary: the curve, the checkpoints and the export of any other."""

import json
import logging
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from alpacare_jax import convert, load
from alpacare_jax.train import Trainer, load_config

FSDP = ("mesh.fsdp=8",)
TWO = ("mesh.fsdp=4", "mesh.tensor=2")
FOUR = ("mesh.fsdp=2", "mesh.tensor=4")


@pytest.fixture
def uneven_yaml(run_yaml, tokenizer_folder, tmp_path):
    """The run of six steps, of a model with SmolLM2's nine heads on three, and an odd vocabulary."""
    folder = tmp_path / "uneven"
    shutil.copytree(tokenizer_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8, "vocab_size": 265}
    (folder / "config.json").write_text(json.dumps(config))
    run_yaml.write_text(
        run_yaml.read_text().replace(str(tokenizer_folder / "config.json"), str(folder / "config.json"))
    )
    return run_yaml


def run(path, out, *overrides):
    Trainer.from_config(load_config(path, [f"out={out}", *overrides])).train()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def test_a_run_goes_on_on_another_uneven_mesh_and_exports_the_models_own_shapes(
    uneven_yaml, tmp_path, caplog
):
    expected = run(uneven_yaml, tmp_path / "even", *FSDP, "train.checkpoint_every=0")
    caplog.set_level(logging.INFO, "alpacare.train")
    out = tmp_path / "run"
    run(uneven_yaml, out, *TWO)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("uneven")]
    assert len(said) == 1
    assert "do not divide heads 9, kv_heads 3, vocab 265" in said[0]
    assert "12 query and 4 key/value heads for 9 and 3" in said[0]
    for step in (4, 6):
        shutil.rmtree(out / "checkpoints" / str(step))
    found = run(uneven_yaml, out, *FOUR)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    opened = load(out)
    convert.export(opened.params, opened.config, opened.hf_folder, tmp_path / "hf")
    with safe_open(tmp_path / "hf" / "model.safetensors", framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    attention = "model.layers.0.self_attn."
    assert shapes[f"{attention}q_proj.weight"] == [72, 32]
    assert shapes[f"{attention}k_proj.weight"] == [24, 32]
    assert shapes[f"{attention}o_proj.weight"] == [32, 72]
    assert shapes["model.embed_tokens.weight"] == [265, 32]


@pytest.mark.slow
def test_adapters_on_a_quantised_base_learn_the_same_on_an_uneven_mesh(uneven_yaml, tmp_path):
    settings = ("adapter.kind=lora", "adapter.rank=4", "adapter.base=nf4", "train.checkpoint_every=0")
    expected = run(uneven_yaml, tmp_path / "even", *FSDP, *settings)
    found = run(uneven_yaml, tmp_path / "run", *TWO, *settings)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
