"""The config and the weights of a tiny LLaMA, made without torch."""

from typing import Any

import ml_dtypes
import numpy as np

from alpacare_jax.convert import table
from alpacare_jax.model import LlamaConfig

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "torch_dtype": "float32",
    "transformers_version": "4.45.0.dev0",
    "a_key_nobody_knows": {"kept": True},
}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def random_tensors(config: dict[str, Any], dtype: str = "float32") -> dict[str, np.ndarray]:
    shape = LlamaConfig.from_hf(config)
    rng, sizes = np.random.default_rng(0), table.axis_sizes(shape)
    return {
        name: rng.normal(size=table.shape_of(rule.hf_axes, sizes)).astype(DTYPES[dtype])
        for name, (rule, _) in table.expected_tensors(shape, "hf").items()
    }
