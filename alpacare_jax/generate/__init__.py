"""Generating text: the engine, batch generation over a prompt file, and the HTTP server."""

from alpacare_jax.generate.engine import Engine
from alpacare_jax.generate.generation import Generation, TokenScore
from alpacare_jax.generate.sampling import SamplingParams

__all__ = ["Engine", "Generation", "SamplingParams", "TokenScore"]
