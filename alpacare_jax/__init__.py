"""AlpaCare on JAX: LLaMA fine-tuning, conversion, generation and evaluation.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import alpacare_jax as alpacare
    >>> model = alpacare.load("HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> model.generate("Name a sign of fever.", max_tokens=16)
"""

from datagen.lazy import import_lazily

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


import_lazily(__name__, _PUBLIC)
