"""Opening the parameters of a model or run without reading them, so that one larger than memory can be exported."""

from pathlib import Path
from typing import Any

from alpacare_jax.checkpoint import failures, folders
from alpacare_jax.checkpoint import params as trees
from alpacare_jax.model.params import Params, flatten, unflatten


def open_params(folder: str | Path, *, step: int | None = None) -> Params:
    """Open the parameters of a model folder or of a run; a leaf is read each time that it is used.

    Args:
        folder: A model folder, or the folder of a run that trains the whole model.
        step: Which checkpoint of a run; its latest when None.

    Returns:
        A parameter tree with ``tensorstore.TensorStore`` leaves, which ``numpy.asarray`` reads.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or of another architecture than the folder says.
    """
    import tensorstore as ts

    path = folders.params_folder(folder, step)
    stored = folders.stored_leaves(path)
    wanted = flatten(trees.abstract_params(folders.read_description(folder)["config"]))
    folders.check_architecture(path, stored, wanted)

    def opened(name: str) -> Any:
        place = {"driver": "ocdbt", "base": f"{path.resolve().as_uri()}/", "path": f"{name}/"}
        spec = {"driver": "zarr", "kvstore": place, "recheck_cached_data": False}
        return ts.open(spec, read=True, open=True).result()

    with failures.reading(path):
        return unflatten({name: opened(name) for name in stored})
