"""Published sizes of LLaMA models by name, so that a run can be planned or drawn at random without a download.

Source: the models' papers (Touvron et al. 2023a, 2023b; Grattafiori et al. 2024) and their published configurations.
"""

import dataclasses
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ConfigError, did_you_mean
from alpacare_jax.model.config import LlamaConfig, RopeConfig
from datagen.decoding import read_json_object


def _llama(
    width: int, feed_forward: int, layers: int, heads: int, kv_heads: int | None = None, **more: Any
) -> LlamaConfig:
    values: dict[str, Any] = {"head_dim": width // heads, "rms_norm_eps": 1e-5} | more
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        **values,
    )


_LLAMA1: dict[str, Any] = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
_LLAMA2: dict[str, Any] = {"max_position_embeddings": 4096}
_LLAMA3: dict[str, Any] = {
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "rope": RopeConfig(theta=500_000.0),
}
_LONG: dict[str, Any] = {"kind": "llama3", "theta": 500_000.0, "original_max_position_embeddings": 8192}
_LLAMA31 = _LLAMA3 | {"max_position_embeddings": 131_072, "rope": RopeConfig(factor=8.0, **_LONG)}
_LLAMA32 = _LLAMA31 | {
    "rope": RopeConfig(factor=32.0, **_LONG),
    "tie_word_embeddings": True,
}

SHAPES: dict[str, LlamaConfig] = {
    "llama-7b": _llama(4096, 11_008, 32, 32, **_LLAMA1),
    "llama-13b": _llama(5120, 13_824, 40, 40, **_LLAMA1),
    "llama-33b": _llama(6656, 17_920, 60, 52, **_LLAMA1),
    "llama-65b": _llama(8192, 22_016, 80, 64, **_LLAMA1),
    "llama2-7b": _llama(4096, 11_008, 32, 32, **_LLAMA2),
    "llama2-13b": _llama(5120, 13_824, 40, 40, **_LLAMA2),
    "llama2-70b": _llama(8192, 28_672, 80, 64, 8, **_LLAMA2),
    "llama3-8b": _llama(4096, 14_336, 32, 32, 8, **_LLAMA3),
    "llama3-70b": _llama(8192, 28_672, 80, 64, 8, **_LLAMA3),
    "llama3.1-8b": _llama(4096, 14_336, 32, 32, 8, **_LLAMA31),
    "llama3.1-70b": _llama(8192, 28_672, 80, 64, 8, **_LLAMA31),
    "llama3.2-1b": _llama(2048, 8192, 16, 32, 8, **_LLAMA32),
    "llama3.2-3b": _llama(3072, 8192, 28, 24, 8, **_LLAMA32),
    "smollm2-135m": _llama(
        576,
        1536,
        30,
        9,
        3,
        vocab_size=49_152,
        max_position_embeddings=8192,
        rope=RopeConfig(theta=100_000.0),
        tie_word_embeddings=True,
    ),
}
"""Shapes by name."""


def named_shape(name: str) -> LlamaConfig:
    """Return the shape of a name of :data:`SHAPES`, or of a ``config.json``.

    Args:
        name: A name such as ``llama2-7b``, or the path of a Hugging Face ``config.json``.

    Raises:
        ConfigError: It is neither; the message names the nearest shapes.

    Example:
        >>> named_shape("llama2-7b").num_hidden_layers
        32
    """
    if name in SHAPES:
        return SHAPES[name]
    path = Path(name)
    if path.suffix != ".json":
        raise ConfigError(
            "there is no such model shape",
            where="architecture",
            found=name,
            expected=f"a config.json, or one of {', '.join(SHAPES)}",
            remedy=did_you_mean(name, SHAPES, most=3) or "name one of these",
        )
    return LlamaConfig.from_hf(read_json_object(path, error=ConfigError))


def cut_to(config: LlamaConfig, layers: int) -> LlamaConfig:
    """Return the shape with fewer layers, everything else as it is."""
    return dataclasses.replace(config, num_hidden_layers=layers)
