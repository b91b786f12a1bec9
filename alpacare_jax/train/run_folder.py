"""The folder of a training run: claimed, with its description, checkpoints, figures and summary."""

import contextlib
import dataclasses
import json
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import alpacare_jax
from alpacare_jax import checkpoint, convert
from alpacare_jax.convert.adapted import check_base
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Params
from alpacare_jax.startup import StartupTimer
from alpacare_jax.train.callbacks import Callback, JsonLines, TensorBoard
from alpacare_jax.train.config import RunConfig
from alpacare_jax.train.data_checks import record_ends
from alpacare_jax.train.resume import check_unchanged
from alpacare_jax.train.settings import Progress, Schedule
from datagen.configuration import to_yaml
from datagen.files import write_json, write_text
from datagen.records import read_objects

logger = logging.getLogger("alpacare.train")


class RunFolder:
    """The folder that a run writes, alone.

    Args:
        path: The folder.
        config: The run.
        start: The model that the run starts from.
        timer: Takes the times of the start.

    Raises:
        ConfigError: The folder holds something else, or could not name the base of adapters.
    """

    def __init__(self, path: Path, config: RunConfig, start: convert.FoundModel, timer: StartupTimer) -> None:
        check_run_folder(path)
        if config.adapter.on and start.reference is None and start.origin.get("format") != "random":
            raise ConfigError(
                "the base model of the adapters exists only in memory, so a run folder cannot refer to it",
                where="model",
                remedy="save it with save_pretrained and load that folder, or leave `out` out",
            )
        self.path, self.config, self.start, self.timer = path, config, start, timer
        self._held: contextlib.ExitStack | None = None
        self._checkpoints: checkpoint.RunCheckpoints | None = None

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder against other writers; checkpoints that are opened meanwhile are closed at the end."""
        with contextlib.ExitStack() as self._held:
            self._held.enter_context(checkpoint.claimed(self.path.resolve(), self.path))
            try:
                yield
            finally:
                self._checkpoints = None

    @property
    def checkpoints(self) -> checkpoint.RunCheckpoints:
        """The run's checkpoints, opened when they are first asked for."""
        return self._checkpoints or self._open()

    def _open(self) -> checkpoint.RunCheckpoints:
        assert self._held is not None, "the folder is claimed first"
        kept = self.config.train.keep_checkpoints
        with self.timer.time("folder"):
            opened = checkpoint.RunCheckpoints(self.path / "checkpoints", keep=kept)
            self._checkpoints = self._held.enter_context(opened)
        return self._checkpoints

    def progress(self) -> Progress | None:
        """Return what the run has done up to its latest whole checkpoint, None where it has none."""
        with self.timer.time("checkpoint"):
            checkpoint.put_damaged_aside(self.path)
        steps = checkpoint.steps_of(self.path)
        if not steps:
            return None
        saved = self.checkpoints.metadata(steps[-1])
        return Progress(steps[-1], int(saved["position"]), saved["schedule"]["batch_rows"])

    def begin(self, base: Callable[[], Params], mesh: Mesh) -> None:
        """Write what makes the folder a run: its description, and the model's tokenizer and config files."""
        with self.timer.time("folder"):
            described: dict[str, Any] = {"source": self.start.origin}
            if self.config.adapter.on:
                described["adapter"] = convert.describe_adapter(
                    self.config.adapter,
                    self.config.compute.dtype,
                    self.start.reference,
                    convert.mark_base(base(), mesh),
                )
            if jax.process_index() == 0:
                # First of all: with it, a start that is killed here may be repeated.
                checkpoint.write_description(self.path, "run", self.start.config, described)
                # Of a start that came to nothing, perhaps with another model.
                shutil.rmtree(self.path / "hf", ignore_errors=True)
                checkpoint.copy_config_files(self.start.hf_folder, self.path / "hf")
            checkpoint.meet(f"run folder {self.path}")
        self._open()

    def check_resumed(
        self, step: int, now: dict[str, Any], base: Callable[[], Params], mesh: Mesh, *, accepted: bool
    ) -> None:
        """Check that a resumed run learns what it was started to learn, its adapters on the base they had.

        Args:
            step: The checkpoint that it goes on from.
            now: What :func:`describe` says of the run as it is now.
            base: Gives the parameters that adapters stand on.
            mesh: Where they lie.
            accepted: Whether changes of the configuration are asked for.

        Raises:
            CheckpointError: The base is another.
            ConfigError: The configuration is another.
        """
        check_unchanged(self.checkpoints.metadata(step), now, self.path, accepted=accepted)
        if self.config.adapter.on:
            described, mark = checkpoint.read_description(self.path), convert.mark_base(base(), mesh)
            check_base(self.path, described, self.start.config, mark)

    def write_config(self, end_ids: list[int]) -> None:
        """Write the configuration, and the tokens at which training teaches answers to end."""
        record_ends(self.path / "hf", end_ids)
        write_text(self.path / "config.yaml", to_yaml(self.config))

    @contextlib.contextmanager
    def writers(self, step: int) -> Iterator[list[Callback]]:
        """Open the files that figures go to, for a run that goes on after a step."""
        with (
            contextlib.closing(JsonLines(self.path / "metrics.jsonl", step)) as lines,
            contextlib.closing(TensorBoard(self.path / "tensorboard", step)) as board,
        ):
            yield [lines, board]

    def write_summary(self, steps: int, seconds: float) -> None:
        """Write ``summary.json``, last of all: its presence says that the run is finished.

        Args:
            steps: Steps the run has.
            seconds: Wall time of this start of the run, compiling and validating included.
        """
        rows = [row for _, row in read_objects(self.path / "metrics.jsonl")]
        losses = [row["loss"] for row in rows if "loss" in row]
        held_out = [row["val_loss"] for row in rows if "val_loss" in row] or [None]
        summary = {
            "steps": steps,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "first_val_loss": held_out[0],
            "last_val_loss": held_out[-1],
            "wall_s": seconds,
            "peak_host_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        write_json(self.path / "summary.json", summary)
        logger.info("finished: %s", self.path)


def check_run_folder(out: Path) -> None:
    """Refuse to write a run into a folder that holds something else.

    Raises:
        ConfigError: The folder is not empty and is no run.
    """
    where = f"out: {out}"
    if (out / checkpoint.DESCRIPTION).exists():
        if checkpoint.read_description(out)["kind"] != "run":
            raise ConfigError("the run folder is a model folder", where=where, remedy="choose another `out`")
    elif out.exists() and not (out.is_dir() and all(map(_left_by_a_start, out.iterdir()))):
        raise ConfigError(
            "the run folder holds something else",
            where=where,
            expected="a new or empty folder, or an earlier run to resume",
            remedy="choose another `out`",
        )


def _left_by_a_start(path: Path) -> bool:
    """Return whether a start that was killed before the folder was a run may have left something."""
    unfinished = path.name.startswith(f".{checkpoint.DESCRIPTION}.") and path.suffix == ".part"
    return unfinished or path.name == "checkpoints"


def describe(config: RunConfig, schedule: Schedule, data: PackedDataset) -> dict[str, Any]:
    """Return the run's configuration, size, data and version, as saved with every checkpoint."""
    return {
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "schedule": dataclasses.asdict(schedule),
        "data": [shard["sha256"] for shard in data.manifest.shards],
        "version": alpacare_jax.__version__,
    }
