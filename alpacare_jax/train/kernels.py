"""The attention kernel of a run: selected and verified before anything is compiled, and announced."""

import dataclasses
import logging

import jax
from jax.sharding import Mesh

from alpacare_jax import attention
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.model import ComputeConfig, LlamaConfig

logger = logging.getLogger("alpacare.train")


def select_attention(
    compute: ComputeConfig, model: LlamaConfig, data: PackedDataset, mesh: Mesh
) -> ComputeConfig:
    """Replace "auto" by a kernel that has shown to be right on the run's devices, and check one that was asked for.

    Args:
        compute: Of the run.
        model: Its shape.
        data: Its rows.
        mesh: Its devices.

    Returns:
        The same, with the name of a kernel.

    Raises:
        ConfigError: The kernel asked for cannot run here or on rows of so many segments, or is wrong here.
    """
    shapes = attention.Shapes(
        model.num_attention_heads, model.num_key_value_heads, model.head_dim, data.row_length, compute.dtype
    )
    choice = attention.select_and_verify(
        shapes,
        mesh,
        compute.attention,
        segments=data.most_segments,
        most_segments=compute.attention_segments,
    )
    if jax.process_index() == 0:
        logger.info("attention %s: %s", choice.name, choice.reason)
        for check in choice.checks:
            logger.info("          %s", check)
    return dataclasses.replace(compute, attention=choice.name)
