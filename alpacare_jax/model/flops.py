"""How many floating-point operations a model's mathematics asks for: what a step's speed is measured by."""

from alpacare_jax.model.config import LlamaConfig


def matmul_parameters(config: LlamaConfig) -> int:
    """Count the parameters that every token is multiplied with: all but norms, biases and the table that is looked up.

    Example:
        >>> matmul_parameters(LlamaConfig()) / 1e9
        6.607077376
    """
    width, head = config.hidden_size, config.head_dim
    attention = 2 * width * (config.num_attention_heads + config.num_key_value_heads) * head
    layer = attention + 3 * width * config.intermediate_size
    return config.num_hidden_layers * layer + config.vocab_size * width


def flops_per_row(config: LlamaConfig, row_length: int, *, trained: bool = True) -> float:
    """Count a training step's floating-point operations for one row, forward and backward, nothing recomputed.

    Two operations for each parameter and token forward; twice that backward, for the gradients of activations and of
    weights. Attention counts the keys up to each query, T/2 on average, in both of its products. Rows count whole:
    that segments see less of each other, and that slots are padding, is not taken off, as in the figures that others
    publish.

    Args:
        config: The model's shape.
        row_length: Tokens in a row (T).
        trained: Whether the weights have gradients; False for a frozen base under adapters, whose own operations are
            too few to count.

    Returns:
        Floating-point operations, a multiplication and an addition counted as two.

    Example:
        >>> round(flops_per_row(LlamaConfig(), 2048) / 2048 / 1e9, 2)
        41.25

    Source: Chowdhery et al. 2022 (PaLM), appendix B, with causal attention counted once.
    """
    T = row_length
    heads = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    products = 2 * matmul_parameters(config) * T
    attention = 2 * 2 * heads * T * T / 2
    return (3 if trained else 2) * products + 3 * attention
