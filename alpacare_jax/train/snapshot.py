"""A copy of a run's current model, which later steps do not change."""

import dataclasses
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from alpacare_jax import checkpoint, convert, sharding
from alpacare_jax.adapters import merge
from alpacare_jax.model import ComputeConfig
from alpacare_jax.train.data_checks import record_ends
from alpacare_jax.train.step import TrainState, TrainStep

if TYPE_CHECKING:
    from alpacare_jax.language_model import LanguageModel


def snapshot(
    train_step: TrainStep,
    state: TrainState,
    start: convert.FoundModel,
    end_ids: Collection[int],
    out: Path | None,
) -> "LanguageModel":
    """Return a run's model: its weights copied, adapters merged into their base.

    Args:
        train_step: The run's step.
        state: Its state.
        start: The model that it started from.
        end_ids: The tokens at which training teaches answers to end; the model's generation config names them.
        out: The run folder, whose tokenizer and config files are the model's; None takes those of ``start``.
    """
    from alpacare_jax.language_model import LanguageModel

    mesh, used = train_step.mesh, train_step.architecture.compute
    with sharding.use_mesh(mesh):
        params = train_step.model_params(state)
        if train_step.adapter.on:
            base = train_step.partition.base
            params = merge(params, base.compute.param_dtype, base.shardings(mesh))
        params = jax.tree.map(jnp.copy, params)
    found = dataclasses.replace(start, read=lambda *_: {}, reference=None)
    if out is not None:
        found = dataclasses.replace(found, hf_folder=out / "hf", name=out.resolve().name)
    elif end_ids:
        held = tempfile.TemporaryDirectory(prefix="alpacare-model-")  # removed with the model
        checkpoint.copy_config_files(start.hf_folder, Path(held.name))
        record_ends(Path(held.name), end_ids)
        found = dataclasses.replace(found, hf_folder=Path(held.name), _keeps=held)
    loaded = LanguageModel.of(found, params, mesh, ComputeConfig(precision=used.precision))
    return dataclasses.replace(loaded, compute=dataclasses.replace(loaded.compute, dtype=used.dtype))
