"""Reading a Hugging Face folder's config, and making an export's config say what the export holds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.tokenizer_files import read_keys
from datagen.decoding import read_json_object
from datagen.files import write_json

#: What a folder of PEFT's holds, by itself or beside full weights.
ADAPTER = "adapter_config.json"


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with a PEFT adapter: ``transformers`` applies it, and the weights without it are another model.

    Raises:
        ConversionError: There is one.
    """
    file = folder / ADAPTER
    if not file.exists():
        return
    base = read_json_object(file, error=ConversionError).get("base_model_name_or_path")
    whole = (folder / "config.json").exists()
    raise ConversionError(
        f"the folder holds a PEFT adapter{' beside the weights' if whole else ''}, which is not applied here",
        where=file,
        found=f"an adapter for {base}",
        expected="a folder with the weights of a whole model",
        remedy="merge it where torch is installed: AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload()"
        ".save_pretrained(NEW_DIR)"
        + (f"; or move {ADAPTER} away to use the weights without it" if whole else ""),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``.

    Raises:
        ConversionError: It is missing, broken, or of a quantised model.
    """
    file = folder / "config.json"
    if not file.exists():
        raise ConversionError(
            "the folder has no config.json",
            where=folder,
            found=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
            expected="a Hugging Face model folder",
            remedy="name a folder that save_pretrained wrote, a .gguf file, or a hub name (org/model)",
        )
    config = read_json_object(file, error=ConversionError)
    if quantised := config.get("quantization_config"):
        raise ConversionError(
            "the weights are quantised",
            where=f"{file}: quantization_config",
            found=quantised.get("quant_method", "a quantisation")
            if isinstance(quantised, dict)
            else quantised,
            remedy="use the model's unquantised weights, or a .gguf file",
        )
    return config


def write_config(folder: Path, config: LlamaConfig, dtype: str) -> None:
    """Make a folder's ``config.json`` say what an export holds, changing only what it does not say already.

    Every key that a model came with is kept, known here or not. Where nothing changes the bytes are kept.

    Args:
        folder: The export, with the ``config.json`` the model came with, or none.
        config: The model's shape.
        dtype: Dtype of the exported weights, "float32", "bfloat16" or "float16".
    """
    file = folder / "config.json"
    found = read_config(folder) if file.exists() else {}
    changed = dict(found)
    if not found or LlamaConfig.from_hf(found) != config:
        made = config.to_hf()
        # What would count beside, or instead of, the rotary parameters written here.
        for name in ("rope_parameters", "original_max_position_embeddings"):
            changed.pop(name, None)
        changed |= made
    changed.setdefault("model_type", "llama")  # without it transformers opens no folder
    key = "dtype" if "dtype" in found else "torch_dtype"
    if changed.get(key) != dtype:
        changed[key] = dtype
    if changed != found:
        write_json(file, changed)


def complete_generation_config(folder: Path) -> None:
    """Write ``generation_config.json`` from the config's token ids, for a model that came without one."""
    file = folder / "generation_config.json"
    if not file.exists():
        write_json(file, {"_from_model_config": True} | _token_ids(read_config(folder)))


def _token_ids(config: dict[str, Any]) -> dict[str, Any]:
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: config[key] for key in keys if config.get(key) is not None}


def add_end_tokens(folder: Path, ends: Iterable[int]) -> None:
    """Add tokens to the ``eos_token_id`` of ``generation_config.json``, at which every program stops.

    Args:
        folder: The folder, with a ``generation_config.json``, or a ``config.json`` to make one from, or neither.
        ends: The ids.

    Raises:
        DataError: One of the files is broken.
    """
    if not (ends := list(ends)):
        return
    file = folder / "generation_config.json"
    found = read_keys(file) if file.exists() else _token_ids(read_keys(folder / "config.json"))
    old = found.get("eos_token_id")
    listed = old if isinstance(old, list) else [] if old is None else [old]
    wanted = list(dict.fromkeys([*listed, *ends]))
    if wanted == listed:
        return
    # Marked as made from the config, the file would lose against the config in transformers.
    changed = {key: value for key, value in found.items() if key != "_from_model_config"}
    write_json(file, changed | {"eos_token_id": wanted if len(wanted) > 1 else wanted[0]})
