"""The same maths whatever the mesh, the packing and the number of microbatches: loss and gradients in fp32."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from marking import slow_but

from alpacare_jax import collectives, sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.loss import loss_sum
from alpacare_jax.model import Architecture, ComputeConfig, LlamaConfig, RopeConfig
from alpacare_jax.optim import OptimConfig, make_optimizer, make_schedule
from alpacare_jax.sharding import MeshConfig
from alpacare_jax.train import TrainStep

TINY = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=8,
    initializer_range=0.1,
)

MESHES = {
    "fsdp": MeshConfig(fsdp=8),
    "data": MeshConfig(data=8, fsdp=1),
    "tensor": MeshConfig(fsdp=2, tensor=4),
    "fsdp-tensor": MeshConfig(fsdp=4, tensor=2),
    "context": MeshConfig(fsdp=1, context=8),
    "data-fsdp": MeshConfig(data=2, fsdp=4),
    "fsdp-context": MeshConfig(fsdp=4, context=2),
    "mixed": MeshConfig(fsdp=2, tensor=2, context=2),
}


def random_batch(rows=8, length=32, seed=0):
    """Rows of several segments of random lengths, padded at the end."""
    rng = np.random.default_rng(seed)
    batch = {
        name: np.zeros((rows, length), np.int32)
        for name in ("tokens", "segment_ids", "positions", "loss_mask")
    }
    batch["tokens"][:] = rng.integers(0, TINY.vocab_size, (rows, length))
    for row in range(rows):
        at = 0
        for segment in range(1, 5):
            size = int(rng.integers(3, 9))
            cut = slice(at, at + size)
            batch["segment_ids"][row, cut] = segment
            batch["positions"][row, cut] = np.arange(size)
            batch["loss_mask"][row, at + 2 : at + size] = 1
            at += size
    return batch


def loss_and_grads(mesh_config, batch, **options):
    return compiled_loss_and_grads(mesh_config, batch, **options)[:2]


def compiled_loss_and_grads(mesh_config, batch, *, devices=None, microbatches=1, config=TINY):
    """Return loss, gradients and the text of the compiled program."""
    mesh = sharding.make_mesh(mesh_config, devices)
    architecture = Architecture(config)
    optim = OptimConfig()
    train_step = TrainStep(
        architecture, make_optimizer(optim, 10), make_schedule(optim, 10), mesh, microbatches
    )
    with sharding.use_mesh(mesh):
        params = architecture.init(0, mesh)
        placed = jax.device_put(batch, sharding.batch_sharding(mesh))
        program = jax.jit(train_step.loss_and_grads).lower(params, placed).compile()
        loss, grads = program(params, placed)
    return float(loss), jax.device_get(grads), program.as_text()


def assert_close(found, expected, rtol=1e-5):
    (found_loss, found_grads), (loss, grads) = found, expected
    assert found_loss == pytest.approx(loss, rel=rtol)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found_grads), jax.tree.leaves(grads), strict=True
    ):
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error <= rtol, f"{jax.tree_util.keystr(path)}: relative error {error:.2e}"


@pytest.fixture(scope="module")
def on_one_device():
    return loss_and_grads(MeshConfig(fsdp=1), random_batch(), devices=jax.devices()[:1])


@pytest.mark.parametrize("name", slow_but(["fsdp", "tensor", "context", "mixed"], MESHES))
def test_every_mesh_of_eight_devices_gives_the_loss_and_gradients_of_one(name, on_one_device):
    assert_close(loss_and_grads(MESHES[name], random_batch()), on_one_device)


COMMUNICATES = re.compile(r" (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(-start)?\(")


def loops_that_communicate(program):
    """Find the loops of a compiled program in whose bodies devices communicate, at any depth."""
    bodies = dict(re.findall(r"^(?:ENTRY )?(%[\w.-]+) [^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL))

    def communicates(name):
        text = bodies[name]
        inner = set(re.findall(r"%[\w.-]+", text)) & bodies.keys() - {name}
        return bool(COMMUNICATES.search(text)) or any(map(communicates, inner))

    loops = re.findall(r" while\(.*?body=(%[\w.-]+)", program)
    return [loop for loop in loops if communicates(loop)]


@pytest.mark.parametrize(
    ("name", "microbatches", "tied"),
    slow_but(
        [("tensor", 1, True), ("mixed", 2, False)],
        [("fsdp", 1, False), ("tensor", 1, True), ("fsdp-context", 2, False), ("mixed", 2, False)],
    ),
)
def test_over_gloo_no_loop_communicates_and_sums_are_not_scattered(name, microbatches, tied, monkeypatch):
    config = dataclasses.replace(TINY, tie_word_embeddings=tied)
    usual = compiled_loss_and_grads(MESHES[name], random_batch(), config=config, microbatches=microbatches)
    assert loops_that_communicate(
        usual[2]
    )  # so the program is read rightly; over Gloo it may have no loop at all
    monkeypatch.setattr(collectives, "over_gloo", lambda: True)
    over_gloo = compiled_loss_and_grads(
        MESHES[name], random_batch(), config=config, microbatches=microbatches
    )
    assert not loops_that_communicate(over_gloo[2])
    assert "reduce-scatter(" not in over_gloo[2]
    assert_close(over_gloo[:2], usual[:2])


@pytest.mark.parametrize("name", slow_but(["mixed"], ["tensor", "mixed"]))
def test_rows_whose_length_the_tensor_axis_does_not_divide_give_the_same(name):
    batch = random_batch(length=34)
    one = loss_and_grads(MeshConfig(fsdp=1), batch, devices=jax.devices()[:1])
    assert_close(loss_and_grads(MESHES[name], batch), one)


@pytest.mark.parametrize(("length", "kept"), [(32, 8), (34, 34)])
def test_layers_keep_their_part_of_a_row_for_the_backward_pass(length, kept):
    mesh = sharding.make_mesh(MeshConfig(fsdp=2, tensor=4))
    architecture = Architecture(TINY, ComputeConfig(remat="full"))
    batch = jax.device_put(random_batch(length=length), sharding.batch_sharding(mesh))
    with sharding.use_mesh(mesh):
        params = architecture.init(0, mesh)
        step = jax.jit(jax.grad(lambda params: loss_sum(architecture.model(params), batch)))
        text = step.lower(params).compile().as_text()
    # 2 layers, 4 rows a device, their length, the model's width.
    inputs = {int(size) for size in re.findall(r"f32\[2,4,(\d+),32\]", text)}
    assert inputs == {kept}


@pytest.mark.parametrize("microbatches", slow_but([8], [2, 4, 8]))
def test_accumulation_equals_the_large_batch(microbatches, on_one_device):
    found = loss_and_grads(
        MeshConfig(fsdp=1), random_batch(), devices=jax.devices()[:1], microbatches=microbatches
    )
    assert_close(found, on_one_device)


def test_accumulation_on_a_mesh_equals_the_large_batch_on_one_device(on_one_device):
    assert_close(
        loss_and_grads(MeshConfig(fsdp=2, tensor=2, context=2), random_batch(), microbatches=4), on_one_device
    )


@pytest.fixture(scope="module")
def uneven():
    """A batch in which some rows have no supervised token and some have many: every microbatch weighs otherwise."""
    batch = random_batch()
    batch["loss_mask"][[0, 3, 5]] = 0
    batch["loss_mask"][1, 8:] = 0
    return batch, loss_and_grads(MeshConfig(fsdp=1), batch, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("name", "microbatches"),
    slow_but(
        [("fsdp", 1), ("mixed", 2)],
        [("fsdp", 1), *((name, count) for name in ("tensor", "context", "mixed") for count in (1, 2))],
    ),
)
def test_rows_without_targets_weigh_nothing_on_any_mesh(name, microbatches, uneven):
    batch, expected = uneven
    assert_close(loss_and_grads(MESHES[name], batch, microbatches=microbatches), expected)


def test_a_row_without_targets_changes_neither_loss_nor_gradients(uneven):
    batch, expected = uneven
    with_targets = {name: values[[1, 2, 4, 6, 7]] for name, values in batch.items()}
    assert_close(loss_and_grads(MeshConfig(fsdp=1), with_targets, devices=jax.devices()[:1]), expected)


@pytest.mark.parametrize("name", ["fsdp", "mixed"])
def test_a_batch_without_any_target_has_no_loss_and_no_gradient(name):
    batch = random_batch()
    batch["loss_mask"][:] = 0
    loss, grads = loss_and_grads(MESHES[name], batch, microbatches=1 if name == "fsdp" else 2)
    assert loss == 0.0
    assert all(not np.any(grad) for grad in jax.tree.leaves(grads))


ROPES = {
    "default": RopeConfig(),
    "dynamic": RopeConfig(kind="dynamic", factor=2.0),
    "llama3": RopeConfig(kind="llama3", factor=8.0, original_max_position_embeddings=8),
}


@pytest.mark.parametrize("rope", ROPES)
def test_packed_segments_give_the_loss_and_gradients_of_the_separate_examples(rope):
    # Segments of up to 8 tokens are longer than the 4 positions known, so that dynamic scaling is at work.
    config = dataclasses.replace(TINY, rope=ROPES[rope], max_position_embeddings=4)
    batch = random_batch(rows=2)
    architecture = Architecture(config)
    params = architecture.init(0, sharding.single_device_mesh())

    def summed(params, batch):
        return loss_sum(architecture.model(params), batch)

    packed_loss, packed_grads = jax.jit(jax.value_and_grad(summed))(params, batch)
    # One example a row, padded to the longest: what training without packing does.
    alone = {name: np.zeros((8, 8), np.int32) for name in batch}
    for row in range(2):
        for segment in range(1, 5):
            (where,) = np.nonzero(batch["segment_ids"][row] == segment)
            for name, values in batch.items():
                alone[name][4 * row + segment - 1, : len(where)] = (
                    1 if name == "segment_ids" else values[row, where]
                )
    step = jax.jit(jax.value_and_grad(summed))
    parts = [step(params, {name: values[i : i + 1] for name, values in alone.items()}) for i in range(8)]
    loss, grads = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    assert_close((float(packed_loss), jax.device_get(packed_grads)), (float(loss), jax.device_get(grads)))


def test_what_stands_in_padding_or_in_another_segment_changes_nothing():
    batch = random_batch(rows=2)
    architecture = Architecture(TINY)
    params = architecture.init(0, sharding.single_device_mesh())
    logits = np.asarray(
        architecture.model(params)(*(batch[k] for k in ("tokens", "segment_ids", "positions")))
    )
    other = batch["segment_ids"] != 2
    changed = {**batch, "tokens": np.where(other, (batch["tokens"] + 7) % TINY.vocab_size, batch["tokens"])}
    again = np.asarray(
        architecture.model(params)(*(changed[k] for k in ("tokens", "segment_ids", "positions")))
    )
    assert np.array_equal(logits[~other], again[~other])
    assert not np.array_equal(logits[other], again[other])


UNEVEN = {
    # SmolLM2's heads: 9 query heads share 3 key/value heads.
    "heads": dataclasses.replace(TINY, num_attention_heads=9, num_key_value_heads=3),
    "fewer keys": dataclasses.replace(TINY, num_attention_heads=8, num_key_value_heads=2),
    "vocabulary": dataclasses.replace(TINY, vocab_size=97),
    "tied": dataclasses.replace(TINY, vocab_size=97, tie_word_embeddings=True),
    "all": dataclasses.replace(
        TINY,
        vocab_size=97,
        intermediate_size=45,
        num_attention_heads=9,
        num_key_value_heads=3,
        attention_bias=True,
        mlp_bias=True,
    ),
}


@pytest.mark.parametrize(
    ("uneven", "name"),
    slow_but(
        [("tied", "tensor"), ("all", "mixed")],
        [
            ("heads", "fsdp-tensor"),
            ("fewer keys", "tensor"),
            ("vocabulary", "mixed"),
            ("tied", "tensor"),
            ("all", "tensor"),
            ("all", "mixed"),
        ],
    ),
)
def test_heads_vocabulary_and_mlp_that_the_tensor_axis_does_not_divide_give_the_same(uneven, name):
    config, batch = UNEVEN[uneven], random_batch()
    one = loss_and_grads(MeshConfig(fsdp=1), batch, devices=jax.devices()[:1], config=config)
    assert_close(loss_and_grads(MESHES[name], batch, config=config), one)


@pytest.mark.slow
def test_uneven_sizes_on_rows_that_are_uneven_too_give_the_same():
    config, batch = UNEVEN["all"], random_batch(length=34)
    one = loss_and_grads(MeshConfig(fsdp=1), batch, devices=jax.devices()[:1], config=config)
    assert_close(loss_and_grads(MESHES["mixed"], batch, config=config), one)


def test_a_mesh_with_more_devices_than_heads_is_refused_and_named():
    config = dataclasses.replace(TINY, num_attention_heads=4, num_key_value_heads=2)
    with pytest.raises(sharding.ShardingError, match="some devices would have none of the heads") as caught:
        Architecture(config).init(0, sharding.make_mesh(MeshConfig(fsdp=1, tensor=8)))
    assert "4 heads over tensor (8)" in str(caught.value)


def test_a_mesh_that_does_not_divide_the_width_is_refused_and_named():
    config = dataclasses.replace(TINY, hidden_size=36)
    with pytest.raises(sharding.ShardingError, match="does not divide the model") as caught:
        Architecture(config).init(0, sharding.make_mesh(MeshConfig(fsdp=8)))
    assert "embed (36) over fsdp (8)" in str(caught.value)


@pytest.mark.parametrize("sizes", [{"fsdp": 3}, {"tensor": 16}])
def test_a_mesh_that_does_not_divide_the_devices_is_refused(sizes):
    with pytest.raises(sharding.ShardingError):
        sharding.make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize("sizes", [{"data": -1, "fsdp": -1}, {"fsdp": 0}])
def test_a_mesh_that_no_devices_have_is_refused(sizes):
    with pytest.raises(ConfigError, match="mesh"):
        MeshConfig(**sizes)
