"""Putting a training run together from its configuration: model, data, mesh, evaluator, sinks and checkpoints."""

import dataclasses
import json
import logging
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import alpacare_jax
from alpacare_jax import checkpoint, convert, sharding
from alpacare_jax.adapters import bytes_a_device, count
from alpacare_jax.cli.kernels import settle_attention
from alpacare_jax.cli.resuming import check_same_base, check_unchanged, started_size
from alpacare_jax.config import RunConfig, to_yaml
from alpacare_jax.data.loader import Batch, PackedDataset, batches_in_order
from alpacare_jax.errors import ConfigError, DataError
from alpacare_jax.evaluate.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, LlamaConfig, Params
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.model.shapes import named_shape
from alpacare_jax.model.uneven import describe_uneven
from alpacare_jax.plan.chips import chip_of
from alpacare_jax.plan.fitting import check_fits, memory_limit
from alpacare_jax.plan.topology import parse_topology
from alpacare_jax.tokenizer import load_tokenizer
from alpacare_jax.train import JsonlSink, Profile, Run, Schedule, Stepper, TensorBoardSink, Yardstick, train
from datagen.records import read_objects, write_atomically

logger = logging.getLogger("alpacare.train")


def train_from_config(
    config: RunConfig, *, accept_changes: bool = False, profile_steps: str | None = None
) -> None:
    """Start or resume the run that a configuration describes, and train it to the end.

    Args:
        config: The run.
        accept_changes: Resume although the configuration differs from the one the run was started with.
        profile_steps: The steps to write a trace of, ``first:last``; None for none.

    Raises:
        UserError: Something in the configuration, the data, the model or the mesh does not fit.
    """
    if config.topology is not None:
        parse_topology(config.topology)  # a name that does not exist would only be found by the next plan
    out, mesh = Path(config.out), sharding.make_mesh(config.mesh)
    profile = Profile.parse(profile_steps, out / "profile") if profile_steps else None
    data = PackedDataset.open(config.train_data)
    check_rows(config, data, mesh)
    statistics, shards = data.manifest.statistics, sharding.batch_shards(mesh)
    check_run_folder(out)
    training = config.train.for_data(statistics, shards, started_size(out))
    schedule = training.schedule(statistics, shards)
    metadata = describe(config, schedule, data)
    resuming = checkpoint.steps_of(out) != []
    # Checkpoints of adapters lack the base, which is opened again.
    start = resume_start(out) if resuming and not config.adapter.on else open_start(config, mesh)
    check_vocabulary(start.assets, start.model, data)
    Architecture(start.model, config.compute).check_mesh(mesh)
    compute = settle_attention(config.compute, start.model, data, mesh)
    settled = dataclasses.replace(config, compute=compute, train=training)
    architecture = Architecture(start.model, settled.compute)
    stepper = settled.stepper(start.model, schedule.steps, mesh)
    check_fits(stepper, schedule.batch_rows, data.row_length, memory_limit(mesh.local_devices[0]))
    with checkpoint.RunCheckpoints(out / "checkpoints", keep=config.train.keep_checkpoints) as checkpoints:
        latest = checkpoints.latest_step()
        if latest is None:
            write_run_folder(out, start, config, mesh)
        else:
            check_unchanged(checkpoints.metadata(latest), metadata, out, accepted=accept_changes)
            if config.adapter.on:
                check_same_base(out, start.model, start.params(), mesh)
        first = jax.process_index() == 0
        if first:
            write_atomically(out / "config.yaml", lambda file: file.write(to_yaml(config)))
            announce(config, start.model, schedule, stepper, data.row_length)
        sinks = make_sinks(out, latest or 0) if first else []
        started = time.monotonic()
        try:
            state = train(
                Run(
                    config=training,
                    schedule=schedule,
                    stepper=stepper,
                    data=data,
                    initial_params=start.params,
                    checkpoints=checkpoints,
                    metadata=metadata,
                    evaluate=make_evaluator(config, architecture, mesh),
                    sinks=sinks,
                    speak=first,
                    yardstick=make_yardstick(config, start.model, data.row_length, mesh),
                    profile=profile,
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


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from.

    Args:
        model: The model's shape.
        assets: Folder of config, tokenizer and chat template.
        params: Gives the first parameters; not called where a checkpoint is resumed.
        origin: Where the model comes from, plain JSON values.
    """

    model: LlamaConfig
    assets: Path
    params: Callable[[], Params]
    origin: dict[str, Any]


def resume_start(out: Path) -> Start:
    """Describe the start of a run that has a checkpoint."""

    def no_params() -> Params:
        raise AssertionError("a resumed run takes its parameters from a checkpoint")

    described = checkpoint.read_description(out)
    return Start(described["config"], out / "hf", no_params, described.get("source", {}))


def make_yardstick(config: RunConfig, model: LlamaConfig, row_length: int, mesh: Mesh) -> Yardstick:
    """Return what the speed of a run's steps is measured by."""
    chip = chip_of(mesh.devices.flat[0].device_kind)
    peak = chip.bf16_flops if chip and config.compute.dtype == "bfloat16" else None
    return Yardstick(flops_per_row(model, row_length, trained=not config.adapter.on), mesh.size, peak)


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


def open_start(config: RunConfig, mesh: Mesh) -> Start:
    """Open the model a run starts from: an existing one, or random weights of an architecture.

    Raises:
        UserError: There is no such model, or it does not fit the mesh.
    """
    if config.init is not None:
        loaded = convert.open_model(config.init, mesh=mesh, dtype=opened_dtype(config))
        check_shape(config, loaded.config)
        return Start(loaded.config, loaded.hf_folder, lambda: loaded.params, loaded.origin)
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
    return Start(model, path.parent, lambda: architecture.init(config.train.seed, mesh), origin)


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


def write_run_folder(out: Path, start: Start, config: RunConfig, mesh: Mesh) -> None:
    """Write what makes a folder a run: its description and the files that travel with the model."""
    described: dict[str, Any] = {"source": start.origin}
    if config.adapter.on:
        mark = convert.mark_base(start.params(), mesh)
        described["adapter"] = convert.describe_adapter(
            config.adapter, config.compute.dtype, config.init, mark
        )
    if jax.process_index() == 0:
        checkpoint.copy_assets(start.assets, out / "hf")
        checkpoint.write_description(out, "run", start.model, described)
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
    """Check that the rows of a data set are as long as the configuration says and divide over the context axis.

    Raises:
        ConfigError: They are of another length.
        ShardingError: They do not divide.
    """
    if config.seq_len not in (None, data.row_length):
        raise ConfigError(
            "the rows are not as long as the configuration says",
            where="seq_len",
            found=f"{config.seq_len}; {data.folder} holds rows of {data.row_length} tokens",
            remedy="change `seq_len`, or run `alpacare pack` with that --seq-len",
        )
    sharding.check_divides(mesh, {"length": data.row_length})


def check_vocabulary(assets: Path, model: LlamaConfig, data: PackedDataset) -> None:
    """Check that data and model speak of the same tokens.

    Raises:
        DataError: The data were packed with another tokenizer, or its ids exceed the model's table.
    """
    if any(assets.glob("tokenizer*")):
        data.check_tokenizer(load_tokenizer(assets))
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
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "schedule": dataclasses.asdict(schedule),
        "data": [shard["sha256"] for shard in data.manifest.shards],
        "version": alpacare_jax.__version__,
    }


def announce(
    config: RunConfig, model: LlamaConfig, schedule: Schedule, stepper: Stepper, row_length: int
) -> None:
    """Say in a few lines what is about to happen."""
    mesh = stepper.mesh
    sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    logger.info("model     %s parameters, %s", f"{model.parameter_count:,}", config.compute.dtype)
    logger.info("training  %s", describe_trained(stepper))
    logger.info("memory    %s", describe_memory(stepper))
    logger.info("mesh      %s (%d devices of %s)", sizes, mesh.size, mesh.devices.flat[0].device_kind)
    if stepper.microbatches != (asked := config.train.microbatches):
        kept = f"which keeps a batch near {config.train.batch_examples} examples"
        logger.info("batch     microbatches %d instead of %d, %s", stepper.microbatches, asked, kept)
    if uneven := describe_uneven(model, mesh, row_length):
        logger.info("uneven    %s", uneven)
    logger.info(
        "run       %d steps of %d rows, %.2f epochs, into %s",
        schedule.steps,
        schedule.batch_rows,
        schedule.steps * schedule.batch_rows / schedule.epoch_rows,
        config.out,
    )


def describe_trained(stepper: Stepper) -> str:
    """Say how much is trained, and by what method."""
    trained, total = (
        count(stepper.division.abstract_on(stepper.mesh)[0]),
        stepper.architecture.config.parameter_count,
    )
    adapter = stepper.adapter
    if not adapter.on:
        kept = f"; frozen: {', '.join(stepper.freeze)}" if stepper.freeze else ""
        return f"{trained:,} parameters, {100 * trained / total:.1f}% of the model{kept}"
    base = adapter.base if adapter.base != "auto" else stepper.architecture.compute.dtype
    return (
        f"{trained:,} parameters in adapters, {100 * trained / total:.2f}% of the model: {adapter.kind}, rank "
        f"{adapter.rank}, alpha {adapter.alpha:g}, on {', '.join(adapter.targets)}; base frozen in {base}"
    )


def describe_memory(stepper: Stepper) -> str:
    """Say what the state takes on each device; activations and gradients come on top."""
    state = stepper.abstract_state()
    parts = {"trained": "params", "optimiser": "optimizer", "frozen": "frozen"}
    sizes = [(name, bytes_a_device(state[key])) for name, key in parts.items() if key in state]
    whole = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes)
    kept = "; checkpoints keep the adapters and their optimiser alone" if stepper.adapter.on else ""
    return f"{whole} a device, before activations and gradients{kept}"
