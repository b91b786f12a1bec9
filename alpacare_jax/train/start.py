"""The model that a training run starts from: an existing one, random weights, or the run's own checkpoint."""

import dataclasses
from pathlib import Path

from jax.sharding import Mesh

from alpacare_jax import checkpoint, convert
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, LlamaConfig, Params
from alpacare_jax.model.shapes import named_shape
from alpacare_jax.train.config import RunConfig


def find_start(config: RunConfig) -> convert.FoundModel:
    """Find the model a run starts from; its weights are not read.

    That is an existing model, or random weights of an architecture. A run that goes on from a checkpoint of all its
    weights needs neither; one of adapters needs its base again.

    Raises:
        UserError: There is no such model, or it is not of the shape that the configuration names.
    """
    out = Path(config.out)
    if checkpoint.steps_of(out) and not config.adapter.on:
        return _resumed(out)
    if config.init is not None:
        found = convert.find_model(config.init)
        check_shape(config, found.config)
        return found
    path = Path(config.architecture or "")
    if path.suffix != ".json":
        raise ConfigError(
            "random weights need a tokenizer beside their shape",
            where=f"architecture: {path}",
            expected="the path of a config.json, in a folder that holds a tokenizer too",
            remedy="name such a file, or set `init` to a model",
        )
    origin = {"reference": str(path), "format": "random", "seed": config.train.seed}
    return convert.random_model(Architecture(named_shape(str(path)), config.compute), path.parent, origin)


def _resumed(out: Path) -> convert.FoundModel:
    def read(mesh: Mesh | None, dtype: str | None) -> Params:
        raise AssertionError("a resumed run takes its parameters from a checkpoint")

    described = checkpoint.read_description(out)
    return convert.FoundModel(described["config"], out / "hf", out.name, described.get("source", {}), read)


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
