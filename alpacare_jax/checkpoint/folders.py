"""Model folders: ``alpacare.json`` says what it is, ``params/`` is Orbax's, ``hf/`` has config and tokenizer.

A run folder has the same ``alpacare.json`` and ``hf/``, and its parameters under ``checkpoints/<step>/params``,
so that everything that reads a model reads a run as well, without its optimiser state.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from alpacare_jax.checkpoint import checksums, failures
from alpacare_jax.checkpoint import params as trees
from alpacare_jax.checkpoint.claims import on_first
from alpacare_jax.checkpoint.config_files import CONFIG_FILES, copy_config_files
from alpacare_jax.errors import CheckpointError, DataError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.params import Params, flatten
from datagen.decoding import read_json_object
from datagen.files import write_json
from datagen.replacing import growing_folder, moved_into_place, put_back, refuse_strangers, strangers

logger = logging.getLogger("alpacare.checkpoint")

FORMAT = 1
# A chunk is read whole. Unlimited, a weight saved from one device is one chunk, tens of GB for the largest models.
CHUNK_BYTES = 32 << 20
DESCRIPTION = "alpacare.json"
MODEL_FILES = (
    DESCRIPTION,
    *(f"hf/{name}" for name in CONFIG_FILES),
    "params/_*",
    "params/commit_success.txt",
    "params/manifest.ocdbt",
    "params/d/*",
    "params/array_metadatas/*",
    "params/ocdbt.process_*/manifest.ocdbt",
    "params/ocdbt.process_*/d/*",
)
"""Patterns of the files of a model folder."""


@contextlib.contextmanager
def atomic_folder(
    target: Path,
    *,
    overwrite: bool = False,
    marker: str = DESCRIPTION,
    own: Collection[str] = MODEL_FILES,
) -> Iterator[Path]:
    """Build a folder under another name beside it, and give it its name once it is whole.

    Any number of processes may enter together; they must see the same file system.

    Args:
        target: The folder to make.
        overwrite: Replace what is there, provided that it holds ``marker`` and nothing that is not ``own``.
        marker: File that shows that an existing folder is of the kind about to be written.
        own: Patterns of the files of such a folder; nothing else is ever deleted.

    Yields:
        The folder to fill. It vanishes if the body fails.

    Raises:
        DataError: The target exists and is not empty (or is not of this kind, when overwriting), or another process
            is making it.
    """
    target = Path(os.path.abspath(target))
    check_free(target, overwrite, marker, own)

    def check() -> None:  # while the place is locked
        _clear_earlier_leftover(target, marker, own)
        check_free(target, overwrite, marker, own)

    with contextlib.ExitStack() as building:
        on_first(lambda: building.enter_context(moved_into_place(target, check)), target)
        yield growing_folder(target)
        meet(f"end {target}")
        on_first(building.close, target)


def _clear_earlier_leftover(target: Path, marker: str, own: Collection[str]) -> None:
    """Put back, or delete, the folder that a killed process of an earlier version had moved to ``.NAME.old``."""
    old = target.with_name(f".{target.name}.old")
    if old.is_symlink() or not (old / marker).exists():
        return
    put_back(old, target)
    if old.exists() and not any(strangers(old, patterns=own)):
        shutil.rmtree(old, ignore_errors=True)


def check_free(
    target: Path, overwrite: bool, marker: str = DESCRIPTION, own: Collection[str] = MODEL_FILES
) -> None:
    """Check that a folder may be written; arguments as for :func:`atomic_folder`.

    Raises:
        DataError: It may not.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise DataError(
            "the output exists and is not empty",
            where=target,
            remedy="choose another folder, or pass --overwrite to replace it",
        )
    if not (target / marker).exists():
        raise DataError(
            "the output exists and is not something this command wrote, so it is not replaced",
            where=target,
            expected=f"a folder with {marker}",
            remedy="choose another folder, or remove it yourself",
        )
    refuse_strangers(target, patterns=own)


def meet(name: str) -> None:
    """Wait until all processes of the run are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def save_model(
    folder: str | Path,
    params: Params,
    config: LlamaConfig,
    *,
    hf: Path,
    source: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        folder: The folder to make.
        params: The parameters.
        config: The model's shape.
        hf: Folder of the model's tokenizer, config and chat template files.
        source: Where the model comes from, plain JSON values.
        overwrite: Replace an existing model folder.

    Raises:
        CheckpointError: It cannot be written, for instance because the disk is full.
        DataError: The folder exists.
    """
    target = Path(folder)
    with atomic_folder(target, overwrite=overwrite) as partial:
        with failures.writing(target):
            if jax.process_index() == 0:
                copy_config_files(hf, partial / "hf")
            save_params(partial / "params", params)
        dtype = str(jax.tree.leaves(params)[0].dtype)
        write_description(partial, "model", config, {"dtype": dtype, "source": source or {}})


def save_params(path: Path, params: Params) -> None:
    """Write a parameter tree with Orbax, and its checksums, and wait until it is on disk."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), params, save_args=save_args(params))
        checkpointer.wait_until_finished()
    if jax.process_index() == 0:
        checksums.record(path)


def save_args(tree: Any) -> Any:
    """Return how Orbax is to lay out a tree: in chunks small enough that any mesh reads little more than it keeps."""
    import orbax.checkpoint as ocp

    return jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), tree)


def write_description(
    folder: Path, kind: str, config: LlamaConfig, extra: dict[str, Any] | None = None
) -> None:
    """Write ``alpacare.json``, which says what a folder holds.

    Args:
        folder: A model folder or a run folder.
        kind: "model" or "run".
        config: The model's shape.
        extra: More to record, plain JSON values.
    """
    if jax.process_index() != 0:
        return
    value = {"format": FORMAT, "kind": kind, "config": config.to_dict()} | (extra or {})
    write_json(folder / DESCRIPTION, value)


def read_description(folder: str | Path) -> dict[str, Any]:
    """Read ``alpacare.json``.

    Returns:
        ``kind``, ``config`` (a :class:`LlamaConfig`) and whatever else was recorded.

    Raises:
        CheckpointError: It is missing, broken or of a later version.
    """
    file = Path(folder) / DESCRIPTION
    if not file.exists():
        raise CheckpointError("the folder is neither a model nor a run", where=folder, expected=DESCRIPTION)
    try:
        value = read_json_object(file, error=CheckpointError)
        version, kind = value["format"], value["kind"]
        config = LlamaConfig.from_dict(value["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("the description is broken", where=file, found=failures.gist(error)) from error
    if version != FORMAT:
        raise CheckpointError(
            "the folder was written by another version of this software",
            where=file,
            found=f"format {version}",
            expected=f"format {FORMAT}",
            remedy="install the version that wrote it, export with that, and import here",
        )
    return value | {"kind": kind, "config": config}


def steps_of(run: Path) -> list[int]:
    """List the steps of a run that have a whole checkpoint, in order."""
    folder = run / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit() and (folder / name / "params").is_dir())


def latest_intact(run: Path, items: Collection[str] = ("params",)) -> tuple[int | None, dict[int, str]]:
    """Find the latest checkpoint of a run whose files are as they were written. All processes must call.

    Args:
        run: The run folder.
        items: Which parts of a checkpoint are looked at.

    Returns:
        Its step, None where the run has no checkpoint; and of each later one, which is damaged, in which way.

    Raises:
        CheckpointError: There are checkpoints and all are damaged.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps_of(run)):
        try:
            for item in items:
                checksums.verify(run / "checkpoints" / str(step) / item)
        except CheckpointError as error:
            damaged[step] = f"{error.where}: {error.found}"
        else:
            return step, damaged
    if damaged:
        raise CheckpointError(
            "every checkpoint of the run is damaged",
            where=run / "checkpoints",
            found="\n            ".join(damaged.values()),
            expected="the bytes that were written",
            remedy="restore a checkpoint from a copy, or train anew into another folder",
        )
    return None, {}


def params_folder(folder: str | Path, step: int | None = None) -> Path:
    """Find the parameters of a model folder, or of a run folder's checkpoint, and compare them with their checksums.

    Args:
        folder: A model folder or a run folder.
        step: Which checkpoint of a run; when None its latest, or where that is damaged the latest that is not, which
            is said.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    folder = Path(folder)
    if read_description(folder)["kind"] == "model":
        if step is not None:
            raise CheckpointError(
                "a model folder has no steps", where=folder, found=f"step {step}", remedy="leave out --step"
            )
        checksums.verify(folder / "params")
        return folder / "params"
    steps = steps_of(folder)
    if not steps or (step is not None and step not in steps):
        raise CheckpointError(
            "the run has no checkpoint" if not steps else "the run has no checkpoint of this step",
            where=folder / "checkpoints",
            found=f"steps {', '.join(map(str, steps))}" if steps else None,
            expected=None if step is None else f"step {step}",
            remedy="train until the first checkpoint is written"
            if not steps
            else "name one of these with --step",
        )
    if step is None:
        step, damaged = latest_intact(folder)
        for text in damaged.values():
            logger.warning("a damaged checkpoint is passed over, the one of step %s is used: %s", step, text)
    else:
        checksums.verify(folder / "checkpoints" / str(step) / "params")
    return folder / "checkpoints" / str(step) / "params"


def load_params(
    folder: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: str | None = None,
    step: int | None = None,
) -> Params:
    """Read the parameters of a model folder or of a run, straight onto their devices.

    Args:
        folder: A model folder or a run folder.
        mesh: Where they go, whatever mesh they were saved from; one local device when None.
        dtype: Dtype wanted; as stored when None.
        step: Which checkpoint of a run; its latest when None.

    Raises:
        CheckpointError: The checkpoint is missing, torn, or of another architecture than the folder says.
        ShardingError: The mesh does not divide the model.
    """
    described, path = read_description(folder), params_folder(folder, step)
    config = described["config"]
    if "adapter" in described:
        raise CheckpointError(
            "the run holds only adapters, not a whole model",
            where=folder,
            remedy="open it as a model, which merges them into their base: alpacare export, generate, serve, evaluate",
        )
    stored = stored_leaves(path)
    dtype = dtype or str(stored["embed"].dtype if "embed" in stored else "float32")
    return restore_params(path, trees.abstract_params(config, dtype=dtype, mesh=mesh), stored)


def restore_params(path: Path, wanted: Params, stored: dict[str, Any]) -> Params:
    """Read an Orbax folder of parameters onto the shardings asked for.

    Args:
        path: The folder.
        wanted: Shape structs with shardings.
        stored: What :func:`stored_leaves` says of the folder.

    Raises:
        CheckpointError: The parameters are torn, or of another architecture.
    """
    import orbax.checkpoint as ocp

    check_architecture(path, stored, flatten(wanted))
    with failures.reading(path), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), wanted)


def stored_leaves(path: Path) -> dict[str, Any]:
    """Return name -> shape and dtype of what lies in an Orbax folder.

    Raises:
        CheckpointError: The folder is missing or its metadata torn.
    """
    import orbax.checkpoint as ocp

    with failures.reading(path):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is missing")
        # Not through a Checkpointer, which warns about metadata that one item of a step never has.
        return flatten(ocp.StandardCheckpointHandler().metadata(path.resolve()).tree)


def check_architecture(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare what lies on disk with what the model needs.

    Raises:
        CheckpointError: Names every leaf that differs, with the shapes found and expected.
    """
    problems = trees.differences(stored, wanted)
    if problems:
        raise CheckpointError(
            "the checkpoint is of another architecture",
            where=path,
            found=trees.shorten(problems),
            expected="the parameters of the model in the config",
            remedy="check that model config and checkpoint belong together",
        )
