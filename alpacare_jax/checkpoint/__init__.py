"""Checkpoints: parameter trees, model folders, and the checkpoints of a run, all through Orbax."""

from alpacare_jax.checkpoint.claims import claimed
from alpacare_jax.checkpoint.config_files import CONFIG_FILES, copy_config_files
from alpacare_jax.checkpoint.folders import (
    DESCRIPTION,
    atomic_folder,
    check_free,
    load_params,
    meet,
    params_folder,
    read_description,
    restore_params,
    save_model,
    steps_of,
    stored_leaves,
    write_description,
)
from alpacare_jax.checkpoint.params import abstract_params
from alpacare_jax.checkpoint.runs import RunCheckpoints, put_damaged_aside
from alpacare_jax.checkpoint.streaming import open_params
from alpacare_jax.model.params import flatten, unflatten

__all__ = [
    "CONFIG_FILES",
    "DESCRIPTION",
    "RunCheckpoints",
    "abstract_params",
    "atomic_folder",
    "check_free",
    "claimed",
    "copy_config_files",
    "flatten",
    "load_params",
    "meet",
    "open_params",
    "params_folder",
    "put_damaged_aside",
    "read_description",
    "restore_params",
    "save_model",
    "steps_of",
    "stored_leaves",
    "unflatten",
    "write_description",
]
