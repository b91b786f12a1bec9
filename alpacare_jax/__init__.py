"""AlpaCare on JAX: LLaMA fine-tuning, conversion, generation and evaluation."""

__version__ = "0.1.0"
