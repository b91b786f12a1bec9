"""Published sizes of LLaMA models by name, so that a run can be planned or drawn at random without a download."""

from pathlib import Path

import yaml

from alpacare_jax.errors import ConfigError, did_you_mean
from alpacare_jax.model.config import LlamaConfig
from datagen.decoding import read_json_object

SHAPES: dict[str, LlamaConfig] = {
    name: LlamaConfig.from_hf(config)
    for name, config in yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).items()
}
"""Shapes by name, from ``shapes.yaml``."""


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
