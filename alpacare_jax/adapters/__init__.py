"""Adapters: small trained weights beside a frozen model, and the partition into what is trained and what is not."""

from alpacare_jax.adapters.config import AdapterConfig
from alpacare_jax.adapters.partition import Partition, bytes_a_device, count
from alpacare_jax.adapters.stacked import merge

__all__ = ["AdapterConfig", "Partition", "bytes_a_device", "count", "merge"]
