"""What it costs that a mesh does not divide a model: said once, when a run starts."""

from jax.sharding import AbstractMesh, Mesh

from alpacare_jax import attention, sharding
from alpacare_jax.model.config import LlamaConfig
from alpacare_jax.model.flops import flops_per_row


def uneven_sizes(config: LlamaConfig, mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """Return the sizes of a model that a mesh does not divide, by their logical axes.

    Example:
        >>> mesh = sharding.abstract_mesh(sharding.MeshConfig(tensor=2), 8)
        >>> uneven_sizes(LlamaConfig(vocab_size=32_001), mesh)
        {'vocab': 32001}
    """
    sizes = {
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
    }
    return {axis: size for axis, size in sizes.items() if not sharding.divides(mesh, axis, size)}


def extra_work(config: LlamaConfig, mesh: Mesh | AbstractMesh, row_length: int) -> float:
    """Return the operations of a training step beyond the model's own, as a share of these.

    Slots of attention that hold no head of the model are computed like the others. Where the mesh does not divide the
    length of rows either, products of uneven sizes are computed by every device that would share them.

    Args:
        config: The model's shape.
        mesh: The devices.
        row_length: Tokens in a row (T).
    """
    T, L, D, H = row_length, config.num_hidden_layers, config.hidden_size, config.head_dim
    shards = sharding.shards_on(mesh, "heads")
    layout = attention.layout_over(config.num_attention_heads, config.num_key_value_heads, shards)
    extra = 2.0 * L * (layout.slots - layout.heads) * H * T * T
    if not sharding.divides(mesh, "residual_length", T):
        uneven = uneven_sizes(config, mesh)
        queries = 0 if layout.slots == layout.heads else 2 * config.num_attention_heads * H
        keys = 0 if layout.is_plain else 2 * config.num_key_value_heads * H
        columns = L * (queries + keys + 3 * uneven.get("mlp", 0)) + uneven.get("vocab", 0)
        extra += 2.0 * D * columns * T * (shards - 1)
    return 3 * extra / flops_per_row(config, T)


def describe_uneven(config: LlamaConfig, mesh: Mesh | AbstractMesh, row_length: int) -> str | None:
    """Say what a mesh does not divide and what that costs; None where it divides everything."""
    uneven = uneven_sizes(config, mesh)
    if not uneven:
        return None
    shards = sharding.shards_on(mesh, "heads")
    layout = attention.layout_over(config.num_attention_heads, config.num_key_value_heads, shards)
    sizes = ", ".join(f"{axis} {size:,}" for axis, size in uneven.items())
    text = f"{shards} devices do not divide {sizes}: each gathers these weights whole and takes a part of the rows"
    if not layout.is_plain:
        text += (
            f"; attention computes {layout.slots} query and {layout.kv_slots} key/value heads "
            f"for {layout.heads} and {layout.kv_heads}"
        )
    share = extra_work(config, mesh, row_length)
    more = f"{100 * share:.1f}% more operations a step" if share >= 5e-4 else "no more operations a step"
    if not sharding.divides(mesh, "residual_length", row_length):
        unit = sharding.shards_on(mesh, "residual_length")
        more += f" (rows of a multiple of {unit} tokens would be split, which saves most of it)"
    return f"{text}; {more}"
