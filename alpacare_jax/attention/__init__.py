"""Attention in training: causal, within packed segments, grouped-query, by the kernel that suits the platform."""

from alpacare_jax.attention.attend import attend
from alpacare_jax.attention.check import Check, Shapes, check_all_kernels, check_kernel, select_and_verify
from alpacare_jax.attention.heads import HeadLayout, layout_here, layout_over
from alpacare_jax.attention.names import AUTO, KERNELS, RESIDUALS, check_name
from alpacare_jax.attention.packed import SEGMENTS, keeps_packed
from alpacare_jax.attention.plain import attend_masked, segment_mask
from alpacare_jax.attention.selection import (
    KernelChoice,
    KernelContext,
    kernel_context,
    select_kernel,
    unsupported_reason,
)

__all__ = [
    "AUTO",
    "KERNELS",
    "RESIDUALS",
    "SEGMENTS",
    "Check",
    "HeadLayout",
    "KernelChoice",
    "KernelContext",
    "Shapes",
    "attend",
    "attend_masked",
    "check_all_kernels",
    "check_kernel",
    "check_name",
    "keeps_packed",
    "kernel_context",
    "layout_here",
    "layout_over",
    "segment_mask",
    "select_and_verify",
    "select_kernel",
    "unsupported_reason",
]
