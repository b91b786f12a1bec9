"""Opening a model: a model or run folder, a Hugging Face folder, a .gguf file or a hub name."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from alpacare_jax import checkpoint, sharding
from alpacare_jax.convert import adapted, hf_folder
from alpacare_jax.convert.gguf_file import GgufFile
from alpacare_jax.convert.gguf_tokenizer import write_tokenizer
from alpacare_jax.convert.load import load
from alpacare_jax.convert.sources import Source, open_safetensors
from alpacare_jax.errors import ConversionError
from alpacare_jax.model import Architecture, LlamaConfig
from alpacare_jax.model.params import Params
from datagen.files import refuse_remote, write_json


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A model whose weights have not been read yet.

    Args:
        config: Its shape.
        hf_folder: Folder of its tokenizer and config files; it may be gone once nothing refers to this object.
        name: What to call it.
        origin: Where it came from, plain JSON values.
        read: Reads its parameters onto a mesh (one local device when None), in a dtype (as stored when None). They
            belong to the caller, who may donate them.
        reference: What names it, a path in full; None where nothing does, as for random weights.
        source: Its tensors, where it is in a foreign format.
    """

    config: LlamaConfig
    hf_folder: Path
    name: str
    origin: dict[str, Any]
    read: Callable[[Mesh | None, str | None], Params]
    reference: str | None = None
    source: Source | None = None
    _keeps: Any = None  # a temporary folder that lives as long as this does


def find_model(reference: str | Path, *, step: int | None = None) -> FoundModel:
    """Find a model and read its config; its weights are read later, by ``read``.

    Args:
        reference: A model folder, a run folder (its latest checkpoint; adapters are merged into their base), a
            Hugging Face folder, a ``.gguf`` file, or a hub name such as ``org/model``.
        step: Which checkpoint of a run.

    Raises:
        CheckpointError: The folder's description is broken.
        ConversionError: There is no such model, or its files are broken.
    """
    path = Path(reference)
    if not (path / checkpoint.DESCRIPTION).exists():
        return find_foreign(reference)
    described = checkpoint.read_description(path)

    def read(mesh: Mesh | None, dtype: str | None) -> Params:
        if "adapter" in described:
            return _open_adapted(path, described, mesh, dtype, step)
        return checkpoint.load_params(path, mesh=mesh, dtype=dtype, step=step)

    whole, origin = path.resolve(), described.get("source", {})
    return FoundModel(described["config"], path / "hf", whole.name, origin, read, str(whole))


def _open_adapted(
    run: Path, described: dict[str, Any], mesh: Mesh | None, dtype: str | None, step: int | None
) -> Params:
    mesh = sharding.single_device_mesh() if mesh is None else mesh
    found, stored = find_base(run, described)
    base = found.read(mesh, stored)
    adapted.check_base(run, described, found.config, adapted.mark_base(base, mesh))
    return adapted.merge_run(run, described, base, mesh=mesh, dtype=dtype, step=step)


def find_base(run: Path, described: dict[str, Any]) -> tuple[FoundModel, str]:
    """Find the base that a run's adapters were trained on, and the dtype it was trained in.

    Args:
        run: The run folder.
        described: The run's ``alpacare.json``.

    Raises:
        ConversionError: The base is no longer where it was.
    """
    source, base = described["source"], adapted.read_partition(described).base
    reference = described["adapter"]["base"]["reference"]
    if reference is None:
        return random_model(base, Path(), source), base.compute.param_dtype
    if Path(reference).is_absolute() and not Path(reference).exists():
        raise ConversionError(
            "the base of the adapters is no longer there",
            where=run,
            expected=reference,
            remedy=f"put it back, or name it in {run / checkpoint.DESCRIPTION} under adapter.base.reference",
        )
    return find_model(reference), base.compute.param_dtype


def random_model(architecture: Architecture, hf_folder: Path, origin: dict[str, Any]) -> FoundModel:
    """Return a model of random weights, drawn in the architecture's dtype when they are read.

    Args:
        architecture: The shape.
        hf_folder: Folder of config, tokenizer and chat template.
        origin: Names the ``seed``.
    """

    def draw(mesh: Mesh | None, dtype: str | None) -> Params:
        compute = dataclasses.replace(
            architecture.compute, param_dtype=dtype or architecture.compute.param_dtype
        )
        drawn = dataclasses.replace(architecture, compute=compute)
        return drawn.init(origin["seed"], sharding.single_device_mesh() if mesh is None else mesh)

    return FoundModel(architecture.config, hf_folder, "random", origin, draw)


def find_foreign(reference: str | Path) -> FoundModel:
    """Find a model in a foreign format: a Hugging Face folder, a ``.gguf`` file or a hub name.

    Args:
        reference: What names it.

    Raises:
        ConversionError: There is no such model, or its files are broken.
    """
    refuse_remote(reference, "the model")
    path, keeps = Path(reference), contextlib.ExitStack()
    if path.is_file() and path.suffix.lower() == ".gguf":
        file, folder = GgufFile(path), keeps.enter_context(_temporary_folder())
        write_json(folder / "config.json", file.hf_config())
        write_json(folder / "generation_config.json", file.generation_config())
        write_tokenizer(file, folder)
        name, config, source = file.name, file.config, file.source
    elif path.is_dir() or (not path.exists() and adapted.HUB_NAME.fullmatch(str(reference))):
        folder = path if path.is_dir() else fetch(str(reference))
        hf_folder.refuse_adapter(folder)
        name = path.resolve().name
        config, source = LlamaConfig.from_hf(hf_folder.read_config(folder)), open_safetensors(folder)
    else:
        raise ConversionError(
            "the file is not a model" if path.exists() else "there is no such model",
            where=reference,
            expected="a model, run or Hugging Face folder, a .gguf file, or a hub name (org/model)",
            remedy="check the path",
        )

    def read(mesh: Mesh | None, dtype: str | None) -> Params:
        return load(source, config, mesh=mesh, dtype=dtype)

    named = str(path.resolve() if path.exists() else reference)
    origin = {"reference": named, "format": source.dialect, "dtype": source.stored_dtype}
    return FoundModel(config, folder, name, origin, read, named, source, _keeps=keeps)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alpacare-gguf-") as folder:
        yield Path(folder)


def fetch(name: str) -> Path:
    """Fetch a model from the hub, or find it in the hub's cache.

    Args:
        name: ``org/model``.

    Returns:
        Its folder in the hub's cache.

    Raises:
        ConversionError: The hub cannot be reached, has no such model, or wants its licence accepted first.
    """
    import huggingface_hub
    from huggingface_hub import errors

    wanted = ["*.safetensors", "model.safetensors.index.json", hf_folder.ADAPTER, *checkpoint.CONFIG_FILES]
    others = (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except others as error:
        if isinstance(error, errors.GatedRepoError):
            remedy = "accept the licence on the model's page, then set HF_TOKEN to a token of that account"
        elif isinstance(error, errors.RepositoryNotFoundError):
            remedy = "check the name; for a private model set HF_TOKEN"
        else:
            remedy = "check the network (and unset HF_HUB_OFFLINE); or fetch the model elsewhere with "
            remedy += f"`hf download {name} --local-dir DIR` and give DIR instead of the name"
        raise ConversionError(
            "the model could not be fetched from the hub, and there is no such folder here",
            where=name,
            found=str(error).strip().splitlines()[0][:200],
            remedy=remedy,
        ) from error
