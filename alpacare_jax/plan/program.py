"""The training step that a plan is about: a configuration, a model's shape, devices, and the size of a batch."""

import dataclasses
from pathlib import Path
from typing import Any

from alpacare_jax import attention, sharding
from alpacare_jax.errors import ConfigError, ShardingError
from alpacare_jax.hardware.chips import GIB
from alpacare_jax.hardware.topology import Topology, parse_topology
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.shapes import SHAPES, named_shape
from alpacare_jax.train import RunConfig
from datagen.decoding import read_json_object

ELSEWHERE = ("out", "train_data", "init", "architecture", "validation_data", "topology", "seq_len", "train")
"""Keys of a configuration that change no step, or that a program holds as fields of its own."""
IN_STEP = ("microbatches", "freeze", "neftune_alpha", "guard")
"""Keys of its section ``train`` that do change a step."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One training step to compile.

    Args:
        config: The run.
        model: The model's shape.
        place: The devices.
        rows: Rows of a batch over all devices (B).
        seq_len: Tokens of a row (T).
    """

    config: RunConfig
    model: LlamaConfig
    place: Topology
    rows: int
    seq_len: int

    @property
    def mesh(self) -> dict[str, int]:
        """Sizes of the mesh axes on the devices, by name.

        Raises:
            ShardingError: The mesh is larger than the topology, or does not divide it.
        """
        try:
            sizes = self.config.mesh.shape(self.place.devices)
        except ShardingError as error:
            error.where = f"mesh on {self.place.name}"
            raise
        return dict(zip(sharding.MESH_AXES, sizes, strict=True))

    @property
    def shards(self) -> int:
        """Over how many devices a batch's rows are split."""
        return self.mesh["data"] * self.mesh["fsdp"]

    @property
    def microbatches(self) -> int:
        """Parts of a batch that are computed one after another."""
        return self.config.train.microbatches

    @property
    def mesh_name(self) -> str:
        """The mesh by its sizes: ``fsdp 8 x tensor 2``."""
        return " x ".join(f"{axis} {size}" for axis, size in self.mesh.items() if size > 1) or "one device"

    @property
    def name(self) -> str:
        """Mesh, microbatches, policy and rows in a layer, in a few words."""
        compute = self.config.compute
        at_once = f", {compute.layer_rows} rows in a layer" if compute.layer_rows else ""
        return f"{self.mesh_name}, {self.microbatches} x, remat {compute.remat}{at_once}"

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.seq_len}, {self.name} for {self.place.name}"

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this step from others, as plain JSON values."""
        config = dataclasses.asdict(self.config)
        return {
            "config": {key: value for key, value in config.items() if key not in ELSEWHERE},
            "train": {key: config["train"][key] for key in IN_STEP},
            "model": self.model.to_dict(),
            "topology": self.place.name,
            "rows": self.rows,
            "seq_len": self.seq_len,
        }

    def replace(self, **changes: Any) -> "Program":
        """Return the program with other rows, devices or the like."""
        return dataclasses.replace(self, **changes)

    def configured(
        self, *, mesh: dict[str, int] | None = None, microbatches: int | None = None, **compute: Any
    ) -> "Program":
        """Return the program with another mesh, other microbatches or other keys of ``compute``."""
        config = self.config
        return self.replace(
            config=dataclasses.replace(
                config,
                mesh=dataclasses.replace(config.mesh, **mesh or {}),
                compute=dataclasses.replace(config.compute, **compute),
                train=dataclasses.replace(config.train, microbatches=microbatches or self.microbatches),
            )
        )


def make_program(
    config: RunConfig,
    *,
    topology: str | None = None,
    rows: int | None = None,
    seq_len: int | None = None,
    layers: int | None = None,
    host_gib: float | None = None,
) -> Program:
    """Determine what to compile; nothing is downloaded and no data is read.

    Args:
        config: The run.
        topology: Name of the devices; the configuration's own when None.
        rows: Rows of a batch over all devices; the configuration's when None.
        seq_len: Tokens of a row; the configuration's when None.
        layers: Layers of the model, fewer than it has, for a quick look; all of them when None.
        host_gib: Memory of one host in GiB, if it differs from what is published for its machine type.

    Raises:
        UserError: Something needed is not named, or does not fit together.
    """
    topology, seq_len = topology or config.topology, seq_len or config.seq_len
    for key, value, example in (("topology", topology, "v5e:4x4"), ("seq_len", seq_len, "2048")):
        if value is None:
            raise ConfigError(
                f"a plan needs `{key}`",
                where=key,
                remedy=f"pass --{key.replace('_', '-')}, such as {example}, or set `{key}` in the configuration",
            )
    assert topology is not None
    assert seq_len is not None
    place, model = parse_topology(topology), model_shape(config)
    if host_gib is not None:
        place = dataclasses.replace(place, host_bytes=int(host_gib * GIB))
    if layers is not None and layers > model.num_hidden_layers:
        raise ConfigError(
            "the model has fewer layers than --layers",
            where="--layers",
            found=layers,
            expected=f"at most {model.num_hidden_layers}",
        )
    model = dataclasses.replace(model, num_hidden_layers=layers or model.num_hidden_layers)
    program = Program(config, model, place, 0, seq_len)
    # What is installed here says nothing about where the run will be: packages and versions are not looked at.
    choose_kernel(program, jax_version=(999,), has_tokamax=True)
    unit = program.shards * program.microbatches
    # If a recipe counts examples, one row each, which is the most they can take.
    examples = max(1, round((config.train.batch_examples or 1) / unit)) * unit
    rows = rows or config.train.batch_rows or examples
    if rows % unit:
        raise ConfigError(
            "the batch does not divide over devices and microbatches",
            where="train.batch_rows",
            found=f"{rows} rows over {program.shards} devices x {program.microbatches} microbatches",
            expected=f"a multiple of {unit}",
            remedy="change the rows, train.microbatches or the mesh",
        )
    return program.replace(rows=rows)


def choose_kernel(program: Program, **installed: Any) -> attention.KernelChoice:
    """Choose the attention kernel that a run would use on the devices.

    Args:
        program: The step.
        **installed: What else :class:`alpacare_jax.attention.KernelContext` says of the packages that are installed.

    Raises:
        ConfigError: The kernel that is named does not run on the devices: why, and which do.
    """
    chip, compute = program.place.chip, program.config.compute
    here = attention.KernelContext(
        platform=chip.platform,
        device_kind=chip.name,
        dtype=compute.dtype,
        head_dim=program.model.head_dim,
        length=program.seq_len,
        context=program.mesh["context"],
        compute_capability=chip.compute_capability,
        **installed,
    )
    return attention.select_kernel(here, compute.attention)


def model_shape(config: RunConfig) -> LlamaConfig:
    """Find the model's shape: named by the configuration, or beside weights that are already here.

    Raises:
        ConfigError: Neither is there.
    """
    if config.architecture is not None:
        return named_shape(config.architecture)
    folder = Path(config.init or "")
    if (folder / "alpacare.json").is_file():
        from alpacare_jax import checkpoint

        return checkpoint.read_description(folder)["config"]
    if (folder / "config.json").is_file():
        return LlamaConfig.from_hf(read_json_object(folder / "config.json", error=ConfigError))
    raise ConfigError(
        "the model's shape is not known",
        where=f"init: {config.init}",
        expected="`architecture` beside it: " + ", ".join(SHAPES) + ", or a config.json",
        remedy="set `architecture`; nothing is downloaded to plan",
    )
