"""The model against transformers on torch, fp32, same weights: every family, whole and by layer."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax import convert, load
from alpacare_jax.convert import hf_folder
from alpacare_jax.model import Llama, LlamaConfig

torch = pytest.importorskip("torch", reason="parity needs torch, which the test extra brings")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4
SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def rope(kind: str, theta: float = 10_000.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


YARN = {"factor": 4.0, "original_max_position_embeddings": 32}

# name -> (what differs from SMALL, length of the text in tokens)
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "llama-1": ({}, 40),
    "llama-2-gqa": ({"num_key_value_heads": 2, "rms_norm_eps": 1e-5}, 40),
    "llama-3": ({"num_key_value_heads": 2, **rope("default", 500_000.0), "eos_token_id": [2, 3]}, 40),
    "llama-3.1": ({"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE}, 100),
    "llama-3.2-tied": (
        {
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3_ROPE | {"factor": 32.0},
        },
        100,
    ),
    "code-llama": ({**rope("default", 1_000_000.0)}, 40),
    "linear": ({**rope("linear", factor=4.0)}, 100),
    "dynamic-short": ({**rope("dynamic", factor=2.0)}, 40),
    "dynamic-long": ({**rope("dynamic", factor=2.0), "max_position_embeddings": 32}, 75),
    "yarn": ({**rope("yarn", **YARN)}, 100),
    "yarn-mscale": ({**rope("yarn", **YARN, mscale=0.8, mscale_all_dim=1.2, beta_fast=16.0)}, 100),
    "yarn-attention-factor": ({**rope("yarn", **YARN, attention_factor=1.3, truncate=False)}, 100),
    "biases": ({"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2}, 40),
    "free-head-size": ({"head_dim": 24, "num_key_value_heads": 2}, 40),
    "smollm2-like": (
        {
            "hidden_size": 72,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
            **rope("default", 100_000.0),
        },
        40,
    ),
}


def save_random(folder: Path, changes: dict[str, Any]) -> Any:
    """Save a model with weights so large that logits, norms and biases all matter; return it."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name:
                value.copy_(1 + 0.3 * torch.randn_like(value))
            else:
                value.copy_(torch.randn_like(value) * (0.3 if name.endswith("bias") else 0.15))
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Every family saved by transformers: name -> folder, torch model."""
    base = tmp_path_factory.mktemp("families")
    return {name: (base / name, save_random(base / name, changes)) for name, (changes, _) in FAMILIES.items()}


def tokens(length: int, rows: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, SMALL["vocab_size"], (rows, length)).astype(np.int32)


@jax.jit
def logits(model: Llama, ids: jax.Array) -> jax.Array:
    return model(ids)


def torch_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.long)).logits.float().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_through_import_and_export(family, saved, tmp_path):
    folder, model = saved[family]
    ids = tokens(FAMILIES[family][1])
    expected = torch_logits(model, ids)
    assert expected.std() > 0.5  # logits of no size would agree whatever the model did

    loaded = load(folder, precision="highest")
    difference = np.abs(np.asarray(logits(loaded.module, ids)) - expected).max()
    print(f"largest difference, {family}: {difference:.1e}")
    assert difference <= TOLERANCE

    convert.export(loaded.params, loaded.config, folder, tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert all(torch.equal(a, again.state_dict()[name]) for name, a in model.state_dict().items())
    assert np.array_equal(torch_logits(again, ids), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_written_from_the_shape_alone_means_the_same_to_transformers(family, saved, tmp_path):
    """What a model without a Hugging Face config of its own gets, as one from GGUF."""
    folder, model = saved[family]
    ids = tokens(FAMILIES[family][1])
    config = LlamaConfig.from_hf(json.loads((folder / "config.json").read_text()))
    hf_folder.write_config(tmp_path, config, "float32")
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    assert LlamaConfig.from_hf(json.loads((tmp_path / "config.json").read_text())) == config
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert np.abs(torch_logits(again, ids) - torch_logits(model, ids)).max() <= 1e-6


@pytest.mark.parametrize("family", ["llama-3.1", "biases"])
def test_every_layer_agrees(family, saved):
    from alpacare_jax.model import rope as rotary

    folder, model = saved[family]
    ids = tokens(FAMILIES[family][1])
    with torch.no_grad():
        states = model(torch.tensor(ids, dtype=torch.long), output_hidden_states=True).hidden_states
    ours = load(folder, precision="highest").module.unstack()
    x = ours.embed[...][ids]
    angles = rotary.rotation(ours.config, rotary.default_positions(jnp.asarray(ids)))
    segments = jnp.ones_like(jnp.asarray(ids))
    for i, layer in enumerate(ours.layers):
        assert np.abs(np.asarray(x) - states[i].numpy()).max() <= TOLERANCE, f"input of layer {i}"
        x, _ = layer(x, angles, segments)
    assert np.abs(np.asarray(ours.norm(x)) - states[-1].numpy()).max() <= TOLERANCE, "after the last norm"


def test_positions_far_from_zero_agree(saved):
    """An error of one unit in a rotary frequency shows only far out."""
    folder, model = saved["llama-3"]
    ids = tokens(12, rows=1)
    positions = np.arange(8000, 8012)[None]
    with torch.no_grad():
        out = model(torch.tensor(ids, dtype=torch.long), position_ids=torch.tensor(positions))
    ours = load(folder, precision="highest").module(
        jnp.asarray(ids), positions_BT=jnp.asarray(positions, jnp.int32)
    )
    assert np.abs(np.asarray(ours) - out.logits.numpy()).max() <= TOLERANCE


@pytest.mark.parametrize(("family", "key"), [("llama-3", "theta"), ("linear", "factor"), ("yarn", "factor")])
def test_the_comparison_notices_a_lost_rotary_setting(family, key, saved):
    import dataclasses

    from alpacare_jax.model import Architecture

    folder, model = saved[family]
    ids = tokens(FAMILIES[family][1])
    loaded = load(folder, precision="highest")
    wrong = dataclasses.replace(loaded.config.rope, **{key: getattr(loaded.config.rope, key) * 2})
    spoilt = Architecture(dataclasses.replace(loaded.config, rope=wrong)).model(loaded.params)
    assert np.abs(np.asarray(logits(spoilt, ids)) - torch_logits(model, ids)).max() > 100 * TOLERANCE


def test_bfloat16_weights_are_kept_and_agree(saved, tmp_path):
    _, model = saved["llama-2-gqa"]
    model = transformers.LlamaForCausalLM.from_pretrained(saved["llama-2-gqa"][0], dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "bf16")
    loaded = load(tmp_path / "bf16", dtype="float32", precision="highest")
    ids = tokens(40)
    assert (
        np.abs(np.asarray(logits(loaded.module, ids)) - torch_logits(model.float(), ids)).max() <= TOLERANCE
    )
    assert load(tmp_path / "bf16", precision="highest").params["embed"].dtype == jnp.bfloat16
