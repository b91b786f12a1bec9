"""Adapters: small trained weights beside a frozen model, and the division into what is trained and what is not."""

from alpacare_jax.adapters.config import AdapterConfig
from alpacare_jax.adapters.division import Division, bytes_a_device, count
from alpacare_jax.adapters.stacked import merge

__all__ = ["AdapterConfig", "Division", "bytes_a_device", "count", "merge"]
