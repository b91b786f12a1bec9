"""From a configuration and a few options to the program that is to be planned."""

import dataclasses
from pathlib import Path

from alpacare_jax import attention
from alpacare_jax.errors import ConfigError, ShardingError
from alpacare_jax.hardware.topology import Topology, parse_topology
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.shapes import SHAPES, cut_to, named_shape
from alpacare_jax.plan.programs import Program
from alpacare_jax.train import RunConfig
from datagen.decoding import read_json_object


def make_program(
    config: RunConfig,
    *,
    topology: str | None = None,
    rows: int | None = None,
    seq_len: int | None = None,
    layers: int | None = None,
) -> tuple[Program, Topology]:
    """Work out what to compile; nothing is downloaded and no data is read.

    Args:
        config: The run.
        topology: Name of the devices; the configuration's own when None.
        rows: Rows of a batch over all devices; the configuration's when None.
        seq_len: Tokens of a row; the configuration's when None.
        layers: Layers of the model, fewer than it has, for a quick look; all of them when None.

    Raises:
        UserError: Something needed is not named, or does not fit together.
    """
    name = topology or config.topology
    if name is None:
        raise ConfigError(
            "a plan needs the name of the devices",
            where="topology",
            remedy="pass --topology, such as v5e:4x4, or set `topology` in the configuration",
        )
    place = parse_topology(name)
    length = seq_len or config.seq_len
    if length is None:
        raise ConfigError(
            "a plan needs the length of the rows",
            where="seq_len",
            remedy="pass --seq-len, or set `seq_len` in the configuration",
        )
    model = model_shape(config)
    if layers is not None:
        if layers > model.num_hidden_layers:
            raise ConfigError(
                "a model is cut to fewer layers than it has",
                where="--layers",
                found=layers,
                expected=f"at most {model.num_hidden_layers}",
            )
        model = cut_to(model, layers)
    shards = batch_shards(config, place)
    check_kernel(config, model, place, length)
    unit = shards * config.train.microbatches
    rows = rows or rows_of(config, unit)
    if rows % unit:
        raise ConfigError(
            "the batch does not divide over devices and microbatches",
            where="train.batch_rows",
            found=f"{rows} rows over {shards} devices x {config.train.microbatches} microbatches",
            expected=f"a multiple of {unit}",
            remedy="change the rows, train.microbatches or the mesh",
        )
    return Program(config, model, place.name, rows, length), place


def check_kernel(config: RunConfig, model: LlamaConfig, place: Topology, length: int) -> None:
    """Check that the attention kernel that is named runs on the devices, before anything is compiled.

    What is installed here says nothing about where the run will be, so packages and versions are not looked at.

    Raises:
        ConfigError: It does not: why, and which do.
    """
    chip = place.chip
    attention.select_kernel(
        attention.KernelContext(
            platform=chip.platform,
            device_kind=chip.name,
            dtype=config.compute.dtype,
            head_dim=model.head_dim,
            length=length,
            context=config.mesh.shape(place.devices)[3],
            compute_capability=chip.compute_capability,
            jax_version=(999,),
            has_tokamax=True,
        ),
        config.compute.attention,
    )


def batch_shards(config: RunConfig, place: Topology) -> int:
    """Return over how many devices a batch's rows are split, checking that the mesh fits the topology.

    Raises:
        ShardingError: The mesh is larger than the topology, or does not divide it.
    """
    try:
        data, fsdp, _, _ = config.mesh.shape(place.devices)
    except ShardingError as error:
        raise ShardingError(
            error.what,
            where=f"mesh on {place.name}",
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from None
    return data * fsdp


def rows_of(config: RunConfig, unit: int) -> int:
    """Return the rows of a batch; where a recipe counts examples, one row each, which is the most they can take."""
    train = config.train
    if train.batch_rows is not None:
        return train.batch_rows
    return max(1, round((train.batch_examples or 1) / unit)) * unit


def model_shape(config: RunConfig) -> LlamaConfig:
    """Find the model's shape: named by the configuration, or beside weights that are already here.

    Raises:
        ConfigError: Neither is there.
    """
    if config.architecture is not None:
        return named_shape(config.architecture)
    folder = Path(config.init or "")
    description, hf = folder / "alpacare.json", folder / "config.json"
    if description.is_file():
        from alpacare_jax import checkpoint

        return checkpoint.read_description(folder)["config"]
    if hf.is_file():
        return LlamaConfig.from_hf(read_json_object(hf, error=ConfigError))
    raise ConfigError(
        "the model's shape is not known",
        where=f"init: {config.init}",
        expected="`architecture` beside it: " + ", ".join(SHAPES) + ", or a config.json",
        remedy="set `architecture`; nothing is downloaded to plan",
    )


def with_mesh(program: Program, **sizes: int) -> Program:
    """Return the program on another mesh."""
    return program.replace(
        config=dataclasses.replace(program.config, mesh=dataclasses.replace(program.config.mesh, **sizes))
    )
