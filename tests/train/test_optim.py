"""Optimisers and schedules by name: what they compute, what they refuse, and that every one of them learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.optim import OPTIMIZERS, SCHEDULES, OptimConfig, decays, make_optimizer, make_schedule

PARAMS = {
    "embed": jnp.ones((96, 64)),
    "norm": {"scale": jnp.ones((64,))},
    "layers": {
        "attention": {"query": jnp.ones((2, 64, 4, 16)), "out": jnp.ones((2, 4, 16, 64))},
        "mlp": {"gate": jnp.ones((2, 64, 128)), "down": jnp.ones((2, 128, 64))},
    },
}


def gradients(seed=0):
    leaves, tree = jax.tree.flatten(PARAMS)
    rng = np.random.default_rng(seed)
    return tree.unflatten([jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in leaves])


def one_update(**settings):
    optimizer = make_optimizer(OptimConfig(**{"learning_rate": 0.1, "warmup_ratio": 0.0} | settings), 100)
    return optimizer.update(gradients(), optimizer.init(PARAMS), PARAMS)[0]


def test_the_default_is_optax_adamw_behind_clipping():
    config = OptimConfig(learning_rate=0.1, weight_decay=0.1, warmup_ratio=0.1)
    ours = make_optimizer(config, 50)
    plain = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(make_schedule(config, 50), weight_decay=0.1, mask=decays),
    )
    states = [optimizer.init(PARAMS) for optimizer in (ours, plain)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1]), "checkpoints would not fit"
    for seed in range(3):
        (a, states[0]), (b, states[1]) = (
            optimizer.update(gradients(seed), state, PARAMS)
            for optimizer, state in zip((ours, plain), states, strict=True)
        )
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_spares_norms_and_what_is_named(name):
    without, with_decay = (
        one_update(name=name, weight_decay=decay, no_decay=("emb*", "layers.mlp.gate"))
        for decay in (0.0, 0.5)
    )
    changed = jax.tree.map(lambda a, b: float(np.abs(b - a).max()), without, with_decay)
    assert changed["embed"] == changed["norm"]["scale"] == changed["layers"]["mlp"]["gate"] == 0.0
    # Decoupled: rate x decay x parameter, whatever the optimiser.
    for found in (*changed["layers"]["attention"].values(), changed["layers"]["mlp"]["down"]):
        assert found == pytest.approx(0.1 * 0.5 * 1.0, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_takes_adapters_and_spares_the_norms_of_dora(name):
    parts = {"a": jnp.ones((2, 64, 4)), "b": jnp.ones((2, 4, 128)), "magnitude": jnp.ones((2, 128))}
    params = {"layers": {"mlp": {"gate": parts}}}
    updates = []
    for decay in (0.0, 0.5):
        settings = OptimConfig(name=name, learning_rate=0.1, warmup_ratio=0.0, weight_decay=decay)
        optimizer = make_optimizer(settings, 100)
        gradients = jax.tree.map(lambda x: x * 1e-2, params)
        updates.append(
            optimizer.update(gradients, optimizer.init(params), params)[0]["layers"]["mlp"]["gate"]
        )
    changed = jax.tree.map(lambda a, b: float(np.abs(b - a).max()), *updates)
    assert changed["magnitude"] == 0.0
    assert changed["a"] == changed["b"] == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_lion_moves_by_the_sign():
    sizes = np.unique(np.abs(np.concatenate([x.ravel() for x in jax.tree.leaves(one_update(name="lion"))])))
    assert sizes == pytest.approx([0.1])


def test_muon_orthogonalises_each_layers_matrix_and_moves_about_as_far_as_adamw():
    update = one_update(name="muon", b1=0.95)
    for layer in range(2):
        for matrix in (
            update["layers"]["attention"]["query"][layer].reshape(64, 64),
            update["layers"]["attention"]["out"][layer].reshape(64, 64),
            update["layers"]["mlp"]["gate"][layer],
        ):
            values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
            # Five steps of Newton and Schulz bring singular values near one another, not exactly together.
            assert values.max() / values.min() < 4
            assert np.sqrt(np.mean(np.square(matrix))) == pytest.approx(0.2 * 0.1, rel=0.25)
    assert np.array_equal(update["embed"], one_update(name="adamw", b1=0.95)["embed"])


def test_adafactor_keeps_rows_and_columns_only():
    wide = {"layers": {"mlp": {"gate": jnp.ones((2, 256, 512))}}}
    optimizer = make_optimizer(OptimConfig(name="adafactor"), 10)
    assert sum(x.size for x in jax.tree.leaves(optimizer.init(wide))) < 2 * (256 + 512) + 10


def test_wsd_stays_and_then_falls_to_zero():
    config = OptimConfig(learning_rate=1.0, schedule="wsd", warmup_ratio=0.1, decay_ratio=0.2)
    rate = make_schedule(config, steps=100)
    assert [float(rate(step)) for step in (0, 5, 10, 50, 80)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert float(rate(90)) == pytest.approx(0.5)
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_schedule_is_finite_and_bounded_for_the_shortest_runs(schedule, steps):
    rate = make_schedule(OptimConfig(schedule=schedule, learning_rate=1.0), steps)
    assert all(0 <= float(rate(step)) <= 1 for step in range(steps + 1))


@pytest.mark.parametrize(
    ("key", "found", "nearest"),
    [
        ("name", "adam", "adamw"),
        ("name", "adafctor", "adafactor"),
        ("schedule", "cosin", "cosine"),
        ("state_dtype", "int4", "int8"),
        ("state_dtype", "bf16", "bfloat16"),
        ("rounding", "stochastc", "stochastic"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(key, found, nearest):
    with pytest.raises(ConfigError) as caught:
        OptimConfig(**{key: found})
    assert found in str(caught.value)
    assert f"did you mean {nearest}?" in str(caught.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        OptimConfig(name="sgd", warmup_ratio=2, learning_rate=0)
    for part in ("sgd", "warmup_ratio", "learning_rate"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="together exceed 1"):
        dataclasses.replace(OptimConfig(schedule="wsd", warmup_ratio=0.5), decay_ratio=0.6)
