"""AlpaCare on JAX: LLaMA fine-tuning, conversion, generation and evaluation.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import alpacare_jax as alpacare
    >>> model = alpacare.load("HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> model.generate("Name a sign of fever.", max_tokens=16)
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "LanguageModel": "language_model",
    "Mesh": "sharding:MeshConfig",
    "PackedDataset": "data.dataset",
    "load": "language_model",
    "pack": "data.pack",
}
"""Public name -> module, with the name there after a colon where it differs; ``:`` alone is the module itself."""

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _PUBLIC[name].partition(":")
    found = importlib.import_module(f"{__name__}.{module}")
    value = found if _PUBLIC[name].endswith(":") else getattr(found, there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
