"""Runs that trained adapters: their base is opened again, and the adapters merged into it."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import checkpoint, sharding
from alpacare_jax.adapters import AdapterConfig, Partition, merge
from alpacare_jax.errors import CheckpointError
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.model.params import Params

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What a model on the hub is called, ``org/model``."""
SAMPLE = 16
"""Numbers of each weight that go into the mark by which a base is known again."""


def describe_adapter(
    adapter: AdapterConfig, compute_dtype: str, reference: str | None, mark: str
) -> dict[str, Any]:
    """Return what a run's ``alpacare.json`` says of its adapters.

    Args:
        adapter: The settings.
        compute_dtype: The run's ``compute.dtype``, in which an "auto" base is stored.
        reference: What names the base: a path, kept in full so that the run can be opened from anywhere, or a hub
            name. None for random weights, which the run's seed gives again.
        mark: From :func:`mark_base`.
    """
    if reference is not None and Path(reference).exists():
        reference = str(Path(reference).resolve())
    base = {"reference": reference, "mark": mark, "compute_dtype": compute_dtype}
    return {"settings": dataclasses.asdict(adapter), "base": base}


def public_base(reference: str | None) -> str | None:
    """Return the name by which ``transformers`` loads a base, or None if it is not known.

    Args:
        reference: What names the base here. For a model folder of ours that is what it was imported from.
    """
    if reference is None:
        return None
    folder = Path(reference)
    if (folder / checkpoint.DESCRIPTION).exists():
        source = checkpoint.read_description(folder).get("source", {})
        if source.get("format") != "hf":  # from GGUF, or a run that trained it
            return None
        reference = str(source["reference"])
        folder = Path(reference)
    if (folder / "config.json").exists():
        return str(folder.resolve())
    return reference if HUB_NAME.fullmatch(reference) and not folder.exists() else None


def mark_base(params: Params, mesh: Mesh) -> str:
    """Return a fingerprint of a base: a hash of the first numbers of every weight, rounded to bfloat16.

    The same on every mesh and whether the weights are held in fp32 or bfloat16; every process must call.
    """

    def sample(params: Params) -> list[jax.Array]:
        def first(leaf: jax.Array) -> jax.Array:
            corner = leaf[tuple(slice(0, SAMPLE) if i == leaf.ndim - 1 else 0 for i in range(leaf.ndim))]
            return jax.lax.bitcast_convert_type(corner.astype(jnp.bfloat16), jnp.uint16)

        return [first(leaf) for _, leaf in sorted(checkpoint.flatten(params).items())]

    rows = jax.device_get(jax.jit(sample, out_shardings=sharding.replicated(mesh))(params))
    return hashlib.sha256(b"".join(np.asarray(row).tobytes() for row in rows)).hexdigest()[:16]


def read_partition(described: dict[str, Any]) -> Partition:
    """Return how a run's parameters are divided, from its ``alpacare.json``."""
    settings, base = described["adapter"]["settings"], described["adapter"]["base"]
    adapter = AdapterConfig(**{**settings, "targets": tuple(settings["targets"])})
    return Partition(Architecture(described["config"], ComputeConfig(base["compute_dtype"])), adapter)


def load_adapters(run: Path, partition: Partition, mesh: Mesh, step: int | None = None) -> Params:
    """Read the adapters of a run's checkpoint.

    Raises:
        CheckpointError: There is no such checkpoint, or it holds something else.
    """
    path = checkpoint.params_folder(run, step)
    stored = checkpoint.stored_leaves(path)
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, stored.get(name, leaf).dtype, sharding=leaf.sharding)
        for name, leaf in checkpoint.flatten(partition.abstract_on(mesh)[0]).items()
    }
    return checkpoint.restore_params(path, checkpoint.unflatten(wanted), stored)


def check_base(run: Path, described: dict[str, Any], config: LlamaConfig, mark: str) -> None:
    """Check that a base is the one a run's adapters were trained on.

    Raises:
        CheckpointError: It is another.
    """
    base = described["adapter"]["base"]
    if config != described["config"] or mark != base["mark"]:
        raise CheckpointError(
            "the base model is not the one the adapters were trained on",
            where=f"{run}: adapters on {base['reference']}",
            found="a model of another shape" if config != described["config"] else "other weights",
            remedy=f"put it back there, or name it in {run / checkpoint.DESCRIPTION} under adapter.base.reference",
        )


def merge_run(
    run: Path, described: dict[str, Any], base: Params, *, mesh: Mesh, dtype: str | None, step: int | None
) -> Params:
    """Merge a run's adapters into its base.

    The base is stored as in training first, quantised where it was, so that the merged model is the trained one.

    Args:
        run: The run folder.
        described: Its ``alpacare.json``.
        base: The base's parameters in the dtype they were trained with; not to be used afterwards.
        mesh: Where they lie.
        dtype: Of the result; that of the base when None.
        step: Which checkpoint; the latest when None.
    """
    partition = read_partition(described)
    adapters = load_adapters(run, partition, mesh, step)
    dtype = dtype or str(base["embed"].dtype)
    places = partition.architecture.shardings(mesh)
    return merge(partition.join(adapters, partition.freeze_base(base, mesh)), dtype, places)
