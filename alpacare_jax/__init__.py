"""AlpaCare on JAX: LLaMA fine-tuning, conversion, generation and evaluation.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import alpacare_jax as alpacare
    >>> model = alpacare.load("HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> model.generate("Name a sign of fever.", max_tokens=16)
"""

from datagen.lazy import import_lazily

__version__ = "0.1.0"

import_lazily(__name__, __file__)
