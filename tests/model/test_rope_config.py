"""Rotary settings of config.json: read as transformers reads them, or refused by name; and oddly typed values."""

import numpy as np
import pytest

from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.rope import inverse_frequencies

BASE = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
LINEAR = {"type": "linear", "factor": 4}
BEFORE = "original_max_position_embeddings"
READ = {
    "nothing": {},
    "a base": {"rope_theta": 500_000},
    "empty scaling": {"rope_scaling": {}},
    "the key of before": {"rope_scaling": LINEAR},
    "length inside": {"rope_scaling": LLAMA3 | {BEFORE: 64}},
    "length outside": {"rope_scaling": LLAMA3, BEFORE: 64},
    "length outside wins": {"rope_scaling": LLAMA3 | {BEFORE: 128}, BEFORE: 64},
    "no length": {"rope_scaling": LLAMA3},
    "length outside for yarn": {"rope_parameters": YARN | {"rope_theta": 5e5}, BEFORE: 100},
    "scaling beside parameters": {
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
        "rope_scaling": LINEAR,
    },
    "scaling beside parameters of another kind": {"rope_parameters": LLAMA3, "rope_scaling": LINEAR},
    "a base in both": {
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
        "rope_scaling": LINEAR | {"rope_theta": 5e5},
    },
    "betas": {"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 2, BEFORE: 128}},
    "a beta of zero": {"rope_scaling": YARN | {"beta_fast": 0, BEFORE: 128}},
    "attention factor": {"rope_scaling": YARN | {"attention_factor": 0.5, BEFORE: 128}},
    "magnitudes": {
        "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False, BEFORE: 128}
    },
    "truncate null": {"rope_scaling": YARN | {"truncate": None, BEFORE: 128}},
    "truncate null elsewhere": {"rope_scaling": LINEAR | {"truncate": None}},
    "factor from lengths": {"rope_scaling": {"rope_type": "yarn", "factor": None, BEFORE: 128}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "a switch that is off": {"rope_interleaved": False, "partial_rotary_factor": 1.0},
}
REFUSED = {
    "factor without type": ({"rope_scaling": {"factor": 4.0}}, "factor"),
    "type without factor": ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
    "llama3 without its bounds": (
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        "low_freq_factor is missing",
    ),
    "a text as factor": ({"rope_scaling": LINEAR | {"factor": "4"}}, "factor must be a number"),
    "no stretch": ({"rope_scaling": LINEAR | {"factor": 0}}, "factor must be above 0"),
    "a key of another kind": ({"rope_scaling": LINEAR | {"beta_fast": 32}}, "beta_fast"),
    "a key of llama.cpp": ({"rope_scaling": YARN | {"attn_factor": 0.5}}, "attn_factor"),
    "a key nobody knows": ({"rope_scaling": YARN | {"finetuned": True}}, "finetuned"),
    "another kind": ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "longrope"),
    "sections": ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, "mrope"),
    "two kinds": ({"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, "two kinds"),
    "parameters by layer": ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "full_attention"),
    "two bases": (
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_scaling": LINEAR},
        "rope_theta",
    ),
    "a part of the head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "interleaved": ({"rope_interleaved": True}, "rope_interleaved"),
    "a base of one": ({"rope_theta": 1.0, "rope_scaling": YARN}, "rope_theta must be above 1"),
    "a base near nothing": ({"rope_theta": 1e-300}, "rope_theta must be above 1"),
    "too long": (
        {"max_position_embeddings": 10**12},
        "max_position_embeddings must be at least 1 and at most",
    ),
    "another spelling": ({"rope_ratio": 4}, "rope_ratio"),
    "no base": ({"rope_theta": None}, "rope_theta"),
    "a text as base": ({"rope_theta": "10000"}, "rope_theta"),
    "a list": ({"rope_scaling": [1]}, "rope_scaling"),
    "a list as kind": ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_type"),
    "a text as length": ({"rope_scaling": LLAMA3, BEFORE: "64"}, BEFORE),
    "layers as text": ({"num_hidden_layers": "2"}, "num_hidden_layers"),
    "heads that do not divide": ({"num_attention_heads": 6, "num_key_value_heads": 4}, "num_attention_heads"),
    "null layers": ({"num_hidden_layers": None}, "num_hidden_layers"),
    "null width": ({"hidden_size": None}, "hidden_size"),
    "null positions": ({"max_position_embeddings": None}, "max_position_embeddings"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads"),
    "a broken width": ({"hidden_size": 64.5}, "hidden_size"),
    "true as number": ({"vocab_size": True}, "vocab_size"),
    "an answer as switch": ({"attention_bias": "no"}, "attention_bias"),
    "an odd head": ({"head_dim": 15}, "head_dim"),
    "a list as architecture": ({"model_type": ["llama"]}, "model_type"),
}


@pytest.mark.torch
@pytest.mark.parametrize("changes", READ.values(), ids=READ)
def test_rotary_settings_mean_what_they_mean_in_transformers(changes):
    from transformers import LlamaConfig as TheirConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    ours, scale = inverse_frequencies(LlamaConfig.from_hf(BASE | changes))
    config = TheirConfig(**BASE | {key: dict(v) if isinstance(v, dict) else v for key, v in changes.items()})
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        theirs, their_scale = LlamaRotaryEmbedding(config).inv_freq, 1.0
    else:
        theirs, their_scale = ROPE_INIT_FUNCTIONS[kind](config)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    assert scale == pytest.approx(their_scale)


@pytest.mark.parametrize(("changes", "named"), REFUSED.values(), ids=REFUSED)
def test_what_transformers_ignores_or_stumbles_over_is_refused_by_name(changes, named):
    with pytest.raises(ConversionError) as error:
        LlamaConfig.from_hf(BASE | changes)
    assert named in str(error.value)


def test_null_and_one_stand_for_nothing_special():
    assert (
        LlamaConfig.from_hf(BASE | {"head_dim": None, "rope_ratio": 1, "rope_scaling": None}).head_dim == 16
    )


def test_whole_numbers_written_as_decimals_are_read_as_whole_numbers():
    config = LlamaConfig.from_hf({"num_hidden_layers": 4.0, "tie_word_embeddings": 1.0, "rms_norm_eps": 1})
    assert repr((config.num_hidden_layers, config.tie_word_embeddings)) == "(4, True)"
    with pytest.raises(ConversionError, match=r"num_hidden_layers must be a whole number, not 4\.5"):
        LlamaConfig.from_hf({"num_hidden_layers": 4.5})
