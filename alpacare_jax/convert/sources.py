"""Where foreign tensors come from: safetensors files, mapped into memory and never read whole."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from alpacare_jax.convert.table import Dialect
from alpacare_jax.errors import ConversionError
from datagen.decoding import read_json_object

SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class ForeignTensor:
    """A tensor that lies in a file.

    Args:
        shape: Its shape.
        dtype: Name of its type in the file's terms, such as "BF16" or "Q4_1".
        file: The file.
        read: Gives its values.
        mapped: Whether ``read`` gives a view of the mapped file, so that a slice of it costs only that slice.
    """

    shape: tuple[int, ...]
    dtype: str
    file: Path
    read: Callable[[], np.ndarray]
    mapped: bool = True


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensors of a model in a foreign format.

    Args:
        dialect: Whose names and layouts they have.
        tensors: Name -> tensor.
        where: File or folder, for messages.
        problems: What is wrong with the files themselves, to be reported with all else.
    """

    dialect: Dialect
    tensors: dict[str, ForeignTensor]
    where: Path
    problems: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """The narrowest parameter dtype that holds every tensor as it is: "bfloat16" or "float32"."""
        return "bfloat16" if {tensor.dtype for tensor in self.tensors.values()} == {"BF16"} else "float32"

    @property
    def stored_dtype(self) -> str:
        """The files' dtype in the terms of ``config.json``; "float32" where mixed or quantised."""
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        kinds = {tensor.dtype for tensor in self.tensors.values()}
        return names.get(next(iter(kinds)), "float32") if len(kinds) == 1 else "float32"


def open_safetensors(folder: Path) -> Source:
    """Open the safetensors of a Hugging Face folder: ``model.safetensors``, or an index and its shards.

    Raises:
        ConversionError: There are no weights, or a file is cut short.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return Source("hf", read_header(single), folder)
    if not index.exists():
        raise _no_weights(folder)
    weight_map = _read_index(index)
    tensors: dict[str, ForeignTensor] = {}
    problems = []
    for file in sorted(set(weight_map.values())):
        if not (folder / file).exists():
            problems.append(f"missing file: {file}, named by {index.name}")
            continue
        for name, tensor in read_header(folder / file).items():
            if name in tensors:
                problems.append(f"duplicate: {name} is in {tensors[name].file.name} and in {file}")
            tensors[name] = tensor
    return Source("hf", tensors, folder, tuple(problems))


def read_header(file: Path) -> dict[str, ForeignTensor]:
    """Map a safetensors file into memory and list its tensors; no values are read.

    Raises:
        ConversionError: The file is torn or not a safetensors file, or a tensor is of a type unknown here.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():  # a pipe would be waited for
        raise ConversionError("the weights are not a file", where=file, expected="a safetensors file")
    try:
        with safe_open(file, "np"):  # checks the header and that the file is as long as it says
            pass
    except SafetensorError as error:
        raise ConversionError(
            "the weights cannot be read",
            where=file,
            found=str(error),
            expected="a whole safetensors file",
            remedy="fetch the file again; it may have been cut short",
        ) from None
    data = np.memmap(file, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    strange = sorted({entry["dtype"] for entry in header.values()} - set(SAFETENSORS_DTYPES))
    if strange:
        raise ConversionError(
            "the weights are quantised or of an unknown type",
            where=file,
            found=", ".join(strange),
            expected=", ".join(SAFETENSORS_DTYPES),
            remedy="use the model's unquantised weights",
        )
    return {name: _tensor(file, data[start:], entry) for name, entry in header.items()}


def _tensor(file: Path, data: np.ndarray, entry: dict) -> ForeignTensor:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    dtype = SAFETENSORS_DTYPES[entry["dtype"]]
    return ForeignTensor(shape, entry["dtype"], file, lambda: data[begin:end].view(dtype).reshape(shape))


def _read_index(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index, error=ConversionError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConversionError("the weight index is empty", where=index, expected='"weight_map"')
    for tensor, file in weight_map.items():
        plain = isinstance(file, str) and file.isprintable() and not set(file) & set("/\\")
        if not plain or file in ("", ".", ".."):
            raise ConversionError(
                "the weight index names a file that is not in its folder",
                where=f"{index}: {tensor}",
                found=json.dumps(file),
                expected="the plain name of a file beside the index",
                remedy="move the file into the folder and name it there; or fetch the model again",
            )
    return weight_map


def _no_weights(folder: Path) -> ConversionError:
    torch_files = sorted(path.name for path in folder.glob("*.bin")) + sorted(
        p.name for p in folder.glob("*.pth")
    )
    if torch_files:
        return ConversionError(
            "the weights are in torch's pickle format, which is not read because loading it can run code",
            where=folder,
            found=", ".join(torch_files[:4]),
            expected="model.safetensors",
            remedy="convert them once where torch is installed: AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(NEW_DIR) writes safetensors",
        )
    return ConversionError(
        "the folder has no weights",
        where=folder,
        found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
        expected="model.safetensors, or model.safetensors.index.json and its shards",
    )
