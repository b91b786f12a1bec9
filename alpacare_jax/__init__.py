"""AlpaCare on JAX: LLaMA fine-tuning, conversion, generation and evaluation.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import alpacare_jax as alpacare
    >>> model = alpacare.load("HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> model.generate("Name a sign of fever.", max_tokens=16)
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Compute": "model:ComputeConfig",
    "JudgeSettings": "evaluate.judge",
    "LanguageModel": "language_model",
    "LoRA": "train",
    "Mesh": "sharding:MeshConfig",
    "Optim": "optim:OptimConfig",
    "PackedDataset": "data.dataset",
    "TrainConfig": "train",
    "Trainer": "train",
    "callbacks": "train",
    "evaluate": "evaluate.heldout_file",
    "export_adapters": "convert.folders",
    "export_model": "convert.folders",
    "generate": "inference",
    "import_model": "convert.folders",
    "judge": "evaluate.judging",
    "load": "language_model",
    "load_config": "train",
    "compare_plans": "plan.planning",
    "pack": "data.pack",
    "plan": "plan.planning",
    "report": "report.writing",
    "score": "evaluate.tables",
    "serve": "inference",
}
"""Public name -> module, with the name there after a colon where it differs."""

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), there or name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """A package in which a public function is found also where a room has the same name, as `generate` has."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a room sets it as an attribute here; `from alpacare_jax.generate import Engine` needs none.
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
