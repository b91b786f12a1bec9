"""Which kernel runs where, and what is said of kernels that do not exist or cannot run."""

import dataclasses

import pytest

from alpacare_jax.attention import KernelContext, select_kernel, unsupported_reason
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import ComputeConfig

TPU = KernelContext("tpu", "TPU v5 lite", "bfloat16", 128, 1024)
H100 = KernelContext(
    "gpu", "NVIDIA H100", "bfloat16", 128, 4096, compute_capability=(9, 0), jax_version=(0, 12, 0)
)
CPU = KernelContext("cpu", "cpu", "float32", 64, 512)


@pytest.mark.parametrize(
    ("here", "name", "fallback"),
    [
        (TPU, "splash", "chunked"),
        (dataclasses.replace(TPU, context=4), "splash", "chunked"),
        (dataclasses.replace(TPU, context=16), "chunked", "xla"),
        (H100, "cudnn", "chunked"),
        (dataclasses.replace(H100, has_tokamax=True), "cudnn", "tokamax"),
        (dataclasses.replace(H100, dtype="float32"), "chunked", "xla"),
        (dataclasses.replace(H100, head_dim=100), "chunked", "xla"),
        (dataclasses.replace(H100, context=2), "chunked", "xla"),
        (dataclasses.replace(H100, compute_capability=(8, 0)), "chunked", "xla"),
        (dataclasses.replace(H100, jax_version=(0, 11, 0)), "chunked", "xla"),
        (dataclasses.replace(H100, jax_version=(0, 11, 1)), "cudnn", "chunked"),
        (CPU, "xla", "chunked"),
        (dataclasses.replace(CPU, length=8192), "chunked", "xla"),
    ],
)
def test_the_platform_decides(here, name, fallback):
    choice = select_kernel(here)
    assert (choice.name, choice.fallback) == (name, fallback)


def test_a_kernel_that_was_refused_is_not_chosen_again():
    assert select_kernel(TPU, refused=["splash"]).name == "chunked"
    assert select_kernel(TPU, refused=["splash", "chunked"]).name == "xla"
    assert "splash: it was refused" in select_kernel(TPU, refused=["splash"]).reason


@pytest.mark.parametrize(
    ("asked", "here", "words"),
    [
        ("splash", CPU, "it is for TPUs, and these devices are cpu"),
        ("cudnn", CPU, "it is for NVIDIA GPUs"),
        (
            "cudnn",
            dataclasses.replace(H100, jax_version=(0, 10, 2)),
            "needs jax 0.11.1 or newer, and this is 0.10.2",
        ),
        ("cudnn", dataclasses.replace(H100, compute_capability=(8, 9)), "compute capability 9.0"),
        ("cudnn", dataclasses.replace(H100, dtype="float32"), "not float32"),
        ("tokamax", H100, "not installed"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused_with_the_reason_and_what_can(asked, here, words):
    with pytest.raises(ConfigError, match="cannot run here") as caught:
        select_kernel(here, asked)
    assert words in str(caught.value)
    assert select_kernel(here).name in str(caught.value)
    assert unsupported_reason(asked, here) is not None


@pytest.mark.parametrize(
    ("name", "near"), [("splosh", "splash"), ("cuddn", "cudnn"), ("chunk", "chunked"), ("XLA", "xla")]
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(name, near):
    with pytest.raises(ConfigError, match="no attention kernel of that name") as caught:
        ComputeConfig(attention=name)
    assert f"did you mean {near}?" in str(caught.value)
