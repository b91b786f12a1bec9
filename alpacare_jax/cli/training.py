"""Putting a training run together from its configuration: model, data, mesh, evaluator, sinks and checkpoints."""

import dataclasses
import json
import logging
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import alpacare_jax
from alpacare_jax import checkpoint, convert, optim, sharding
from alpacare_jax.config import RunConfig, to_yaml
from alpacare_jax.data.loader import Batch, PackedDataset, batches_in_order
from alpacare_jax.errors import ConfigError, DataError
from alpacare_jax.evaluate.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, LlamaConfig
from alpacare_jax.tokenizer import load_tokenizer
from alpacare_jax.train import JsonlSink, Run, Schedule, Stepper, TensorBoardSink, train
from datagen.records import read_objects, write_atomically

logger = logging.getLogger("alpacare.train")

FREE_TO_CHANGE = ("out", "mesh", "compute", "topology", "validation_data")
"""Parts of the configuration that a resumed run may change without changing what is learnt."""
FREE_TRAIN_KEYS = (
    "microbatches",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "keep_checkpoints",
)


def train_from_config(config: RunConfig, *, accept_changes: bool = False) -> None:
    """Start or resume the run that a configuration describes, and train it to the end.

    Raises:
        UserError: Something in the configuration, the data, the model or the mesh does not fit.
    """
    out, mesh = Path(config.out), sharding.make_mesh(config.mesh)
    data = PackedDataset.open(config.train_data)
    check_rows(config, data, mesh)
    schedule = config.train.schedule(data.manifest.statistics, sharding.batch_shards(mesh))
    metadata = describe(config, schedule, data)
    check_run_folder(out)
    with checkpoint.RunCheckpoints(out / "checkpoints", keep=config.train.keep_checkpoints) as checkpoints:
        latest = checkpoints.latest_step()
        if latest is None:
            model, initial_params = open_start(config, out, mesh)
        else:
            if not accept_changes:
                check_unchanged(checkpoints.metadata(latest), metadata, out)
            model = checkpoint.read_description(out)["config"]
            initial_params = None
        check_vocabulary(out, model, data)
        first = jax.process_index() == 0
        if first:
            write_atomically(out / "config.yaml", lambda file: file.write(to_yaml(config)))
            announce(config, model, schedule, mesh)
        architecture = Architecture(model, config.compute)
        sinks = make_sinks(out, latest or 0) if first else []
        started = time.monotonic()
        try:
            state = train(
                Run(
                    config=config.train,
                    schedule=schedule,
                    stepper=make_stepper(config, architecture, schedule, mesh),
                    data=data,
                    initial_params=initial_params or never,
                    checkpoints=checkpoints,
                    metadata=metadata,
                    evaluate=make_evaluator(config, architecture, mesh),
                    sinks=sinks,
                    speak=first,
                )
            )
        finally:
            for sink in sinks:
                sink.close()
    if first:
        write_summary(out, int(state["step"]), time.monotonic() - started)


def write_summary(out: Path, steps: int, seconds: float) -> None:
    """Write ``summary.json``, last of all: its presence says that the run is finished.

    Args:
        out: The run folder.
        steps: Steps the run has.
        seconds: Wall time of this start of the run, compiling and validating included.
    """
    rows = [row for _, row in read_objects(out / "metrics.jsonl")]
    losses = [row["loss"] for row in rows if "loss" in row]
    held_out = [row["val_loss"] for row in rows if "val_loss" in row]
    summary = {
        "steps": steps,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "first_val_loss": held_out[0] if held_out else None,
        "last_val_loss": held_out[-1] if held_out else None,
        "wall_s": seconds,
        "peak_host_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    write_atomically(out / "summary.json", lambda file: file.write(json.dumps(summary, indent=2) + "\n"))
    logger.info("finished: %s", out)


def never() -> Any:
    """Stand in for initial parameters where a checkpoint is resumed."""
    raise AssertionError("a resumed run has no initial parameters")


def make_stepper(config: RunConfig, architecture: Architecture, schedule: Schedule, mesh: Mesh) -> Stepper:
    """Build the training step of a run."""
    return Stepper(
        architecture=architecture,
        optimizer=optim.make_optimizer(config.optim, schedule.steps),
        schedule=optim.make_schedule(config.optim, schedule.steps),
        mesh=mesh,
        microbatches=config.train.microbatches,
    )


def make_sinks(out: Path, resume_step: int) -> list[Any]:
    """Open the places where figures go."""
    return [
        JsonlSink(out / "metrics.jsonl", resume_step),
        TensorBoardSink(out / "tensorboard", resume_step),
    ]


def make_evaluator(config: RunConfig, architecture: Architecture, mesh: Mesh) -> Any:
    """Build the validation of a run, or None where it has no validation data."""
    if config.validation_data is None:
        return None
    held_out = PackedDataset.open(config.validation_data)
    check_rows(config, held_out, mesh)
    rows = sharding.batch_shards(mesh) * max(1, 4 // sharding.batch_shards(mesh))

    def batches() -> Iterator[Batch]:
        return batches_in_order(
            held_out, rows, sharding=sharding.batch_sharding(mesh), pad_id=held_out.pad_id
        )

    return heldout_evaluator(architecture, batches, mesh)


def open_start(config: RunConfig, out: Path, mesh: Mesh) -> tuple[LlamaConfig, Any]:
    """Open the model a run starts from and lay down the run folder's description.

    Returns:
        The model's shape, and the function that gives the first parameters.
    """
    if config.init is not None:
        loaded = convert.open_model(config.init, mesh=mesh, dtype=config.compute.param_dtype)
        write_run_folder(out, loaded.config, loaded.hf_folder, loaded.origin)
        return loaded.config, lambda: loaded.params
    path = Path(config.architecture or "")
    try:
        hf = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            "the architecture cannot be read",
            where=f"architecture: {path}",
            found=error,
            expected="a config.json",
        ) from None
    model = LlamaConfig.from_hf(hf)
    write_run_folder(out, model, path.parent, {"reference": str(path), "format": "random"})
    architecture = Architecture(model, config.compute)
    return model, lambda: architecture.init(config.train.seed, mesh)


def write_run_folder(out: Path, model: LlamaConfig, assets: Path, origin: dict[str, Any]) -> None:
    """Write what makes a folder a run: its description and the files that travel with the model."""
    if jax.process_index() == 0:
        checkpoint.copy_assets(assets, out / "hf")
        checkpoint.write_description(out, "run", model, {"source": origin})
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"run folder {out}")


def check_run_folder(out: Path) -> None:
    """Refuse to write a run into a folder that holds something else.

    Raises:
        ConfigError: The folder is not empty and is no run.
    """
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / checkpoint.DESCRIPTION).exists()):
        harmless = {"checkpoints"}
        if out.is_dir() and {path.name for path in out.iterdir()} <= harmless:
            return
        raise ConfigError(
            "the run folder holds something else",
            where=f"out: {out}",
            expected="a new or empty folder, or an earlier run to resume",
            remedy="choose another `out`",
        )
    if (out / checkpoint.DESCRIPTION).exists() and checkpoint.read_description(out)["kind"] != "run":
        raise ConfigError(
            "the run folder is a model folder", where=f"out: {out}", remedy="choose another `out`"
        )


def check_rows(config: RunConfig, data: PackedDataset, mesh: Mesh) -> None:
    """Check that the rows of a data set divide over the context axis.

    Raises:
        ShardingError: They do not.
    """
    sharding.check_divides(mesh, {"length": data.row_length})


def check_vocabulary(out: Path, model: LlamaConfig, data: PackedDataset) -> None:
    """Check that data and model speak of the same tokens.

    Raises:
        DataError: The data were packed with another tokenizer, or its ids exceed the model's table.
    """
    if any((out / "hf").glob("tokenizer*")):
        data.check_tokenizer(load_tokenizer(out / "hf"))
    found = int(data.manifest.tokenizer["vocab_size"])
    if found > model.vocab_size:
        raise DataError(
            "the tokenizer has more tokens than the model",
            where=data.folder,
            found=f"{found:,} tokens",
            expected=f"at most {model.vocab_size:,}",
            remedy="pack with the model's own tokenizer",
        )


def describe(config: RunConfig, schedule: Schedule, data: PackedDataset) -> dict[str, Any]:
    """Say what a checkpoint belongs to: configuration, size of the run, data and version."""
    return {
        "config": dataclasses.asdict(config),
        "schedule": dataclasses.asdict(schedule),
        "data": [shard["sha256"] for shard in data.manifest.shards],
        "version": alpacare_jax.__version__,
    }


def check_unchanged(saved: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Check that a resumed run learns what it was started to learn.

    Raises:
        ConfigError: Names every key that differs.
    """
    before, after = flatten(saved["config"]), flatten(now["config"])
    free = {*FREE_TO_CHANGE, *(f"train.{key}" for key in FREE_TRAIN_KEYS)}
    problems = [
        f"{key}: {before.get(key)!r} before, {after.get(key)!r} now"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key) and key not in free and key.partition(".")[0] not in free
    ]
    if saved["data"] != now["data"]:
        problems.append("the training data are not the same bytes")
    if saved["schedule"] != now["schedule"] and not problems:
        problems.append(f"the run's size: {saved['schedule']} before, {now['schedule']} now")
    if problems:
        raise ConfigError(
            "the run was started with another configuration",
            where=out,
            found="\n            ".join(problems),
            remedy="choose another `out`, restore these keys, or pass --accept-changes",
        )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys to dotted ones.

    Example:
        >>> flatten({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def announce(config: RunConfig, model: LlamaConfig, schedule: Schedule, mesh: Mesh) -> None:
    """Say in a few lines what is about to happen."""
    sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    logger.info("model     %s parameters, %s", f"{model.parameter_count:,}", config.compute.dtype)
    logger.info("mesh      %s (%d devices of %s)", sizes, mesh.size, mesh.devices.flat[0].device_kind)
    logger.info(
        "run       %d steps of %d rows, %.2f epochs, into %s",
        schedule.steps,
        schedule.batch_rows,
        schedule.steps * schedule.batch_rows / schedule.epoch_rows,
        config.out,
    )
