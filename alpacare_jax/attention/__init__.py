"""Attention in training: causal, within packed segments, grouped-query, by the kernel that suits the platform."""

from alpacare_jax.attention.attend import attend
from alpacare_jax.attention.check import Check, Settled, Shapes, check_kernel, settle
from alpacare_jax.attention.choice import Choice, Situation, choose, obstacle, situation
from alpacare_jax.attention.heads import HeadLayout, layout_here, layout_over
from alpacare_jax.attention.names import AUTO, KERNELS, RESIDUALS, check_name
from alpacare_jax.attention.packed import SEGMENTS, keeps_packed
from alpacare_jax.attention.plain import attend_masked, segment_mask
from alpacare_jax.attention.survey import survey

__all__ = [
    "AUTO",
    "KERNELS",
    "RESIDUALS",
    "SEGMENTS",
    "Check",
    "Choice",
    "HeadLayout",
    "Settled",
    "Shapes",
    "Situation",
    "attend",
    "attend_masked",
    "check_kernel",
    "check_name",
    "choose",
    "keeps_packed",
    "layout_here",
    "layout_over",
    "obstacle",
    "segment_mask",
    "settle",
    "situation",
    "survey",
]
