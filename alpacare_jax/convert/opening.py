"""Opening a model by whatever names it: a folder of ours or Hugging Face's, a .gguf file, a hub name."""

import contextlib
import dataclasses
import json
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
from datagen.files import refuse_remote


@dataclasses.dataclass(frozen=True)
class ForeignModel:
    """A model in a foreign format, nothing of its weights read yet.

    Args:
        name: What to call it.
        config: Its shape.
        source: Its tensors.
        hf_folder: Folder of config, tokenizer and chat template.
    """

    name: str
    config: LlamaConfig
    source: Source
    hf_folder: Path


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A model that is there, none of its weights read yet.

    Args:
        config: Its shape.
        hf_folder: Folder of its tokenizer and config files; it may be gone once nothing refers to this object.
        name: What to call it.
        origin: Where it came from, plain JSON values.
        read: Reads its parameters onto a mesh (one local device when None), in a dtype (as stored when None). They
            belong to the caller, who may donate them.
        reference: What names it, a path in full; None where nothing does, as for random weights.
    """

    config: LlamaConfig
    hf_folder: Path
    name: str
    origin: dict[str, Any]
    read: Callable[[Mesh | None, str | None], Params]
    reference: str | None = None
    _keeps: Any = None  # a temporary folder that lives as long as this does


def find_model(reference: str | Path, *, step: int | None = None) -> FoundModel:
    """Find a model and read what it is; its weights are read when they are asked for.

    Args:
        reference: A model folder, a run folder (its latest checkpoint; adapters are merged into their base), a
            Hugging Face folder, a ``.gguf`` file, or a hub name such as ``org/model``.
        step: Which checkpoint of a run.

    Raises:
        CheckpointError: The folder's description is broken.
        ConversionError: There is no such model, or its files are broken.
    """
    path = Path(reference)
    named = str(path.resolve() if path.exists() else reference)
    if (path / "alpacare.json").exists():
        described = checkpoint.read_description(path)

        def read_own(mesh: Mesh | None, dtype: str | None) -> Params:
            if "adapter" in described:
                return _open_adapted(path, described, mesh, dtype, step)
            return checkpoint.load_params(path, mesh=mesh, dtype=dtype, step=step)

        origin = described.get("source", {})
        return FoundModel(described["config"], path / "hf", path.resolve().name, origin, read_own, named)
    keep = contextlib.ExitStack()
    foreign = keep.enter_context(open_foreign(reference))

    def read_foreign(mesh: Mesh | None, dtype: str | None) -> Params:
        return load(foreign.source, foreign.config, mesh=mesh, dtype=dtype)

    origin = describe_source(foreign, str(reference))
    return FoundModel(foreign.config, foreign.hf_folder, foreign.name, origin, read_foreign, named, keep)


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


def describe_source(foreign: ForeignModel, reference: str) -> dict[str, Any]:
    """Say where a model came from, for ``alpacare.json``; a path in full, so that it is found from anywhere."""
    if Path(reference).exists():
        reference = str(Path(reference).resolve())
    return {"reference": reference, "format": foreign.source.dialect, "dtype": foreign.source.stored_dtype}


@contextlib.contextmanager
def open_foreign(reference: str | Path) -> Iterator[ForeignModel]:
    """Open a model in a foreign format: a Hugging Face folder, a ``.gguf`` file or a hub name.

    Args:
        reference: What names it.

    Yields:
        The model; its folder of config and tokenizer may be temporary.

    Raises:
        ConversionError: There is no such model, or its files are broken.
    """
    refuse_remote(reference, "the model")
    path = Path(reference)
    if path.is_dir():
        yield _open_folder(path, path.resolve().name)
    elif path.is_file() and path.suffix.lower() == ".gguf":
        with tempfile.TemporaryDirectory(prefix="alpacare-gguf-") as folder:
            yield _open_gguf(path, Path(folder))
    elif path.exists():
        raise ConversionError(
            "the file is not a model",
            where=path,
            expected="a .gguf file, or the folder that holds config.json and model.safetensors",
        )
    elif adapted.HUB_NAME.fullmatch(str(reference)):
        yield _open_folder(fetch(str(reference)), str(reference).split("/")[1])
    else:
        raise ConversionError(
            "there is no such model",
            where=reference,
            expected="a model, run or Hugging Face folder, a .gguf file, or a hub name (org/model)",
            remedy="check the path",
        )


def _open_folder(folder: Path, name: str) -> ForeignModel:
    hf_folder.refuse_adapter(folder)
    config = LlamaConfig.from_hf(hf_folder.read_config(folder))
    return ForeignModel(name, config, open_safetensors(folder), folder)


def _open_gguf(path: Path, folder: Path) -> ForeignModel:
    file = GgufFile(path)
    for name, value in (
        ("config.json", file.hf_config()),
        ("generation_config.json", file.generation_config()),
    ):
        text = json.dumps(value, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    write_tokenizer(file, folder)
    return ForeignModel(file.name, file.config, file.source, folder)


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

    found: Exception
    wanted = ["*.safetensors", "model.safetensors.index.json", hf_folder.ADAPTER, *checkpoint.CONFIG_FILES]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except errors.GatedRepoError as error:
        found, remedy = (
            error,
            "accept the licence on the model's page, then set HF_TOKEN to a token of that account",
        )
    except errors.RepositoryNotFoundError as error:
        found, remedy = error, "check the name; for a private model set HF_TOKEN"
    except (
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        errors.OfflineModeIsEnabled,
        OSError,
    ) as error:
        found, remedy = (
            error,
            (
                "check the network (and unset HF_HUB_OFFLINE); or fetch the model elsewhere with "
                f"`hf download {name} --local-dir DIR` and give DIR instead of the name"
            ),
        )
    raise ConversionError(
        "the model could not be fetched from the hub, and there is no such folder here",
        where=name,
        found=str(found).strip().splitlines()[0][:200],
        remedy=remedy,
    ) from found
