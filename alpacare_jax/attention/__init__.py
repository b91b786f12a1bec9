"""Attention in training: causal, within packed segments, grouped-query, by the kernel that suits the platform."""

from alpacare_jax.attention.attend import attend
from alpacare_jax.attention.names import AUTO, KERNELS, RESIDUALS, check_name
from alpacare_jax.attention.plain import attend_masked, segment_mask

__all__ = ["AUTO", "KERNELS", "RESIDUALS", "attend", "attend_masked", "check_name", "segment_mask"]
