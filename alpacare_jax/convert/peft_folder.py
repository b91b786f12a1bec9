"""Adapters as a folder of PEFT's, which ``peft.PeftModel.from_pretrained`` loads beside the same base in transformers.

Names are PEFT's for causal language models (``peft/utils/save_and_load.py``): the module's own name behind
``base_model.model.``, then ``lora_A.weight`` [r, in], ``lora_B.weight`` [out, r] and ``lora_magnitude_vector`` [out].
"""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alpacare_jax.adapters.config import TARGETS, AdapterConfig
from alpacare_jax.checkpoint import failures
from alpacare_jax.checkpoint.folders import atomic_folder
from alpacare_jax.convert import table
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.params import Params, flatten
from datagen.files import write_json

PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export_peft(
    adapters: Params,
    adapter: AdapterConfig,
    config: LlamaConfig,
    out: Path,
    *,
    base: str | None,
    overwrite: bool = False,
) -> None:
    """Write adapters as a PEFT folder, whole or not at all.

    Args:
        adapters: The trained tree of :class:`alpacare_jax.adapters.Partition`, on one host.
        adapter: Its settings.
        config: The base's shape.
        out: The folder to make.
        base: What names the base in PEFT's config: a hub name or a folder.
        overwrite: Replace an existing PEFT folder.

    Raises:
        CheckpointError: The disk is full.
        ConfigError: The adapters would be wrong on a full base.
        DataError: The folder exists.
    """
    check_alone(adapter, out)
    from safetensors.numpy import save_file

    with (
        atomic_folder(out, overwrite=overwrite, marker=PEFT_FILES[0], own=PEFT_FILES) as partial,
        failures.writing(out, "the export"),
    ):
        write_json(partial / PEFT_FILES[0], peft_config(adapter, base))
        mode = (partial / PEFT_FILES[0]).stat().st_mode & 0o777
        save_file(peft_tensors(adapters, config), partial / PEFT_FILES[1], metadata={"format": "pt"})
        (partial / PEFT_FILES[1]).chmod(mode)  # the library leaves it readable by its owner alone


def check_alone(adapter: AdapterConfig, where: Path) -> None:
    """Check that adapters can be used on a base that is not quantised, as PEFT does.

    Args:
        adapter: Their settings.
        where: What to name in the error.

    Raises:
        ConfigError: They started as what quantising took from the base, which a full base still has.
    """
    if adapter.start == "residual":
        raise ConfigError(
            "these adapters cannot be used without their quantised base",
            where=where,
            found=f"adapter.start: residual, on a base in {adapter.base}; they hold what quantising took from it, "
            "which PEFT would add to a base that still has it",
            expected="for --peft a run with adapter.start: zero",
            remedy="leave out --peft: the export is then the trained model, base and adapters merged",
        )


def peft_config(adapter: AdapterConfig, base: str | None) -> dict[str, Any]:
    """Return ``adapter_config.json``."""
    modules = [_rule(name).hf.split(".")[-2] for name in adapter.targets]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.kind == "rslora",
        "use_dora": adapter.kind == "dora",
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
    }


def peft_tensors(adapters: Params, config: LlamaConfig) -> dict[str, np.ndarray]:
    """Return the tensors of a PEFT folder by their names."""
    leaves: dict[str, np.ndarray] = jax.device_get(flatten(adapters))
    rank = next(leaf.shape[-1] for name, leaf in leaves.items() if name.endswith(".a"))
    tensors = {}
    for name, stacked in leaves.items():
        path, _, part = name.rpartition(".")
        rule, sizes = _rule(path.rpartition(".")[2]), table.axis_sizes(config) | {"R": rank}
        source, target, ending = _layouts(rule, TARGETS[path.rpartition(".")[2]].inputs)[part]
        for layer in range(stacked.shape[0]):
            module = rule.name("hf", layer).removesuffix(".weight")
            tensor = table.rearrange(stacked[layer], source, target, sizes)
            tensors[f"base_model.model.{module}.{ending}"] = np.ascontiguousarray(tensor)
    return tensors


def _layouts(rule: table.Rule, inputs: int) -> dict[str, tuple[str, str, str]]:
    """Return for each part our layout, PEFT's, and the end of its name."""
    axes = re.findall(r"\([^)]*\)|\S+", rule.axes)
    inside, outside = " ".join(axes[:inputs]), " ".join(axes[inputs:])
    flat_in, flat_out = ("(" + re.sub(r"[()]", "", side) + ")" for side in (inside, outside))
    return {
        "a": (f"{inside} R", f"R {flat_in}", "lora_A.weight"),
        "b": (f"R {outside}", f"{flat_out} R", "lora_B.weight"),
        "magnitude": (outside, flat_out, "lora_magnitude_vector"),
    }


def _rule(target: str) -> table.Rule:
    path = TARGETS[target].path
    return next(rule for rule in table.RULES if rule.ours == path)
