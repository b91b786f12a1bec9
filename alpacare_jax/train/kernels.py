"""Settling the kernels of a run before anything is compiled: chosen, checked against the plain form, and announced."""

import dataclasses
import logging

import jax
from jax.sharding import Mesh

from alpacare_jax import attention
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.errors import DataError
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
        ConfigError: The kernel asked for cannot run here, or is wrong here.
        DataError: Rows have more segments than the kernel asked for takes.
    """
    shapes = attention.Shapes(
        heads=model.num_attention_heads,
        kv_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        length=data.row_length,
        dtype=compute.dtype,
    )
    settled = attention.select_and_verify(
        shapes, mesh, compute.attention, segments=compute.attention_segments
    )
    if settled.name == "cudnn":
        refused = _too_many_segments(compute, data)
        if refused:
            settled = attention.select_and_verify(shapes, mesh, compute.attention, refused=["cudnn"])
    if jax.process_index() == 0:
        logger.info("attention %s: %s", settled.name, settled.reason)
        for check in settled.checks:
            logger.info("          %s", check)
    return dataclasses.replace(compute, attention=settled.name)


def _too_many_segments(compute: ComputeConfig, data: PackedDataset) -> bool:
    """Return whether rows have more segments than the kernel's table; raise where the kernel was asked for."""
    most, limit = data.most_segments(), compute.attention_segments
    if most <= limit:
        return False
    if compute.attention == "cudnn":
        raise DataError(
            "rows have more segments than the attention kernel takes",
            where=data.where,
            found=f"{most} in the fullest row, its padding counted",
            expected=f"at most {limit} (compute.attention_segments)",
            remedy=f"set compute.attention_segments to {most}, which costs memory, or compute.attention to auto",
        )
    logger.warning(
        "cudnn is not taken: a row has %d segments, and compute.attention_segments is %d", most, limit
    )
    return True
