"""LLaMA: its shape, its layers and its key/value cache."""

from alpacare_jax.model.config import LlamaConfig, RopeConfig
from alpacare_jax.model.llama import ComputeConfig, KVCache, Llama

__all__ = ["ComputeConfig", "KVCache", "Llama", "LlamaConfig", "RopeConfig"]
