"""The parts of a step's time, its speed, and the steps of a trace."""

import dataclasses
import time

import jax.numpy as jnp
import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.flops import flops_per_row, matmul_parameters
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.recorder import Recorder, Throughput
from alpacare_jax.train.settings import LoopConfig, Schedule


@dataclasses.dataclass
class Stream:
    wait_s: float
    order: object = None


class Order:
    def window(self, start, stop):
        return list(range(start, stop))


def metrics(loss=1.0):
    values = {
        "loss": loss,
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "supervised_tokens": 5,
        "tokens": 80,
        "fill": 0.5,
    }
    return {name: jnp.float32(value) for name, value in values.items()}


def record(seen, **more):
    return Recorder(
        LoopConfig(batch_rows=8), Schedule(steps=9, batch_rows=8, epoch_rows=80), [seen.append], **more
    )


def test_the_parts_of_a_steps_time_add_up():
    seen: list = []
    recorder = record(seen)
    recorder.saved(0.2)
    time.sleep(0.35)
    recorder.begin(1, metrics(), Stream(0.05, Order()), 8)
    recorder.finish()
    (line,) = seen
    assert line["step_ms"] >= 350
    assert line["checkpoint_ms"] == pytest.approx(200)
    assert line["data_wait_ms"] == pytest.approx(50)
    parts = line["compute_ms"] + line["checkpoint_ms"] + line["data_wait_ms"]
    assert parts == pytest.approx(line["step_ms"])


def test_a_checkpoint_counts_for_one_step_alone():
    seen: list = []
    recorder = record(seen)
    recorder.saved(0.2)
    for step in (1, 2):
        recorder.begin(step, metrics(), Stream(0.0, Order()), 8 * step)
        recorder.finish()
    assert [line["checkpoint_ms"] for line in seen] == [pytest.approx(200), 0]


def test_the_speed_of_a_step_is_its_rows_operations_over_its_time():
    seen: list = []
    recorder = record(seen, meter=Throughput(flops_per_row=1e12, devices=2, peak_flops=1e14))
    time.sleep(0.1)
    recorder.begin(1, metrics(), Stream(0.0, Order()), 8)
    recorder.finish()
    (line,) = seen
    assert line["tflops_per_device"] == pytest.approx(8 * 1e12 / (line["step_ms"] / 1e3) / 2 / 1e12)
    assert line["mfu"] == pytest.approx(line["tflops_per_device"] / 100)


def test_without_a_known_peak_there_is_no_utilisation():
    assert "mfu" not in Throughput(1e12, 1).figures(8, 1.0)


def test_operations_are_those_counted_by_hand():
    shape = LlamaConfig(
        vocab_size=7, hidden_size=4, intermediate_size=6, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=2,
    )  # fmt: skip
    # Query and output 4 x 4 each, key and value 4 x 2 each, three of 4 x 6 in the feed-forward layer.
    by_hand = 3 * (2 * 16 + 2 * 8 + 3 * 24) + 7 * 4
    assert matmul_parameters(shape) == by_hand
    # Five queries see 2.5 keys on average; two products of 2 x 2 operations a key and head dimension.
    attention = 3 * 5 * 2.5 * 2 * 2 * (2 * 2)
    assert flops_per_row(shape, 5) == 3 * (2 * by_hand * 5 + attention)
    assert flops_per_row(shape, 5, trained=False) == 2 * 2 * by_hand * 5 + 3 * attention


@pytest.mark.parametrize("text", ["3", "0:4", "5:4", "a:b", "1:", ":2", "-1:3"])
def test_steps_to_trace_that_are_none_are_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="first:last"):
        Profile.parse(text, tmp_path)
