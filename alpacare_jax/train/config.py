"""The configuration of a training run, and the part of it that a Python caller sets."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from jax.sharding import Mesh

from alpacare_jax.adapters import AdapterConfig
from alpacare_jax.adapters.config import KINDS
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.errors import ConfigError
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig, fp8
from alpacare_jax.optim import OptimConfig, make_optimizer, make_schedule
from alpacare_jax.sharding import MeshConfig
from alpacare_jax.train.settings import LoopConfig
from alpacare_jax.train.step import TrainStep
from datagen.configuration import Range, build, check, lay_over, parse_overrides
from datagen.decoding import read_yaml_mapping
from datagen.files import refuse_remote

IN_MEMORY = "(in memory)"
"""The value of ``out`` for a run without a folder."""


@dataclasses.dataclass(frozen=True)
class LoRA(AdapterConfig):
    """Adapters that are trained beside the frozen model; the settings of ``AdapterConfig``, switched on.

    Examples:
        >>> LoRA(rank=16).kind
        'lora'
    """

    kind: str = "lora"


@dataclasses.dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """What a run learns and how: the settings of ``LoopConfig``, and those of optimiser, adapters and dtypes.

    Args:
        batch_size: Another name of ``batch_rows``: rows in a batch over all devices.
        lora: Adapters to train; None trains the model itself.
        optim: The optimiser.
        compute: Dtypes, recomputation and kernels; None computes in the dtype of the model, with master weights in
            float32.

    Examples:
        >>> TrainConfig(steps=200, batch_size=8, lora=LoRA(rank=16)).batch_rows
        8
    """

    batch_size: dataclasses.InitVar[int | None] = None
    lora: AdapterConfig | None = None
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig | None = None

    def __post_init__(self, batch_size: int | None) -> None:  # type: ignore[override]
        if batch_size is not None:
            object.__setattr__(self, "batch_rows", batch_size)
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A training run.

    Args:
        out: The run folder; a run that already stands there is resumed.
        init: Where the weights come from: a model folder, a Hugging Face folder, a hub name, a ``.gguf`` file, or
            another run's folder. None draws random weights of ``architecture``.
        architecture: The model's shape: a name of ``alpacare_jax.model.shapes.SHAPES`` or a Hugging Face
            ``config.json``. Where ``init`` is None random weights of it are drawn; beside ``init`` it says what that
            model must be, so that the run can be planned before anything is downloaded.
        train_data: Packed data set to train on.
        seq_len: Tokens in a row of ``train_data``, which must agree; planning reads it here, without the data.
        validation_data: Packed data set to validate on; None for no validation.
        topology: Name of the devices the run was written for, such as ``v5e:4x4``; None for any.
        mesh: Sizes of the mesh axes.
        compute: Dtypes and recomputation.
        adapter: What is trained beside the model instead of the model itself.
        optim: The optimiser.
        train: The loop.
    """

    out: str
    train_data: str
    init: str | None = None
    architecture: str | None = None
    seq_len: Annotated[int | None, Range(2, 1_048_576)] = None
    validation_data: str | None = None
    topology: str | None = None
    mesh: MeshConfig = MeshConfig()
    compute: ComputeConfig = ComputeConfig()
    adapter: AdapterConfig = AdapterConfig()
    optim: OptimConfig = OptimConfig()
    train: LoopConfig = dataclasses.field(default_factory=lambda: LoopConfig(batch_rows=8))

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        *,
        dtype: str,
        init: str,
        mesh: Mesh,
        data: PackedDataset,
        validation: PackedDataset | None,
        out: Path | None,
    ) -> "RunConfig":
        """Return the whole configuration of a run whose model and data are at hand.

        Args:
            config: What is learnt, and how.
            dtype: What the model computes in, for a run that does not say.
            init: What to call the model.
            mesh: The devices.
            data: The training rows.
            validation: The validation rows.
            out: The run folder.
        """
        return cls(
            out=IN_MEMORY if out is None else str(out),
            train_data=data.where,
            init=init,
            validation_data=None if validation is None else validation.where,
            mesh=MeshConfig(**mesh.shape),
            compute=config.compute or ComputeConfig(dtype=dtype),
            adapter=config.lora or AdapterConfig(),
            optim=config.optim,
            train=LoopConfig(
                **{field.name: getattr(config, field.name) for field in dataclasses.fields(LoopConfig)}
            ),
        )

    def __post_init__(self) -> None:
        if self.topology is not None:
            parse_topology(self.topology)  # a name that does not exist would only be found by the next plan
        for key in ("out", "train_data", "init", "architecture", "validation_data"):
            refuse_remote(getattr(self, key), key)
        if self.init is None and self.architecture is None:
            raise ConfigError(
                "set `init` or `architecture`",
                where="init, architecture",
                found="neither",
                expected="`init` (a model), or `architecture` (a shape's name or a config.json) for random weights",
            )
        check(self)
        if self.compute.layer_rows is not None and self.adapter.dropout:
            raise ConfigError(
                "`compute.layer_rows` and `adapter.dropout` exclude each other",
                where="compute.layer_rows, adapter.dropout",
                found=f"{self.compute.layer_rows}, {self.adapter.dropout:g}",
                remedy="leave one of them out",
            )

    def train_step(self, model: LlamaConfig, steps: int, mesh: Mesh) -> TrainStep:
        """Build the training step of this run, the same to train with and to plan with.

        Args:
            model: The model's shape.
            steps: Steps of the whole run.
            mesh: The devices.

        Raises:
            ConfigError: The devices cannot compute what ``compute.matmul`` asks for.
        """
        if self.compute.matmul == fp8.NAME and isinstance(mesh, Mesh):
            fp8.check_device(mesh.devices.flat[0])
        return TrainStep(
            architecture=Architecture(model, self.compute),
            optimizer=make_optimizer(self.optim, steps),
            schedule=make_schedule(self.optim, steps),
            mesh=mesh,
            microbatches=self.train.microbatches,
            rounding=self.optim.rounding,
            adapter=self.adapter,
            freeze=self.train.freeze,
            neftune_alpha=self.train.neftune_alpha,
            guard=self.train.guard,
            seed=self.train.seed,
        )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run.

    Args:
        path: A YAML file.
        overrides: ``key=value`` with dotted keys; values are read as YAML.

    Raises:
        ConfigError: The file is missing or broken; a key is unknown or a value of the wrong type. All bad keys are
            named at once, each with the nearest known key.

    Examples:
        >>> load_config("run.yaml", ["optim.learning_rate=1e-5", "train.epochs=1"])
    """
    values, changes = read_yaml_mapping(path), parse_overrides(RunConfig, overrides)
    adapter = lay_over(values, changes).get("adapter")
    if isinstance(adapter, dict) and adapter and "kind" not in adapter:
        raise ConfigError(
            "adapter.kind is missing, so the whole model would be trained",
            where=path,
            found=", ".join(map(str, adapter)),
            expected=", ".join(KINDS),
            remedy="name its kind, or none to train the whole model",
        )
    return build(RunConfig, (str(path), values), ("the command line", changes))
