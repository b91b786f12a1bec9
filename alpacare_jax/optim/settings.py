"""The optimiser's settings."""

import dataclasses
from typing import Annotated

from datagen.configuration import Range, check

OPTIMIZERS = ("adamw", "adafactor", "lion", "muon")
SCHEDULES = ("cosine", "linear", "constant", "wsd")
STATE_DTYPES = ("float32", "bfloat16", "int8")
ROUNDINGS = ("nearest", "stochastic")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimiser; the defaults are AlpaCare's (paper, section 4 and published scripts).

    Args:
        name: "adamw" (Loshchilov and Hutter 2019), "adafactor" (Shazeer and Stern 2018: second moments by rows and
            columns), "lion" (Chen et al. 2023: one moment, its sign), "muon" (Jordan et al. 2024: matrices of the
            layers by orthogonalised momentum, all else by AdamW; updates scaled as AdamW's, Liu et al. 2025).
        learning_rate: Peak learning rate. Lion wants about a tenth of AdamW's.
        schedule: After warm-up "cosine" or "linear" to zero at the last step, "constant", or "wsd": constant, then
            linear to zero over the last ``decay_ratio`` of the steps (Hu et al. 2024).
        warmup_ratio: Share of all steps over which the rate rises linearly from zero.
        decay_ratio: Share of all steps over which "wsd" falls.
        weight_decay: Decoupled weight decay, applied to matrices and tables, not to norms (nor DoRA's) and biases.
        no_decay: More parameters without weight decay: patterns of dotted names, as ``embed`` or ``layers.mlp.*``.
        b1: Decay of the first moment; Lion's interpolation, and the momentum of Muon's matrices.
        b2: Decay of the second moment; of Lion's only one.
        eps: Added to the root of the second moment.
        clip_norm: Global gradient norm above which gradients are scaled down; 0 turns clipping off.
        state_dtype: How moments are stored: "float32", "bfloat16", or "int8" in blocks with a scale each.
        rounding: How parameters in bfloat16 take an update: to the "nearest" value, which loses small updates, or
            "stochastic", which keeps them on average. Nothing where they are in float32.
    """

    name: Annotated[str, OPTIMIZERS] = "adamw"
    learning_rate: Annotated[float, Range(0, 10_000, above=True)] = 2e-5
    schedule: Annotated[str, SCHEDULES] = "cosine"
    warmup_ratio: Annotated[float, Range(0, 1)] = 0.03
    decay_ratio: Annotated[float, Range(0, 1)] = 0.1
    weight_decay: Annotated[float, Range(0, 10_000)] = 0.0
    no_decay: tuple[str, ...] = ()
    b1: Annotated[float, Range(0, 1, below=True)] = 0.9
    b2: Annotated[float, Range(0, 1, below=True)] = 0.999
    eps: Annotated[float, Range(0, 1)] = 1e-8
    clip_norm: Annotated[float, Range(0, 1_000_000_000)] = 1.0
    state_dtype: Annotated[str, STATE_DTYPES] = "float32"
    rounding: Annotated[str, ROUNDINGS] = "nearest"

    def __post_init__(self) -> None:
        too_long = self.schedule == "wsd" and self.warmup_ratio + self.decay_ratio > 1
        check(self, "optim", ["warmup_ratio and decay_ratio together exceed 1"] * too_long)
