"""The guard against bad gradients, and the noise on embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, LlamaConfig
from alpacare_jax.train import TrainStep
from alpacare_jax.train.guard import FIRST, GuardConfig
from alpacare_jax.train.noise import neftune, row_keys


def judge(config, norms, losses=None):
    """Which of a series of norms are sound, and the state after them."""
    state, sound = config.start(), []
    for norm, loss in zip(norms, losses or [1.0] * len(norms), strict=True):
        good = config.is_sound(state, jnp.float32(loss), jnp.float32(norm))
        state = config.after(state, good, jnp.float32(norm))
        sound.append(bool(good))
    return sound, {name: np.asarray(value) for name, value in state.items()}


def test_a_spike_is_a_norm_far_above_the_median_of_the_sound_ones():
    config = GuardConfig("skip", factor=3.0, window=8)
    norms = [1, 2, 1, 2, 1, 2, 1, 2, 100, 100, 5.9, 2, float("nan"), 2]
    sound, state = judge(config, norms)
    # From the ninth step on: the lower median of eight norms is 1, so 3 is the limit.
    assert sound == [True] * 8 + [False, False, False, True, False, True]
    assert state["skipped"] == 4
    assert state["in_a_row"] == 0
    assert state["taken"] == 10
    assert np.isfinite(state["norms"]).all(), "what was skipped is not remembered"


def test_nothing_is_a_spike_before_enough_steps_are_known():
    sound, state = judge(GuardConfig("skip", factor=2.0), [1.0] * (FIRST - 1) + [1e6])
    assert all(sound)
    assert state["taken"] == FIRST


def test_without_a_factor_only_what_is_not_finite_is_bad():
    config = GuardConfig("skip")
    sound, state = judge(config, [1.0] * 10 + [1e30, 1.0], [1.0] * 11 + [float("inf")])
    assert sound == [True] * 11 + [False]
    assert state["in_a_row"] == 1


def test_a_bad_step_leaves_everything_as_it_was():
    mesh, shape = sharding.single_device_mesh(), LlamaConfig(32, 8, 16, 1, 2, 2, 4)
    step = TrainStep(Architecture(shape), optax.adam(1e-2), lambda _: 1e-2, mesh, guard=GuardConfig("skip"))
    ones = jnp.ones((1, 4), jnp.int32)
    batch = dict.fromkeys(("tokens", "segment_ids", "positions", "loss_mask"), ones)
    with sharding.use_mesh(mesh):
        params = step.architecture.init(0, mesh)
        params["embed"] = params["embed"].at[0, 0].set(jnp.nan).at[1, 0].set(jnp.inf)
        state = step.start(params)
        before = jax.device_get((state.params, state.optimizer))
        state, metrics = step.compile_step()(state, batch)
    assert not metrics["sound"]
    assert (int(state.step), int(metrics["skipped"])) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get((state.params, state.optimizer)), before)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"action": "skp"}, "action: 'skp' is not one of stop, skip"),
        ({"factor": 0.5}, "factor must be above 1"),
        ({"window": 2}, "window must be at least 8"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(settings, named):
    with pytest.raises(ConfigError, match="guard") as caught:
        GuardConfig(**settings)
    assert named in str(caught.value)


def test_noise_is_as_strong_as_the_paper_says_for_each_segment():
    width, lengths = 32, (4, 12)
    positions = np.concatenate([np.arange(length) for length in lengths])[None].astype(np.int32)
    segments = np.repeat([1, 2], lengths)[None].astype(np.int32)
    keys = row_keys(0, jnp.int32(3), jnp.arange(1))
    noise = np.asarray(neftune(5.0, keys, positions, segments)(jnp.zeros((1, 16, width))))[0]
    for segment, length in ((1, 4), (2, 12)):
        bound = 5.0 / np.sqrt(length * width)
        mine = np.abs(noise[segments[0] == segment])
        assert 0.9 * bound < mine.max() <= bound


def test_noise_depends_on_step_and_row_and_on_nothing_else():
    def draw(step, rows):
        keys = row_keys(0, jnp.int32(step), jnp.asarray(rows))
        ones = np.ones((len(rows), 4), np.int32)
        positions = np.tile(np.arange(4, dtype=np.int32), (len(rows), 1))
        return np.asarray(neftune(5.0, keys, positions, ones)(jnp.zeros((len(rows), 4, 8))))

    whole = draw(1, [0, 1, 2, 3])
    assert np.array_equal(whole[[2, 0]], draw(1, [2, 0]))
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(whole, draw(2, [0, 1, 2, 3]))
    assert np.array_equal(whole, draw(1, [0, 1, 2, 3]))
