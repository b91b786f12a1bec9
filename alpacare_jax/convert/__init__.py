"""Models of other formats: Hugging Face folders, hub names and GGUF files in, Hugging Face folders out."""

from alpacare_jax.convert.adapted import describe_adapter, mark_base
from alpacare_jax.convert.export import export
from alpacare_jax.convert.hf_folder import add_end_tokens
from alpacare_jax.convert.load import load
from alpacare_jax.convert.opening import FoundModel, find_foreign, find_model, random_model
from alpacare_jax.convert.sources import Source, open_safetensors

__all__ = [
    "FoundModel",
    "Source",
    "add_end_tokens",
    "describe_adapter",
    "export",
    "find_foreign",
    "find_model",
    "load",
    "mark_base",
    "open_safetensors",
    "random_model",
]
