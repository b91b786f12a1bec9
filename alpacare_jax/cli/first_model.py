"""The model that a training run starts from: an existing one, random weights, or the run's own checkpoint."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from alpacare_jax import checkpoint, convert
from alpacare_jax.config import RunConfig
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, LlamaConfig, Params
from alpacare_jax.model.shapes import named_shape


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from.

    Args:
        model: The model's shape.
        assets: Folder of config, tokenizer and chat template.
        params: Gives the first parameters, the same ones every time; not called where a checkpoint is resumed.
        origin: Where the model comes from, plain JSON values.
    """

    model: LlamaConfig
    assets: Path
    params: Callable[[], Params]
    origin: dict[str, Any]


def open_start(config: RunConfig, mesh: Mesh) -> Start:
    """Open the model a run starts from: an existing one, or random weights of an architecture.

    Raises:
        UserError: There is no such model, or it does not fit the mesh.
    """
    if config.init is not None:
        found = convert.find_model(config.init)
        check_shape(config, found.config)
        dtype = opened_dtype(config)
        return Start(
            found.config, found.hf_folder, functools.cache(lambda: found.read(mesh, dtype)), found.origin
        )
    path = Path(config.architecture or "")
    if path.suffix != ".json":
        raise ConfigError(
            "random weights need a tokenizer beside their shape",
            where=f"architecture: {path}",
            expected="the path of a config.json, in a folder that holds a tokenizer too",
            remedy="name such a file, or set `init` to a model",
        )
    model = named_shape(str(path))
    architecture = Architecture(model, dataclasses.replace(config.compute, param_dtype=opened_dtype(config)))
    origin = {"reference": str(path), "format": "random", "seed": config.train.seed}
    params = functools.cache(lambda: architecture.init(config.train.seed, mesh))
    return Start(model, path.parent, params, origin)


def resume_start(out: Path) -> Start:
    """Describe the start of a run that has a checkpoint."""

    def no_params() -> Params:
        raise AssertionError("a resumed run takes its parameters from a checkpoint")

    described = checkpoint.read_description(out)
    return Start(described["config"], out / "hf", no_params, described.get("source", {}))


def check_shape(config: RunConfig, found: LlamaConfig) -> None:
    """Check that the model a run starts from has the shape that the configuration names.

    Raises:
        ConfigError: Names every size that differs.
    """
    if config.architecture is None:
        return
    expected = named_shape(config.architecture)
    # How long the rows may be and how random weights are drawn change nothing that is planned with.
    free = ("max_position_embeddings", "initializer_range", "rope", "rms_norm_eps")
    sizes = [field.name for field in dataclasses.fields(LlamaConfig) if field.name not in free]
    differing = [name for name in sizes if getattr(found, name) != getattr(expected, name)]
    if differing:
        raise ConfigError(
            "the model is not of the shape that the configuration names",
            where=f"init: {config.init}",
            found=", ".join(f"{name} {getattr(found, name)}" for name in differing),
            expected=f"{config.architecture}: "
            + ", ".join(f"{name} {getattr(expected, name)}" for name in differing),
            remedy="change `architecture`, or set it to null to take the model as it is",
        )


def opened_dtype(config: RunConfig) -> str:
    """Return the dtype in which a run's first parameters are opened."""
    if config.adapter.on:
        return config.adapter.base_dtype(config.compute.dtype)
    return config.compute.param_dtype
