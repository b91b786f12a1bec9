"""The folder of a training run: what makes it one, what it may be written into, and its summary."""

import dataclasses
import json
import logging
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import alpacare_jax
from alpacare_jax import checkpoint, convert
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Params
from alpacare_jax.train.config import RunConfig
from alpacare_jax.train.settings import Schedule
from datagen.files import write_json
from datagen.records import read_objects

logger = logging.getLogger("alpacare.train")


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


def write_run_folder(
    out: Path, start: convert.FoundModel, params: Params, config: RunConfig, mesh: Mesh
) -> None:
    """Write what makes a folder a run: its description, and the model's tokenizer and config files."""
    described: dict[str, Any] = {"source": start.origin}
    if config.adapter.on:
        mark = convert.mark_base(params, mesh)
        described["adapter"] = convert.describe_adapter(
            config.adapter, config.compute.dtype, start.reference, mark
        )
    if jax.process_index() == 0:
        # Of a start that came to nothing, perhaps with another model.
        shutil.rmtree(out / "hf", ignore_errors=True)
        checkpoint.copy_config_files(start.hf_folder, out / "hf")
        checkpoint.write_description(out, "run", start.config, described)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"run folder {out}")


def describe(config: RunConfig, schedule: Schedule, data: PackedDataset) -> dict[str, Any]:
    """Say what a checkpoint belongs to: configuration, size of the run, data and version."""
    return {
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "schedule": dataclasses.asdict(schedule),
        "data": [shard["sha256"] for shard in data.manifest.shards],
        "version": alpacare_jax.__version__,
    }


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
    write_json(out / "summary.json", summary)
    logger.info("finished: %s", out)
