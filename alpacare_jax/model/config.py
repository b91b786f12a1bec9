"""The shape of a LLaMA, to and from a Hugging Face config."""

import dataclasses
from typing import Any

from alpacare_jax.errors import ConversionError

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding and its length extension, in Hugging Face's terms.

    Fields that a kind does not use are ignored. ``factor`` None (yarn) means the ratio of
    ``max_position_embeddings`` to ``original_max_position_embeddings``.
    """

    kind: str = "default"
    theta: float = 10_000.0
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "RopeConfig":
        """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` with ``rope_scaling`` (earlier)."""
        scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        kind = scaling.pop("rope_type", scaling.pop("type", "default")) or "default"
        scaling.pop("type", None)
        theta = scaling.pop("rope_theta", config.get("rope_theta", cls.theta))
        if kind not in ROPE_KINDS:
            raise ConversionError(
                "this kind of rotary embedding is not supported",
                where="config.json: rope_scaling",
                found=kind,
                expected=", ".join(ROPE_KINDS),
            )
        if scaling.pop("partial_rotary_factor", 1.0) not in (None, 1.0):
            raise ConversionError("partial rotary embeddings are not supported", where="config.json")
        known = {field.name for field in dataclasses.fields(cls)} - {"kind", "theta"}
        unknown = sorted(set(scaling) - known)
        if unknown:
            raise ConversionError(
                "the rotary embedding has parameters this model does not know",
                where="config.json: rope_scaling",
                found=", ".join(unknown),
                expected=", ".join(sorted(known)),
            )
        given = {key: value for key, value in scaling.items() if value is not None}
        return cls(kind=kind, theta=float(theta), **given)

    def to_hf(self) -> dict[str, Any]:
        """Return ``rope_theta`` and ``rope_scaling``, the form that every transformers version reads."""
        if self.kind == "default":
            return {"rope_theta": self.theta, "rope_scaling": None}
        used = {
            "linear": ("factor",),
            "dynamic": ("factor",),
            "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
            "yarn": (
                "factor",
                "original_max_position_embeddings",
                "beta_fast",
                "beta_slow",
                "attention_factor",
                "mscale",
                "mscale_all_dim",
                "truncate",
            ),
        }[self.kind]
        scaling = {"rope_type": self.kind} | {key: getattr(self, key) for key in used}
        return {
            "rope_theta": self.theta,
            "rope_scaling": {key: value for key, value in scaling.items() if value is not None},
        }


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The shape of a LLaMA, in Hugging Face's field names. Covers LLaMA 1 to 3.2, Code Llama and SmolLM2.

    Example:
        >>> LlamaConfig.from_hf({"hidden_size": 64, "num_attention_heads": 4}).head_dim
        16
    """

    vocab_size: int = 32_000
    hidden_size: int = 4096
    intermediate_size: int = 11_008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = RopeConfig()
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "LlamaConfig":
        """Read a Hugging Face ``config.json``.

        Args:
            config: The decoded JSON object, ``model_type`` "llama" where given.

        Raises:
            ConversionError: Another architecture, activation or rotary embedding than LLaMA's.
        """
        model_type = config.get("model_type", "llama")
        if model_type != "llama":
            raise ConversionError(
                "the model is of another architecture",
                where="config.json: model_type",
                found=model_type,
                expected="llama",
            )
        if config.get("hidden_act", "silu") != "silu":
            raise ConversionError(
                "the activation is not supported",
                where="config.json: hidden_act",
                found=config["hidden_act"],
                expected="silu",
            )
        plain = [field.name for field in dataclasses.fields(cls) if field.name != "rope"]
        values = {name: config[name] for name in plain if config.get(name) is not None}
        heads = values.get("num_attention_heads", cls.num_attention_heads)
        values.setdefault("num_key_value_heads", heads)
        values.setdefault("head_dim", values.get("hidden_size", cls.hidden_size) // heads)
        made = cls(rope=RopeConfig.from_hf(config), **values)
        if made.num_attention_heads % made.num_key_value_heads:
            raise ConversionError(
                "query heads must be a multiple of key/value heads",
                where="config.json: num_key_value_heads",
                found=f"{made.num_attention_heads} query heads, {made.num_key_value_heads} key/value heads",
            )
        return made

    def to_hf(self) -> dict[str, Any]:
        """Return the ``config.json`` of this shape; token ids and the like are kept elsewhere."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "rope"}
        fixed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
        return fixed | plain | self.rope.to_hf()

    def to_dict(self) -> dict[str, Any]:
        """Return the shape as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LlamaConfig":
        """Read what :meth:`to_dict` wrote."""
        return cls(**{**values, "rope": RopeConfig(**values["rope"])})

    @property
    def parameter_count(self) -> int:
        """The number of parameters, tied embeddings counted once."""
        width, head = self.hidden_size, self.head_dim
        queries, keys = self.num_attention_heads * head, self.num_key_value_heads * head
        attention = width * (2 * queries + 2 * keys)
        attention += (queries + 2 * keys + width) * self.attention_bias
        mlp = 3 * width * self.intermediate_size + (2 * self.intermediate_size + width) * self.mlp_bias
        tables = self.vocab_size * width * (1 if self.tie_word_embeddings else 2)
        return tables + self.num_hidden_layers * (attention + mlp + 2 * width) + width
