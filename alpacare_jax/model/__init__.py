"""LLaMA: its shape, its layers and its key/value cache."""

from alpacare_jax.model.compute import ComputeConfig
from alpacare_jax.model.config import LlamaConfig, RopeConfig
from alpacare_jax.model.llama import KVCache, Llama
from alpacare_jax.model.params import Architecture, Params, params_of

__all__ = [
    "Architecture",
    "ComputeConfig",
    "KVCache",
    "Llama",
    "LlamaConfig",
    "Params",
    "RopeConfig",
    "params_of",
]
