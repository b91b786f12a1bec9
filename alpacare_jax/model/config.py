"""The shape of a LLaMA, to and from a Hugging Face config."""

import dataclasses
from typing import Annotated, Any

from alpacare_jax.errors import ConversionError
from datagen.configuration import Range, declared, find_problems

#: The parameters that each kind of rotary embedding reads beside its base, ``rope_theta``.
ROPE_KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
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
}
_REQUIRED = {"linear": 1, "dynamic": 1, "llama3": 3}  # so many of the parameters above have no default
_DESCRIPTIVE = "original_max_position_embeddings"  # allowed in every kind
_NULL_IS_ABSENT = (  # the sizes of a model are not among them
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "initializer_range",
)
_SIZE, _LENGTH = Range(1, 1 << 22), Range(1, 1_000_000_000)
_FACTOR, _PART = Range(0, 1_000_000_000, above=True), Range(0, 1_000_000_000)


@dataclasses.dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding and its length extension, in Hugging Face's terms.

    Fields that a kind does not use are ignored. ``factor`` None (yarn) means the ratio of
    ``max_position_embeddings`` to ``original_max_position_embeddings``.
    """

    kind: str = "default"
    theta: Annotated[float, Range(1, 10**15, above=True)] = 10_000.0
    factor: Annotated[float | None, _FACTOR] = None
    original_max_position_embeddings: Annotated[int | None, _LENGTH] = None
    low_freq_factor: Annotated[float, _FACTOR] = 1.0
    high_freq_factor: Annotated[float, _FACTOR] = 4.0
    beta_fast: Annotated[float, _FACTOR] = 32.0
    beta_slow: Annotated[float, _FACTOR] = 1.0
    attention_factor: Annotated[float | None, _PART] = None
    mscale: Annotated[float | None, _PART] = None
    mscale_all_dim: Annotated[float | None, _PART] = None
    truncate: bool = True

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "RopeConfig":
        """Read ``rope_scaling`` or ``rope_parameters`` as ``transformers`` 5 does, and refuse what it would ignore.

        Args:
            config: The decoded ``config.json``.

        Raises:
            ConversionError: A parameter is missing, of a wrong type, or means nothing to this kind of embedding.

        Source: ``transformers/modeling_rope_utils.py``, ``RotaryEmbeddingConfigMixin``.
        """
        key, scaling = _scaling_of(config)
        where = f"config.json: {key}"
        kind = scaling.pop("rope_type", None) or scaling.get("type") or "default"
        if scaling.pop("type", None) not in (None, kind):
            raise ConversionError("rope_type and type name two kinds of rotary embedding", where=where)
        if not isinstance(kind, str) or kind not in ROPE_KINDS:
            raise ConversionError(
                "this kind of rotary embedding is not supported",
                where=f"{where}.rope_type",
                found=kind,
                expected=", ".join(ROPE_KINDS),
            )
        used = ROPE_KINDS[kind]
        theta = scaling.pop("rope_theta", config.get("rope_theta", cls.theta))
        given = {name: value for name, value in scaling.items() if value is not None}
        outside = config.get(_DESCRIPTIVE)
        if outside is not None and _DESCRIPTIVE in used:
            given[_DESCRIPTIVE] = outside
        for name in ("beta_fast", "beta_slow"):
            if given.get(name) == 0:  # transformers reads 0 as the default
                del given[name]
        if "truncate" in scaling and kind == "yarn":  # and null as false
            given.setdefault("truncate", False)
        unknown = sorted(set(given) - {*used, _DESCRIPTIVE})
        missing = [name for name in used[: _REQUIRED.get(kind, 0)] if name not in given]
        if unknown or missing:
            raise ConversionError(
                f"the parameters do not fit a rotary embedding of kind {kind}",
                where=where,
                found="; ".join(
                    [f"{name}: {given[name]!r} is not read" for name in unknown]
                    + [f"{name} is missing" for name in missing]
                ),
                expected=", ".join(used) or "no parameters; a rope_type, if they are to count",
            )
        _checked(cls, {"theta": theta}, "config.json", "rope_")
        return cls(kind=kind, theta=float(theta), **_checked(cls, given, where))

    def to_hf(self) -> dict[str, Any]:
        """Return ``rope_theta`` and ``rope_scaling``, the form that every transformers version reads."""
        if self.kind == "default":
            return {"rope_theta": self.theta, "rope_scaling": None}
        scaling = {"rope_type": self.kind} | {key: getattr(self, key) for key in ROPE_KINDS[self.kind]}
        return {
            "rope_theta": self.theta,
            "rope_scaling": {key: value for key, value in scaling.items() if value is not None},
        }


def _scaling_of(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the mapping of rotary parameters that counts, and its key: ``rope_scaling`` where it holds anything.

    Raises:
        ConversionError: A key of the config's would be ignored or contradicts another.
    """
    found = {key: config[key] for key in ("rope_scaling", "rope_parameters") if config.get(key)}
    for key, value in found.items():
        if not isinstance(value, dict):
            raise ConversionError(
                f"{key} must be an object",
                where=f"config.json: {key}",
                found=value,
                expected="null or an object",
            )
    key = next(iter(found), "rope_parameters")
    scaling = dict(found.get(key, {}))
    bases = [scaling.get("rope_theta", config.get("rope_theta", RopeConfig.theta))]
    bases += [value["rope_theta"] for value in found.values() if value.get("rope_theta") is not None]
    if any(base != bases[0] for base in bases):
        raise ConversionError(
            "rope_scaling and rope_parameters name two bases of the rotary embedding",
            where="config.json: rope_theta",
            found=", ".join(map(str, dict.fromkeys(map(str, bases)))),
            remedy="write rope_theta into rope_scaling, and delete rope_parameters",
        )
    scaling.setdefault("partial_rotary_factor", config.get("partial_rotary_factor"))
    if scaling.pop("partial_rotary_factor") not in (None, 1):
        raise ConversionError(
            "partial rotary embeddings are not supported",
            where="config.json: partial_rotary_factor",
            expected="1 or null",
        )
    known = ("rope_scaling", "rope_parameters", "rope_theta")
    others = [name for name in config if name.startswith(("rope", "rotary")) and name not in known]
    # What is null, false or 1 asks for nothing special, as rope_interleaved in SmolLM2's config.
    unknown = [
        f"{name}: {config[name]!r}"
        for name in others
        if config[name] and str(config[name]) not in ("1", "1.0")
    ]
    if unknown:
        raise ConversionError(
            "the config holds rotary parameters that LLaMA does not read",
            where="config.json",
            found=", ".join(unknown),
            expected=", ".join(known),
        )
    return key, scaling


def _checked(kind: type, values: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Check types and ranges of a config's values against the fields of a dataclass.

    Returns:
        The values, whole numbers written as 4.0 in the type of their field.

    Raises:
        ConversionError: Names every value that does not fit.
    """
    if problems := find_problems(kind, values):
        found = "; ".join(prefix + problem for problem in problems)
        raise ConversionError("the config holds values of a wrong kind", where=where, found=found)
    settings = declared(kind)
    return {
        name: settings[name].fit(value, name)[0] if isinstance(value, float) else value
        for name, value in values.items()
    }


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The shape of a LLaMA, in Hugging Face's field names. Covers LLaMA 1 to 3.2, Code Llama and SmolLM2.

    Example:
        >>> LlamaConfig.from_hf({"hidden_size": 64, "num_attention_heads": 4}).head_dim
        16
    """

    vocab_size: Annotated[int, _SIZE] = 32_000
    hidden_size: Annotated[int, _SIZE] = 4096
    intermediate_size: Annotated[int, _SIZE] = 11_008
    num_hidden_layers: Annotated[int, Range(1, 10_000)] = 32
    num_attention_heads: Annotated[int, _SIZE] = 32
    num_key_value_heads: Annotated[int, _SIZE] = 32
    head_dim: Annotated[int, _SIZE] = 128
    max_position_embeddings: Annotated[int, _LENGTH] = 2048
    rms_norm_eps: Annotated[float, Range(0, 1, above=True)] = 1e-6
    rope: RopeConfig = RopeConfig()
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: Annotated[float, _PART] = 0.02

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
                "the model's architecture is not supported",
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
        values = {name: config[name] for name in plain if name in config}
        values = {k: v for k, v in values.items() if v is not None or k not in _NULL_IS_ABSENT}
        values = _checked(cls, values, "config.json")
        heads = values.get("num_attention_heads", cls.num_attention_heads)
        values.setdefault("num_key_value_heads", heads)
        values.setdefault("head_dim", values.get("hidden_size", cls.hidden_size) // heads)
        made = cls(rope=RopeConfig.from_hf(config), **values)
        if made.num_attention_heads % made.num_key_value_heads:
            raise ConversionError(
                "query heads must be a multiple of key/value heads",
                where="config.json: num_attention_heads, num_key_value_heads",
                found=f"{made.num_attention_heads} query heads, {made.num_key_value_heads} key/value heads",
            )
        if made.head_dim < 2 or made.head_dim % 2:
            raise ConversionError(
                "the head size must be even, since its halves are rotated against each other",
                where="config.json: head_dim",
                found=made.head_dim,
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
