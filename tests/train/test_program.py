"""A run whose step cannot fit is refused before it takes memory."""

import dataclasses

import pytest

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.train import RunConfig
from alpacare_jax.train.program import check_state_fits, compile_fitting, memory_limit

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=16,
)


@pytest.fixture(scope="module")
def train_step():
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=8))
    return RunConfig(out="", train_data="", architecture="llama2-7b").train_step(TINY, 10, mesh)


def test_what_does_not_fit_is_refused_with_what_to_change(train_step):
    with pytest.raises(ConfigError) as caught:
        compile_fitting(train_step, 8, 32, limit=100_000)
    message = str(caught.value)
    assert "does not fit" in message
    assert "8 rows" in message
    assert "train.microbatches" in message


def test_what_fits_goes_on(train_step, caplog):
    with caplog.at_level("INFO", logger="alpacare.train"):
        compile_fitting(train_step, 8, 32, limit=1 << 30)
    assert "of 1.00 GiB per device" in caplog.text


def test_a_device_that_names_no_limit_is_not_asked(train_step):
    assert memory_limit(train_step.mesh.devices.flat[0]) is None
    check_state_fits(train_step, 8, limit=None)
    assert compile_fitting(train_step, 8, 32, limit=None)


def test_a_state_that_does_not_fit_is_refused_without_the_compiler(train_step):
    wrong = dataclasses.replace(train_step, microbatches=3)  # no step of it could be compiled
    with pytest.raises(ConfigError, match="does not fit"):
        check_state_fits(wrong, 8, limit=10_000)
    check_state_fits(wrong, 8, limit=1 << 30)
