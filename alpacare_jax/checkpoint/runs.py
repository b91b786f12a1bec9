"""The checkpoints of a run: written while training goes on, whole or absent, restored onto any mesh.

``checkpoints/<step>/`` holds three items: ``params`` (all that generation and export need), ``state`` (optimiser
state, step and what else the train state holds) and ``metadata`` (JSON: data position and config).
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax

from alpacare_jax.checkpoint import checksums, failures, folders
from alpacare_jax.checkpoint.claims import on_first
from alpacare_jax.errors import CheckpointError
from alpacare_jax.model.params import flatten

logger = logging.getLogger("alpacare.checkpoint")

ITEMS = ("params", "state", "metadata")


class RunCheckpoints(contextlib.AbstractContextManager["RunCheckpoints"]):
    """Saves and restores the train state of a run.

    Args:
        folder: The folder of checkpoints, ``RUN/checkpoints``; made if missing.
        keep: How many of the latest checkpoints to keep; all when None.

    Example:
        >>> with RunCheckpoints("runs/a/checkpoints", keep=2) as checkpoints:
        ...     checkpoints.steps()
        [1]
    """

    def __init__(self, folder: str | Path, *, keep: int | None = None) -> None:
        import orbax.checkpoint as ocp

        self.folder = Path(os.path.abspath(folder))
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            create=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._record_checksums),
        )
        trees = {item: ocp.StandardCheckpointHandler() for item in ("params", "state")}
        handlers = {**trees, "metadata": ocp.JsonCheckpointHandler()}
        with failures.writing(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def save(self, step: int, state: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Start writing a checkpoint; returns once the state may be overwritten.

        Args:
            step: The optimiser step the state has reached.
            state: The train state: ``params`` (a parameter tree) and other pytrees, as ``optimizer`` and ``step``.
            metadata: What else a resume needs, plain JSON values: data position, run config, model config.

        Raises:
            CheckpointError: This or the previous save failed, for instance because the disk is full.
        """
        import orbax.checkpoint as ocp

        rest = {key: value for key, value in state.items() if key != "params"}
        with failures.writing(self.folder / str(step)):
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state["params"], folders.save_args(state["params"])),
                    state=ocp.args.StandardSave(rest, folders.save_args(rest)),
                    metadata=ocp.args.JsonSave(metadata),
                ),
                force=True,
            )

    def steps(self) -> list[int]:
        """List the steps that can be restored, in order; a half-written one is not among them."""
        return sorted(int(step) for step in self._manager.all_steps())

    def restore(self, step: int, abstract_state: dict[str, Any]) -> dict[str, Any]:
        """Read a checkpoint onto the shardings asked for, whatever mesh and device count it was saved from.

        Args:
            step: Which checkpoint.
            abstract_state: The train state with ``jax.ShapeDtypeStruct`` leaves that carry shardings.

        Returns:
            The train state.

        Raises:
            CheckpointError: The checkpoint is missing, torn, or of another architecture.
        """
        import orbax.checkpoint as ocp

        path = self._check_step(step)
        rest = {key: value for key, value in abstract_state.items() if key != "params"}
        stored = folders.stored_leaves(path / "params")
        folders.check_architecture(path / "params", stored, flatten(abstract_state["params"]))
        with failures.reading(path):
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(abstract_state["params"]),
                    state=ocp.args.StandardRestore(rest),
                ),
            )
            return {"params": found["params"]} | dict(found["state"])

    def metadata(self, step: int) -> dict[str, Any]:
        """Read the metadata that was saved with a step.

        Raises:
            CheckpointError: The checkpoint is missing or torn.
        """
        import orbax.checkpoint as ocp

        path = self._check_step(step)
        with failures.reading(path / "metadata"):
            found = self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
            return dict(found["metadata"])

    def wait(self) -> None:
        """Wait until the last save is on disk.

        Raises:
            CheckpointError: It failed.
        """
        with failures.writing(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the last save and let go of the folder.

        Raises:
            CheckpointError: The last save failed.
        """
        with failures.writing(self.folder):
            self._manager.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record_checksums(self) -> None:
        """Write the checksums of a checkpoint that is whole, right before Orbax gives it its name."""
        if jax.process_index() == 0:
            for whole in self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                for item in ITEMS:
                    checksums.record(whole / item)

    def _check_step(self, step: int) -> Path:
        steps = self.steps()
        if step not in steps:
            raise CheckpointError(
                "there is no checkpoint of this step",
                where=self.folder,
                found=f"steps {', '.join(map(str, steps))}" if steps else "no checkpoint",
                expected=f"step {step}",
            )
        return self.folder / str(step)


def put_damaged_aside(run: Path) -> None:
    """Move checkpoints that are damaged, and later than one that is not, to ``RUN/damaged``, with a warning for each.

    All processes must call. Nothing is moved where no checkpoint is whole.

    Raises:
        CheckpointError: There are checkpoints and all are damaged.
    """
    step, damaged = folders.latest_intact(run, ITEMS)

    def move() -> None:
        (run / "damaged").mkdir(exist_ok=True)
        for later, text in damaged.items():
            aside = run / "damaged" / str(later)
            shutil.rmtree(aside, ignore_errors=True)
            (run / "checkpoints" / str(later)).rename(aside)
            logger.warning("the checkpoint of step %d is damaged and now lies in %s: %s", later, aside, text)
        logger.warning("the run goes on from the checkpoint of step %s, the latest that is intact", step)

    if damaged:
        on_first(move, run)
