"""The one table of names and layouts from which import and export both follow.

A layout is written in the letters of ``alpacare_jax.model``: D model width, F feed-forward width, N query heads,
K key/value heads, H head size, E half a head, V vocabulary; brackets join axes into one, ``2`` is an axis of two.
``"(N 2 E) D"`` is a matrix whose rows run over heads, then halves of a head, then within a half. Turning one
layout into another is reshape, transpose, reshape, and turning it back is the same with the two exchanged, so no
transform has to be written twice.

The layouts of GGUF differ from Hugging Face's in queries and keys alone: its rows alternate between the two halves
of a head, because llama.cpp rotates neighbours where Hugging Face rotates halves.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from alpacare_jax.model import LlamaConfig

Dialect = Literal["hf", "gguf"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of tensor under its three names.

    Args:
        ours: Path in the parameter tree.
        axes: Our layout, for one layer.
        hf: Name in a Hugging Face checkpoint, ``{}`` for the layer's number.
        hf_axes: Layout there.
        gguf: Name in a GGUF file.
        gguf_axes: Layout there; "" where it is Hugging Face's.
        when: The property of the config without which the tensor does not exist; "" for always.
    """

    ours: str
    axes: str
    hf: str
    hf_axes: str
    gguf: str
    gguf_axes: str = ""
    when: Literal["", "untied", "attention_bias", "mlp_bias"] = ""

    @property
    def stacked(self) -> bool:
        """Whether there is one such tensor a layer, stacked along a leading axis in our tree."""
        return "{}" in self.hf

    def name(self, dialect: Dialect, layer: int = 0) -> str:
        """Return the tensor's name, for a layer where there is one a layer."""
        return (self.hf if dialect == "hf" else self.gguf).format(layer)

    def layout(self, dialect: Dialect) -> str:
        """Return the tensor's layout in a dialect."""
        return self.gguf_axes or self.hf_axes if dialect == "gguf" else self.hf_axes

    def exists(self, config: LlamaConfig) -> bool:
        """Return whether a model of this shape has the tensor."""
        if self.when == "untied":
            return not config.tie_word_embeddings
        return not self.when or bool(getattr(config, self.when))


def _layer(
    ours: str, axes: str, hf: str, hf_axes: str, gguf: str, gguf_axes: str = "", when: str = ""
) -> Rule:
    names = (f"layers.{ours}", axes, f"model.layers.{{}}.{hf}", hf_axes, f"blk.{{}}.{gguf}", gguf_axes)
    return Rule(*names, when=when)  # type: ignore[arg-type]


_Q, _K, _BIAS = "(N E 2) D", "(K E 2) D", "attention_bias"

RULES: tuple[Rule, ...] = (
    Rule("embed", "V D", "model.embed_tokens.weight", "V D", "token_embd.weight"),
    _layer("attention_norm.scale", "D", "input_layernorm.weight", "D", "attn_norm.weight"),
    _layer("attention.query", "D N (2 E)", "self_attn.q_proj.weight", "(N 2 E) D", "attn_q.weight", _Q),
    _layer("attention.key", "D K (2 E)", "self_attn.k_proj.weight", "(K 2 E) D", "attn_k.weight", _K),
    _layer("attention.value", "D K H", "self_attn.v_proj.weight", "(K H) D", "attn_v.weight"),
    _layer("attention.out", "N H D", "self_attn.o_proj.weight", "D (N H)", "attn_output.weight"),
    _layer(
        "attention.query_bias", "N (2 E)", "self_attn.q_proj.bias", "(N 2 E)", "attn_q.bias", "(N E 2)", _BIAS
    ),
    _layer(
        "attention.key_bias", "K (2 E)", "self_attn.k_proj.bias", "(K 2 E)", "attn_k.bias", "(K E 2)", _BIAS
    ),
    _layer("attention.value_bias", "K H", "self_attn.v_proj.bias", "(K H)", "attn_v.bias", "", _BIAS),
    _layer("attention.out_bias", "D", "self_attn.o_proj.bias", "D", "attn_output.bias", "", _BIAS),
    _layer("mlp_norm.scale", "D", "post_attention_layernorm.weight", "D", "ffn_norm.weight"),
    _layer("mlp.gate", "D F", "mlp.gate_proj.weight", "F D", "ffn_gate.weight"),
    _layer("mlp.up", "D F", "mlp.up_proj.weight", "F D", "ffn_up.weight"),
    _layer("mlp.down", "F D", "mlp.down_proj.weight", "D F", "ffn_down.weight"),
    _layer("mlp.gate_bias", "F", "mlp.gate_proj.bias", "F", "ffn_gate.bias", "", "mlp_bias"),
    _layer("mlp.up_bias", "F", "mlp.up_proj.bias", "F", "ffn_up.bias", "", "mlp_bias"),
    _layer("mlp.down_bias", "D", "mlp.down_proj.bias", "D", "ffn_down.bias", "", "mlp_bias"),
    Rule("norm.scale", "D", "model.norm.weight", "D", "output_norm.weight"),
    Rule("head", "D V", "lm_head.weight", "V D", "output.weight", when="untied"),
)

# Tensors that some writers leave in a checkpoint and that hold nothing but what the config says: all that stands in a
# module of the rotary embedding, and its tables by whatever name.
DERIVED = {
    "hf": re.compile(
        r"(?:\w+\.)*(?:(?:rotary|rope)\w*\.(?:\w+\.)*\w+|\w*(?:inv_freq|freqs_cis|(?:cos|sin)_cached))"
    ),
    "gguf": re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd(?:\.weight)?"),
}


def axis_sizes(config: LlamaConfig) -> dict[str, int]:
    """Return the size of every axis letter."""
    return {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "N": config.num_attention_heads,
        "K": config.num_key_value_heads,
        "H": config.head_dim,
        "E": config.head_dim // 2,
        "2": 2,
    }


def shape_of(layout: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a layout.

    Example:
        >>> shape_of("(N H) D", {"N": 4, "H": 8, "D": 64})
        (32, 64)
    """
    return tuple(math.prod(sizes[axis] for axis in group) for group in _groups(layout))


def rearrange(x: np.ndarray, source: str, target: str, sizes: Mapping[str, int]) -> np.ndarray:
    """Turn one layout into another; a view where numpy can make one.

    Args:
        x: An array laid out as ``source``.
        source: Its layout.
        target: The layout wanted, over the same axes; ``"H"`` and ``"2 E"`` count as the same.
        sizes: Size of every axis letter.

    Returns:
        The array laid out as ``target``.

    Example:
        >>> rearrange(np.array([0, 1, 2, 3]), "(N E 2)", "N (2 E)", {"N": 1, "2": 2, "E": 2})
        array([[0, 2, 1, 3]])
    """
    before = [axis for group in _groups(source) for axis in group]
    after = [axis for group in _groups(target) for axis in group]
    split = x.reshape([sizes[axis] for axis in before])
    return split.transpose([before.index(axis) for axis in after]).reshape(shape_of(target, sizes))


def expected_tensors(config: LlamaConfig, dialect: Dialect) -> dict[str, tuple[Rule, int]]:
    """List the tensors of a model of this shape: name -> its rule and layer, in the order of the layers."""
    rules = [rule for rule in RULES if rule.exists(config)]
    first = next(i for i, rule in enumerate(rules) if rule.stacked)
    last = max(i for i, rule in enumerate(rules) if rule.stacked)
    found = {rule.name(dialect): (rule, 0) for rule in rules[:first]}
    for layer in range(config.num_hidden_layers):
        found |= {rule.name(dialect, layer): (rule, layer) for rule in rules[first : last + 1]}
    return found | {rule.name(dialect): (rule, 0) for rule in rules[last + 1 :]}


def find_rule(name: str, dialect: Dialect) -> tuple[Rule, int] | None:
    """Find the rule of a tensor's name, whatever the config, and the layer in the name."""
    for rule in RULES:
        text = rule.hf if dialect == "hf" else rule.gguf
        if match := re.fullmatch(re.escape(text).replace(re.escape("{}"), r"(\d+)"), name):
            return rule, int(match[1]) if rule.stacked else 0
    return None


def _groups(layout: str) -> list[list[str]]:
    """Split a layout into its axes, each a list of letters."""
    return [part.strip("()").split() for part in re.findall(r"\([^)]*\)|\S+", layout)]
