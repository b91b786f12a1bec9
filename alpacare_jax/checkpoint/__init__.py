"""Checkpoints: parameter trees, model folders, and the checkpoints of a run, all through Orbax."""

from alpacare_jax.checkpoint.assets import TRAVELLING, copy_assets
from alpacare_jax.checkpoint.folders import (
    atomic_folder,
    check_free,
    load_params,
    params_folder,
    read_description,
    save_model,
    write_description,
)
from alpacare_jax.checkpoint.params import (
    Params,
    abstract_model,
    abstract_params,
    build_model,
    flatten,
    params_of,
    unflatten,
    with_params,
)
from alpacare_jax.checkpoint.runs import RunCheckpoints

__all__ = [
    "TRAVELLING",
    "Params",
    "RunCheckpoints",
    "abstract_model",
    "abstract_params",
    "atomic_folder",
    "build_model",
    "check_free",
    "copy_assets",
    "flatten",
    "load_params",
    "params_folder",
    "params_of",
    "read_description",
    "save_model",
    "unflatten",
    "with_params",
    "write_description",
]
