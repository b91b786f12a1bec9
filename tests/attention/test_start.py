"""What a training run says and does about its kernel when it starts."""

import dataclasses
import logging
import subprocess
import sys

import pytest
import yaml

from alpacare_jax import attention, sharding
from alpacare_jax.attention import check
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import ComputeConfig, LlamaConfig
from alpacare_jax.train.kernels import select_attention

MODEL = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, head_dim=16)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A data set, as far as kernels are concerned."""

    row_length: int = 128
    fullest: int = 9
    where: str = "packed"

    def most_segments(self) -> int:
        return self.fullest


@pytest.fixture(scope="module")
def mesh():
    return sharding.single_device_mesh()


def test_auto_becomes_the_kernel_of_the_platform(mesh, caplog):
    with caplog.at_level(logging.INFO):
        assert select_attention(ComputeConfig(), MODEL, Rows(), mesh).attention == "xla"
    assert "attention xla: first choice for cpu" in caplog.text


def test_a_kernel_that_was_asked_for_is_checked_and_its_errors_told(mesh, caplog):
    with caplog.at_level(logging.INFO):
        settled = select_attention(ComputeConfig(attention="chunked"), MODEL, Rows(), mesh)
    assert settled.attention == "chunked"
    assert "chunked agrees with plain fp32: values" in caplog.text


def test_a_kernel_of_another_platform_is_refused(mesh):
    with pytest.raises(ConfigError, match="cannot run here"):
        select_attention(ComputeConfig(attention="splash"), MODEL, Rows(), mesh)


@pytest.fixture
def hopper(monkeypatch, mesh):
    """Kernels are selected as on an H100, and taken to be right."""
    from alpacare_jax.attention import Check

    def here(dtype, head_dim, length, mesh=None):
        return attention.KernelContext(
            "gpu",
            "NVIDIA H100",
            dtype,
            head_dim,
            length,
            compute_capability=(9, 0),
            jax_version=(0, 12, 0),
        )

    def right(name, shapes, mesh, *, segments):
        return Check(name, 1e-2, dict.fromkeys(check.PARTS, 0.0), 0.0, None, 0.0)

    monkeypatch.setattr(check, "kernel_context", here)
    monkeypatch.setattr(check, "check_kernel", right)


@pytest.mark.usefixtures("hopper")
def test_rows_of_more_segments_than_a_kernel_takes_stop_the_run_that_asked_for_it(mesh):
    compute = ComputeConfig(dtype="bfloat16", attention="cudnn", attention_segments=16)
    assert select_attention(compute, MODEL, Rows(fullest=16), mesh).attention == "cudnn"
    with pytest.raises(ConfigError, match="cannot run here") as caught:
        select_attention(compute, MODEL, Rows(fullest=17), mesh)
    assert "a row has 17 segments" in str(caught.value)
    assert "compute.attention_segments is 16" in str(caught.value)


@pytest.mark.usefixtures("hopper")
def test_where_the_kernel_was_left_open_another_is_taken_for_such_rows(mesh, caplog):
    compute = ComputeConfig(dtype="bfloat16", attention_segments=16)
    assert select_attention(compute, MODEL, Rows(fullest=16), mesh).attention == "cudnn"
    with caplog.at_level(logging.INFO):
        assert select_attention(compute, MODEL, Rows(fullest=17), mesh).attention == "chunked"
    assert "cudnn: a row has 17 segments" in caplog.text


def test_a_misspelt_kernel_ends_the_command_before_anything_is_read(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "train_data": "none", "init": "none"}))
    command = [
        sys.executable,
        "-m",
        "alpacare_jax",
        "train",
        "--config",
        str(config),
        "compute.attention=splosh",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean splash?" in done.stderr
    assert "Traceback" not in done.stderr
