"""Training some parameters beside others that are frozen: on every mesh, in any number of microbatches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marking import slow_but

from alpacare_jax import sharding
from alpacare_jax.adapters import AdapterConfig, Partition, merge
from alpacare_jax.data.loader import SequenceOrder
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig
from alpacare_jax.model.params import flatten
from alpacare_jax.sharding import MeshConfig
from alpacare_jax.train import TrainStep
from alpacare_jax.train.inputs import first_batches

TINY = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
)
BATCH_ROWS, ROW = 8, 16


def random_batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, TINY.vocab_size, (BATCH_ROWS, ROW), dtype=np.int32)
    segments = np.repeat(np.array([[1, 2]], np.int32), ROW // 2, axis=1).repeat(BATCH_ROWS, axis=0)
    positions = np.tile(np.arange(ROW // 2, dtype=np.int32), (BATCH_ROWS, 2))
    mask = (positions > 1).astype(np.int32)
    return {"tokens": tokens, "segment_ids": segments, "positions": positions, "loss_mask": mask}


def make(mesh, *, microbatches=1, compute=None, **method):
    return TrainStep(
        Architecture(TINY, compute or ComputeConfig()),
        optax.adam(1e-2),
        lambda _: 1e-2,
        mesh,
        microbatches,
        **method,
    )


@functools.cache
def first_params():
    return jax.device_get(Architecture(TINY).init(0, sharding.single_device_mesh()))


def params_on(architecture, mesh):
    """The same first parameters for every test, drawn once."""
    dtype = jnp.dtype(architecture.compute.param_dtype)
    return jax.tree.map(
        lambda leaf, place: jax.device_put(leaf.astype(dtype), place),
        first_params(),
        architecture.shardings(mesh),
    )


def after_steps(mesh, steps=2, **method):
    """Loss of each step, what is trained after them, and the last state."""
    train_step = make(mesh, **method)
    with sharding.use_mesh(mesh):
        state = train_step.start(params_on(train_step.partition.base, mesh))
        batch = jax.device_put(random_batch(), sharding.batch_sharding(mesh))
        take_step, losses = train_step.compile_step(), []
        for _ in range(steps):
            state, metrics = take_step(state, batch)
            losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.params), state


METHODS = {
    "lora": {"adapter": AdapterConfig(kind="lora", rank=4, targets=("query", "down"))},
    "rslora on int4": {"adapter": AdapterConfig(kind="rslora", rank=4, base="int4")},
    "dora on nf4 with noise": {
        "adapter": AdapterConfig(
            kind="dora", rank=4, base="nf4", dropout=0.1, targets=("query", "out", "up")
        ),
        "neftune_alpha": 5.0,
    },
    "frozen paths": {"freeze": ("embed", "layers.1", "layers.*.attention.key")},
}


@functools.cache
def on_one_device(name):
    """What :func:`after_steps` returns for a method on one device, computed once."""
    return after_steps(sharding.single_device_mesh(), **METHODS[name])


def assert_close(found, expected, most):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found[1]), jax.tree.leaves(expected[1]), strict=True
    ):
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-6)
        assert error <= most, f"{jax.tree_util.keystr(path)}: {error:.1e}"


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["rslora on int4", "frozen paths"], ["rslora on int4", "dora on nf4 with noise", "frozen paths"]
    ),
)
def test_eight_devices_and_microbatches_train_what_one_device_does(name):
    expected = on_one_device(name)
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, tensor=2, context=2))
    # Adam divides by the root of the square: where a gradient is nothing but rounding, two steps can differ a little.
    assert_close(after_steps(mesh, microbatches=2, **METHODS[name]), expected, most=1e-3)


@pytest.mark.parametrize(
    "name", slow_but(["lora", "rslora on int4"], ["lora", "rslora on int4", "dora on nf4 with noise"])
)
def test_the_base_has_neither_gradients_nor_optimiser_state_and_keeps_its_bits(name):
    mesh = sharding.single_device_mesh()
    train_step = make(mesh, **METHODS[name])
    before = jax.device_get(
        train_step.partition.freeze_base(params_on(train_step.partition.base, mesh), mesh)
    )
    _, _, state = on_one_device(name)
    for a, b in zip(jax.tree.leaves(jax.device_get(state.frozen)), jax.tree.leaves(before), strict=True):
        assert np.array_equal(a, b)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer))
    assert moments <= 2 * trained + 8
    assert trained < 0.2 * TINY.parameter_count
    assert "frozen" not in train_step.saved(state)


def test_a_base_in_the_compute_dtype_changes_no_number():
    mesh, compute = sharding.single_device_mesh(), ComputeConfig("bfloat16")
    adapters = [
        AdapterConfig(kind="lora", rank=4, targets=("query", "down"), base=base)
        for base in ("auto", "float32")
    ]
    losses = [after_steps(mesh, compute=compute, adapter=adapter)[0] for adapter in adapters]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("kind", "base"),
    slow_but(
        [("lora", "auto"), ("dora", "nf4")],
        [("lora", "auto"), ("lora", "int4"), ("rslora", "int8"), ("dora", "nf4")],
    ),
)
def test_merged_weights_give_the_logits_of_base_and_adapters(kind, base):
    mesh = sharding.make_mesh(MeshConfig(fsdp=4, tensor=2))
    partition = Partition(Architecture(TINY), AdapterConfig(kind=kind, rank=4, base=base))
    tokens = random_batch()["tokens"]
    with sharding.use_mesh(mesh):
        trained, frozen = partition.split(params_on(partition.base, mesh), 0, mesh)
        rng = np.random.default_rng(0)
        trained = jax.tree.map(
            lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype(np.float32), trained
        )
        joined = partition.join(trained, frozen)
        beside = jax.jit(lambda params: partition.architecture.model(params)(tokens))(joined)
        merged = merge(joined, "float32", partition.architecture.shardings(mesh))
        alone = jax.jit(lambda params: partition.architecture.model(params)(tokens))(merged)
    assert np.abs(np.asarray(beside) - np.asarray(alone)).max() <= 1e-5
    assert {name: leaf.shape for name, leaf in flatten(merged).items()} == {
        name: leaf.shape for name, leaf in flatten(Architecture(TINY).abstract()).items()
    }


def test_a_start_as_the_residual_takes_back_most_of_what_quantising_did_on_every_mesh():
    adapter = AdapterConfig(
        kind="rslora", rank=16, base="nf4", start="residual", targets=("query", "out", "up")
    )
    away = {}
    for mesh in (sharding.single_device_mesh(), sharding.make_mesh(MeshConfig(fsdp=4, tensor=2))):
        for start in ("zero", "residual"):
            train_step = make(mesh, adapter=dataclasses.replace(adapter, start=start))
            with sharding.use_mesh(mesh):
                batch = jax.device_put(random_batch(), sharding.batch_sharding(mesh))
                state = train_step.start(params_on(train_step.partition.base, mesh), [batch])
                weight = flatten(train_step.model_params(state))["layers.mlp.up"]
                away[start, mesh.size] = np.asarray(jax.lax.map(lambda layer: layer.dense(), weight))
    whole = np.asarray(flatten(first_params())["layers.mlp.up"])
    taken, left = (np.linalg.norm(away[start, 1] - whole) for start in ("zero", "residual"))
    assert left < 0.8 * taken
    assert np.linalg.norm(away["residual", 8] - away["residual", 1]) < 1e-2 * taken


@pytest.mark.parametrize(
    ("shape", "rows", "microbatches", "start_rows", "at_once", "in_all"),
    [
        ({"fsdp": 1}, 16, 4, 8, 4, 8),
        ({"fsdp": 1}, 16, 4, 6, 3, 6),
        ({"fsdp": 1}, 16, 1, 4, 4, 4),
        ({"fsdp": 1}, 4, 2, 7, 1, 7),
        ({"data": 2, "fsdp": 4}, 32, 2, 64, 16, 64),
        ({"data": 2, "fsdp": 2, "context": 2}, 16, 1, 9, 12, 12),
    ],
)
def test_the_start_sees_as_many_rows_as_asked_and_no_more_at_once_than_a_step(
    shape, rows, microbatches, start_rows, at_once, in_all
):
    count = len(jax.devices()) if len(shape) > 1 else 1
    mesh = sharding.make_mesh(MeshConfig(**shape), jax.devices()[:count])
    data = [{name: np.full(ROW, row, np.int32) for name in random_batch()} for row in range(100)]
    most = rows // microbatches
    pieces = [piece["tokens"] for piece in first_batches(data, 3, mesh, rows=start_rows, at_once=most)]
    assert {piece.shape for piece in pieces} == {(at_once, ROW)}
    assert {piece.sharding for piece in pieces} == {sharding.batch_sharding(mesh)}
    seen = np.concatenate(pieces)[:, 0].tolist()
    assert seen == list(SequenceOrder(len(data), 3).window(0, in_all)), "the rows the run starts with"


def test_frozen_layers_keep_their_bits_and_the_others_learn():
    mesh = sharding.single_device_mesh()
    method = METHODS["frozen paths"]
    train_step = make(mesh, **method)
    before = flatten(first_params())
    _, _, state = on_one_device("frozen paths")
    after = flatten(jax.device_get(train_step.saved(state)["params"]))
    assert np.array_equal(after["embed"], before["embed"])
    for name in before:
        if name.startswith("layers."):
            kept = [np.array_equal(after[name][layer], before[name][layer]) for layer in range(3)]
            assert kept == ([True] * 3 if name.endswith(".key") else [False, True, False]), name
    again = train_step.resume(train_step.saved(state), lambda: pytest.fail("the checkpoint has everything"))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        assert np.array_equal(a, b)


def test_weights_of_which_layers_are_frozen_are_not_kept_whole_beside_their_parts():
    mesh = sharding.single_device_mesh()
    train_step = make(mesh, **METHODS["frozen paths"])
    params = params_on(train_step.partition.base, mesh)
    held = flatten(params)
    trained, frozen = (flatten(part) for part in train_step.partition.split(params, 0, mesh))
    both = sorted(set(trained) & set(frozen))
    assert both
    assert sorted(name for name, leaf in held.items() if leaf.is_deleted()) == both


def test_gradients_beside_frozen_weights_are_those_of_full_training():
    mesh = sharding.single_device_mesh()
    full, part = make(mesh), make(mesh, freeze=("embed", "layers.0"))
    params = params_on(Architecture(TINY), mesh)
    _, expected = jax.jit(full.loss_and_grads)(params, random_batch())
    trained, frozen = part.partition.split(params, 0, mesh)
    _, found = jax.jit(part.loss_and_grads)(trained, random_batch(), frozen)
    assert "embed" not in found
    for name, grad in flatten(found).items():
        wanted = flatten(expected)[name]
        wanted = wanted[1:] if name.startswith("layers.") else wanted
        assert np.allclose(grad, wanted, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "lorra"}, "did you mean lora?"),
        ({"kind": "lora", "targets": ("quary",)}, "did you mean query?"),
        ({"kind": "lora", "targets": ("query", "query")}, "none of them twice"),
        ({"kind": "lora", "base": "nf5"}, "did you mean nf4?"),
        ({"kind": "lora", "rank": 0}, "rank must be at least 1 and at most 65,536, not 0"),
        ({"kind": "lora", "alpha": 0.0}, "alpha must be above 0"),
        ({"kind": "lora", "dropout": 1.0}, "dropout must be"),
        ({"base": "nf4"}, "only frozen weights can be quantised"),
        ({"kind": "lora", "start": "residuals"}, "did you mean residual?"),
        ({"kind": "lora", "start": "residual"}, "start 'residual' needs a base in"),
        ({"kind": "dora", "base": "nf4", "start": "residual"}, "start 'residual' needs a base in"),
        ({"kind": "lora", "start_rows": 0}, "start_rows must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match="adapter") as caught:
        AdapterConfig(**settings)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("adapter", "freeze", "named"),
    [
        (
            AdapterConfig(kind="lora", rank=65, targets=("query", "key")),
            (),
            "query is 64 x 128, key is 64 x 64",
        ),
        (AdapterConfig(kind="lora", rank=4), ("layers.0.mlp",), "train.freeze matches an adapted weight"),
        (AdapterConfig(kind="lora", rank=4), ("layers.7",), "'layers.7' matches no parameter"),
        (AdapterConfig(), ("layers.*.atention.*",), "near it: layers.*.attention.*"),
        (AdapterConfig(), ("embedding",), "near it: embed"),
        (AdapterConfig(), ("*",), "nothing is left to train"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(adapter, freeze, named):
    with pytest.raises(ConfigError) as caught:
        Partition(
            Architecture(dataclasses.replace(TINY, tie_word_embeddings=True)), adapter, freeze
        ).abstract_on(sharding.single_device_mesh())
    assert named in str(caught.value)


def test_an_adapter_beside_a_path_that_is_frozen_anyway_is_no_error():
    Partition(
        Architecture(TINY),
        AdapterConfig(kind="lora", rank=4, targets=("up",)),
        ("embed", "layers.0.attention"),
    )


def test_the_adapters_of_a_seed_are_the_same_on_every_mesh():
    partition = Partition(Architecture(TINY), AdapterConfig(kind="lora", rank=4))
    drawn = []
    for mesh in (sharding.single_device_mesh(), sharding.make_mesh(MeshConfig(fsdp=8))):
        params = params_on(partition.base, mesh)
        drawn.append(flatten(jax.device_get(partition.split(params, 3, mesh)[0])))
    assert all(np.array_equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
