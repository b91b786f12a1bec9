"""Putting a training run together from its configuration: model, data, mesh, evaluator, sinks and checkpoints."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from alpacare_jax import checkpoint, sharding
from alpacare_jax.cli.announcement import announce
from alpacare_jax.cli.data_checks import check_rows, check_vocabulary, record_ends
from alpacare_jax.cli.first_model import open_start, resume_start
from alpacare_jax.cli.kernels import settle_attention
from alpacare_jax.cli.program import begin_to_compile
from alpacare_jax.cli.resuming import check_same_base, check_unchanged, progress_of
from alpacare_jax.cli.run_folder import check_run_folder, describe, write_run_folder, write_summary
from alpacare_jax.config import RunConfig, to_yaml
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.loader import Batch, batches_in_order
from alpacare_jax.evaluate.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, LlamaConfig
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.plan.chips import chip_of
from alpacare_jax.plan.topology import parse_topology
from alpacare_jax.stages import Stages
from alpacare_jax.train import JsonlSink, Profile, Run, TensorBoardSink, Yardstick, train
from datagen.records import write_atomically

logger = logging.getLogger("alpacare.train")


def train_from_config(
    config: RunConfig,
    *,
    accept_changes: bool = False,
    profile_steps: str | None = None,
    stages: Stages | None = None,
) -> None:
    """Start or resume the run that a configuration describes, and train it to the end.

    Args:
        config: The run.
        accept_changes: Resume although the configuration differs from the one the run was started with.
        profile_steps: The steps to write a trace of, ``first:last``; None for none.
        stages: Takes the times of the start; those before this call may stand in it.

    Raises:
        UserError: Something in the configuration, the data, the model or the mesh does not fit.
    """
    stages, started = Stages() if stages is None else stages, time.monotonic()
    if config.topology is not None:
        parse_topology(config.topology)  # a name that does not exist would only be found by the next plan
    with stages.time("devices"):
        mesh = sharding.make_mesh(config.mesh)
    out = Path(config.out)
    profile = Profile.parse(profile_steps, out / "profile") if profile_steps else None
    with stages.time("data"):
        data = PackedDataset.open(config.train_data)
    check_rows(config, data, mesh)
    check_run_folder(out)
    with checkpoint.claimed(out.resolve(), out):
        _train(config, mesh, data, profile, stages, accept_changes=accept_changes, started=started)


def _train(
    config: RunConfig,
    mesh: Mesh,
    data: PackedDataset,
    profile: Profile | None,
    stages: Stages,
    *,
    accept_changes: bool,
    started: float,
) -> None:
    out, statistics, shards = Path(config.out), data.manifest.statistics, sharding.batch_shards(mesh)
    with stages.time("checkpoint"):
        checkpoint.put_damaged_aside(out)
    progress = progress_of(out)
    reached = None if progress is None else progress.step
    training = config.train.for_data(statistics, shards, progress)
    schedule = training.schedule(statistics, shards, progress)
    metadata = describe(config, schedule, data)
    with stages.time("model"):
        # Checkpoints of adapters lack the base, which is opened again.
        start = open_start(config, mesh) if reached is None or config.adapter.on else resume_start(out)
        check_vocabulary(start.assets, start.model, data)
    Architecture(start.model, config.compute).check_mesh(mesh)
    with stages.time("attention"):
        compute = settle_attention(config.compute, start.model, data, mesh)
    settled = dataclasses.replace(config, compute=compute, train=training)
    architecture = Architecture(start.model, settled.compute)
    stepper = settled.stepper(start.model, schedule.steps, mesh)
    program = None
    if reached is None or reached < schedule.steps:
        program = begin_to_compile(stepper, schedule, data.row_length, stages, resuming=reached is not None)
    with stages.time("folder"):
        checkpoints = checkpoint.RunCheckpoints(out / "checkpoints", keep=config.train.keep_checkpoints)
    with checkpoints:
        latest = checkpoints.latest_step()
        if latest is None or config.adapter.on:
            with stages.time("weights"):
                # A base is marked, or compared with its mark, before anything is trained; and a run whose weights or
                # step cannot be had leaves no folder behind.
                start.params()
        if latest is None and program is not None:
            with stages.time("waiting"):
                program()
        with stages.time("folder"):
            if latest is None:
                write_run_folder(out, start, config, mesh)
            else:
                check_unchanged(checkpoints.metadata(latest), metadata, out, accepted=accept_changes)
                if config.adapter.on:
                    check_same_base(out, start.model, start.params(), mesh)
        first = jax.process_index() == 0
        if first:
            record_ends(out / "hf", data.manifest.end_ids)
            write_atomically(out / "config.yaml", lambda file: file.write(to_yaml(config)))
            announce(config, start.model, schedule, stepper, data.row_length)
        sinks = make_sinks(out, latest or 0) if first else []
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
                    program=program,
                    stages=stages,
                )
            )
        finally:
            for sink in sinks:
                sink.close()
    if first:
        write_summary(out, int(state["step"]), time.monotonic() - started)


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
