"""How the model computes, apart from what it is: dtypes, what the backward pass recomputes, kernels."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax

from alpacare_jax import attention
from alpacare_jax.attention import SEGMENTS
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import fp8
from datagen.configuration import Range, check

LAYER_INPUT = "layer_input"
PROJECTIONS = ("query", "key", "value", "attention_out", "gate", "up")
"""Results of a layer's matrix products that its backward pass needs; the last one, "mlp_out", it does not."""

_save = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": _save.nothing_saveable,
    "projections": _save.save_only_these_names(*PROJECTIONS),
    "attention": _save.save_from_both_policies(
        _save.save_only_these_names(attention.RESIDUALS), attention.keeps_packed
    ),
    "products": _save.save_from_both_policies(
        _save.save_only_these_names(*PROJECTIONS, attention.RESIDUALS), attention.keeps_packed
    ),
    "offload": _save.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "dots": _save.dots_with_no_batch_dims_saveable,
}
"""What is kept of a layer for its backward pass, by name; everything else is computed again."""

WHOLE_LAYERS = ("full", "offload")
"""Policies under which a layer is computed again from its input."""

DTYPES = ("float32", "bfloat16")
LOSS_TILINGS = ("auto", "tokens", "vocabulary")


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How the model computes, apart from what it is.

    Args:
        dtype: Dtype of activations and matrix products, "float32" or "bfloat16". Logits, softmax, norms and the
            loss are fp32 always.
        param_dtype: Dtype in which parameters are stored. With "bfloat16", ``optim.rounding: stochastic`` keeps
            small updates from being lost.
        grad_dtype: Dtype in which gradients are kept and summed over microbatches. "bfloat16" halves their memory
            and needs ``dtype: bfloat16``.
        remat: What the backward pass computes again. "none": nothing. "full": all but each layer's input.
            "projections": all but the matrix products. "attention": as "full", without attention itself. "products":
            neither matrix products nor attention, only what stands between them. "offload": as "full", with the
            layers' inputs in the host's memory. "dots": all but what matrix products give without a batch axis,
            whatever its name.
        precision: Of fp32 matrix products. "default" is the platform's fastest. "highest" is for comparing models:
            full fp32 on accelerators, and on CPUs sums in blocks, which halves the rounding error for about a
            quarter more time.
        matmul: "default", or "fp8" for the layers' matrix products in 8-bit floats
            (``alpacare_jax.model.fp8``): GPUs of compute capability 8.9 and up, with ``dtype: bfloat16``.
        attention: Kernel of attention within packed rows, a name of ``alpacare_jax.attention.KERNELS``; "auto"
            takes the one that suits the platform.
        attention_segments: Most segments of a row, its padding counted as one, for the kernel "cudnn", whose buffers
            grow with it.
        loss: How the loss is cut into pieces: by "tokens", which is faster, or by "vocabulary", which takes the
            least memory; "auto" takes the first for small output projections, and on GPUs for many tokens.
        loss_chunk_mib: About how many MiB of logits exist at once on a device. None: 96, on GPUs a sixteenth of the
            logits by "tokens" and a thirty-second by "vocabulary", where that is more.
        layer_rows: Most rows of a device that go through a layer at once; the others wait, so that a layer's
            activations are those of a part of the batch. None takes all. Needs ``remat`` "full" or "offload".
    """

    dtype: Annotated[str, DTYPES] = "float32"
    param_dtype: Annotated[str, DTYPES] = "float32"
    grad_dtype: Annotated[str, DTYPES] = "float32"
    remat: Annotated[str, tuple(REMAT_POLICIES)] = "none"
    precision: Annotated[str, ("default", "highest")] = "default"
    matmul: Annotated[str, ("default", fp8.NAME)] = "default"
    attention: str = attention.AUTO
    attention_segments: Annotated[int, Range(2, 1_000_000)] = SEGMENTS
    loss: Annotated[str, LOSS_TILINGS] = "auto"
    loss_chunk_mib: Annotated[int | None, Range(1, 1_000_000)] = None
    layer_rows: Annotated[int | None, Range(1, 131_072)] = None

    def __post_init__(self) -> None:
        attention.check_name(self.attention)
        check(self, "compute")
        if self.matmul == fp8.NAME and (self.dtype != "bfloat16" or self.precision != "default"):
            raise ConfigError(
                "`compute.matmul: fp8` requires dtype bfloat16 and precision default",
                where="compute.matmul",
                found=f"fp8, with compute.dtype {self.dtype} and compute.precision {self.precision}",
                remedy="set compute.dtype to bfloat16 and compute.precision to default",
            )
        if self.grad_dtype == "bfloat16" and self.dtype != "bfloat16":
            raise ConfigError(
                "`compute.grad_dtype: bfloat16` requires `compute.dtype: bfloat16`",
                where="compute.grad_dtype",
                found=f"bfloat16, with compute.dtype {self.dtype}",
                remedy="set compute.dtype to bfloat16, or leave compute.grad_dtype out",
            )
        if self.layer_rows is not None and self.remat not in WHOLE_LAYERS:
            raise ConfigError(
                "`compute.layer_rows` requires remat `full` or `offload`",
                where="compute.layer_rows",
                found=f"{self.layer_rows}, with compute.remat {self.remat}",
                expected=f"compute.remat {' or '.join(WHOLE_LAYERS)}",
            )
