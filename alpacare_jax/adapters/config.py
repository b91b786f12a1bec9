"""What of a model is trained beside it: kind, size and place of the adapters, and how the base is stored."""

import dataclasses
from typing import Annotated

from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.layers import SUMMED_AXES
from datagen.configuration import Range, check

KINDS = ("none", "lora", "rslora", "dora")
QUANTIZED = ("int8", "int4", "nf4")
STARTS = ("zero", "residual")
BASES = ("auto", "float32", "bfloat16", *QUANTIZED)


@dataclasses.dataclass(frozen=True)
class Target:
    """A weight that can carry an adapter.

    Args:
        name: What the configuration calls it.
        submodule: The part of a layer it lies in, "attention" or "mlp".
        shares: The weight whose inputs it shares; its own where that is None.
    """

    name: str
    submodule: str
    shares: str | None = None

    @property
    def path(self) -> str:
        """Name of the leaf in the parameter tree."""
        return f"layers.{self.submodule}.{self.name}"

    @property
    def inputs(self) -> int:
        """How many of its first axes (after the layers') a product sums; the rest are outputs."""
        return SUMMED_AXES[self.name]

    @property
    def source(self) -> "Target":
        """The weight whose inputs are its own."""
        return TARGETS[self.shares or self.name]


TARGETS = {
    target.name: target
    for target in (
        Target("query", "attention"),
        Target("key", "attention", shares="query"),
        Target("value", "attention", shares="query"),
        Target("out", "attention"),
        Target("gate", "mlp"),
        Target("up", "mlp", shares="gate"),
        Target("down", "mlp"),
    )
}


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Settings of adapters. The base model is frozen: it gets neither gradients nor optimiser state.

    Args:
        kind: "none" trains the model itself. "lora" adds (alpha / rank) A B to each target (Hu et al. 2021);
            "rslora" scales by alpha / sqrt(rank) (Kalajdzievski 2023); "dora" trains the norm of each output
            beside its direction (Liu et al. 2024).
        rank: Inner width of A and B.
        alpha: Strength of the adapter, before it is divided as the kind says.
        dropout: Share of an adapter's inputs that are zeroed in training.
        targets: The weights that carry an adapter: query, key, value, out, gate, up, down.
        base: How the frozen weights are stored: "auto" (in ``compute.dtype``, to which they are cast before every
            product anyway), "float32", "bfloat16", or the layers' matrices quantised to "int8", "int4" or "nf4" and
            all else as with "auto" (QLoRA, Dettmers et al. 2023); see ``alpacare_jax.adapters.quantize``.
        start: What A B is at first: "zero", or on a quantised base the "residual", the part of the quantisation error
            that the rank holds; see ``alpacare_jax.adapters.residual``.
        start_rows: Rows of the training data whose activations say how much each error of the base matters; rounded
            up to what the devices divide.
    """

    kind: Annotated[str, KINDS] = "none"
    rank: Annotated[int, Range(1, 65_536)] = 16
    alpha: Annotated[float, Range(0, 1_000_000, above=True)] = 32.0
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0
    targets: Annotated[tuple[str, ...], tuple(TARGETS)] = tuple(TARGETS)
    base: Annotated[str, BASES] = "auto"
    start: Annotated[str, STARTS] = "zero"
    start_rows: Annotated[int, Range(1, 131_072)] = 32

    def __post_init__(self) -> None:
        problems = []
        if self.start == "residual" and (not self.quantized or self.kind == "dora"):
            problems.append("start 'residual' needs a base in int8, int4 or nf4, and kind lora or rslora")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            problems.append("targets must name at least one weight, and none of them twice")
        if self.kind == "none" and self.base != "auto":
            problems.append(
                f"base {self.base!r} needs an adapter: only frozen weights can be "
                + ("quantised" if self.quantized else "stored otherwise")
                + ", and kind 'none' trains them all"
            )
        check(self, "adapter", problems)

    @property
    def on(self) -> bool:
        """Whether there are adapters at all."""
        return self.kind != "none"

    @property
    def quantized(self) -> bool:
        """Whether the base is stored in fewer bits than it is computed with."""
        return self.base in QUANTIZED

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.kind == "rslora" else self.rank)

    def base_dtype(self, compute_dtype: str) -> str:
        """Return the dtype of the frozen weights, where they are quantised that of the rest."""
        return compute_dtype if self.base in ("auto", *QUANTIZED) else self.base

    def check_ranks(self, config: LlamaConfig) -> None:
        """Check that every target is larger than the adapter beside it.

        Raises:
            ConfigError: The rank exceeds a side of a matrix.
        """
        width, hidden, head = config.hidden_size, config.intermediate_size, config.head_dim
        queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
        sides = {"query": queries, "key": keys, "value": keys, "out": queries}
        problems = []
        for name in self.targets:
            side = sides.get(name, hidden)
            if self.rank > min(width, side):
                problems.append(f"{name} is {width} x {side}")
        if self.on and problems:
            raise ConfigError(
                "the rank is larger than the matrix it stands beside",
                where="adapter.rank",
                found=f"rank {self.rank}; " + ", ".join(problems),
                expected="at most the smaller side",
                remedy="lower adapter.rank, or leave these out of adapter.targets",
            )
