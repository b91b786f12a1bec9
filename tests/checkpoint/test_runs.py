import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alpacare_jax import checkpoint, sharding
from alpacare_jax.errors import CheckpointError
from alpacare_jax.model import Architecture, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def mesh_of(**sizes):
    count = int(np.prod(list(sizes.values())))
    return sharding.make_mesh(sharding.MeshConfig(**{"fsdp": 1, **sizes}), jax.devices()[:count])


def abstract(mesh, config=CONFIG):
    """The train state without values, the optimiser's moments laid out as the parameters are."""
    params = Architecture(config).abstract_on(mesh)
    whole = sharding.replicated(mesh)
    optimizer = optax.tree.map_params(
        OPTIMIZER,
        lambda _, param: param,
        jax.eval_shape(OPTIMIZER.init, params),
        params,
        transform_non_params=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    )
    return {
        "params": params,
        "optimizer": optimizer,
        "step": jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
    }


def make_state(mesh):
    """The train state with every number drawn at random."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jax.device_put(rng.normal(0, 50, leaf.shape).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(draw, abstract(mesh))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype, path
        assert np.array_equal(np.asarray(x), np.asarray(y)), path


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 2}, {"fsdp": 1}])
def test_a_state_saved_on_one_mesh_is_restored_on_another(tmp_path, sizes):
    state = make_state(mesh_of(data=2, fsdp=2, tensor=2))
    with checkpoint.RunCheckpoints(tmp_path / "checkpoints") as store:
        store.save(7, state, {"position": 123, "config": {"lr": 1e-3}})
    target = mesh_of(**sizes)
    with checkpoint.RunCheckpoints(tmp_path / "checkpoints") as store:
        assert store.steps() == [7]
        assert store.metadata(7) == {"position": 123, "config": {"lr": 1e-3}}
        restored = store.restore(7, abstract(target))
    same(state, restored)
    assert restored["params"]["embed"].sharding.mesh.shape == target.shape


def test_saving_does_not_see_what_training_does_next(tmp_path):
    """The step donates its state; the writer must have taken its copy before save returns."""
    state = make_state(mesh_of(fsdp=4))
    expected = jax.tree.map(np.array, state["params"])
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with checkpoint.RunCheckpoints(tmp_path) as store:
        store.save(1, state, {})
        for _ in range(3):
            state = step(state)
        jax.block_until_ready(state)
        store.wait()
        same(expected, jax.tree.map(np.array, store.restore(1, abstract(mesh_of(fsdp=4)))["params"]))


def test_only_the_latest_are_kept_and_steps_are_told(tmp_path):
    state = make_state(mesh_of(fsdp=1))
    with checkpoint.RunCheckpoints(tmp_path, keep=2) as store:
        assert store.steps() == []
        for step in (10, 20, 30):
            store.save(step, state, {"position": step})
        store.wait()
        assert store.steps() == [20, 30]
        with pytest.raises(CheckpointError, match="steps 20, 30"):
            store.metadata(10)


def test_another_architecture_is_told_leaf_by_leaf(tmp_path):
    state = make_state(mesh_of(fsdp=1))
    other = dataclasses.replace(CONFIG, hidden_size=64, tie_word_embeddings=True)
    with checkpoint.RunCheckpoints(tmp_path) as store:
        store.save(1, state, {})
        store.wait()
        with pytest.raises(CheckpointError) as caught:
            store.restore(1, abstract(mesh_of(fsdp=1), other))
    said = str(caught.value)
    assert "embed: [64, 32], expected [64, 64]" in said
    assert "head: [32, 64], expected no such parameter" in said


def make_run(folder: Path, *steps: int) -> None:
    state = make_state(mesh_of(fsdp=1))
    folder.mkdir(exist_ok=True)
    checkpoint.write_description(folder, "run", CONFIG)
    with checkpoint.RunCheckpoints(folder / "checkpoints") as store:
        for step in steps:
            state["params"]["norm"]["scale"] = jnp.full((32,), float(step))
            store.save(step, state, {"position": step})


def test_parameters_alone_are_read_from_a_run(tmp_path):
    make_run(tmp_path, 5, 10)
    assert checkpoint.load_params(tmp_path)["norm"]["scale"][0] == 10
    assert checkpoint.load_params(tmp_path, step=5)["norm"]["scale"][0] == 5
    mesh = mesh_of(fsdp=4, tensor=2)
    placed = checkpoint.load_params(tmp_path, mesh=mesh, dtype="bfloat16")
    assert placed["embed"].sharding.spec == jax.sharding.PartitionSpec("tensor", "fsdp")
    assert placed["embed"].dtype == jnp.bfloat16
    # without the optimiser's item they are read just the same
    import shutil

    shutil.rmtree(tmp_path / "checkpoints" / "10" / "state")
    assert checkpoint.load_params(tmp_path)["norm"]["scale"][0] == 10
    with pytest.raises(CheckpointError, match=r"steps 5, 10"):
        checkpoint.load_params(tmp_path, step=7)


def test_a_large_weight_lies_in_chunks_that_one_shard_can_read_alone(tmp_path):
    weight = jnp.arange(4 * 2048 * 4096, dtype=jnp.float32).reshape(4, 2048, 4096)  # 128 MiB, from one device
    checkpoint.folders.save_params(tmp_path / "params", {"w": weight})
    (leaf,) = checkpoint.folders.stored_leaves(tmp_path / "params").values()
    assert np.prod(leaf.storage.chunk_shape) * 4 <= checkpoint.folders.CHUNK_BYTES


def test_a_run_without_checkpoints_is_told(tmp_path):
    checkpoint.write_description(tmp_path, "run", CONFIG)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load_params(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "lose", "empty"])
def test_a_torn_checkpoint_is_named(tmp_path, harm):
    make_run(tmp_path, 5)
    step = tmp_path / "checkpoints" / "5"
    files = [path for path in (step / "params").rglob("*") if path.is_file() and path.parent.name == "d"]
    assert files
    for file in files:
        if harm == "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        elif harm == "lose":
            file.unlink()
        else:
            file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=str(step / "params")):
        checkpoint.load_params(tmp_path)
    with (
        checkpoint.RunCheckpoints(tmp_path / "checkpoints") as store,
        pytest.raises(CheckpointError, match=str(step)),
    ):
        store.restore(5, abstract(mesh_of(fsdp=1)))


def test_a_torn_description_is_named(tmp_path):
    make_run(tmp_path)
    file = tmp_path / "alpacare.json"
    text = file.read_text()
    file.write_text(text[:40])
    with pytest.raises(CheckpointError, match=r"alpacare\.json is not valid JSON"):
        checkpoint.load_params(tmp_path)
    file.write_text(json.dumps(json.loads(text) | {"format": 99}))
    with pytest.raises(CheckpointError, match="another version"):
        checkpoint.load_params(tmp_path)


def test_a_large_torn_file_is_told_in_one_message_and_nothing_else(tmp_path):
    """Orbax raises a bare Exception here, and its threads talk on after it; seen through a real process."""
    params = make_state(mesh_of(fsdp=1))["params"]
    params["embed"] = jax.random.normal(jax.random.key(0), (50_000, 32))
    checkpoint.write_description(tmp_path, "model", dataclasses.replace(CONFIG, vocab_size=50_000))
    params["head"] = params["embed"].T
    checkpoint.folders.save_params(tmp_path / "params", params)
    (tmp_path / "params" / "_CHECKSUMS").unlink()  # as of an earlier version
    for file in (tmp_path / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code = "import sys; from alpacare_jax.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "export", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("alpacare: the checkpoint cannot be read\n")
    assert str(tmp_path / "params") in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 5
    assert not (tmp_path / "out").exists()


WRITER = """
    import resource, sys, jax, jax.numpy as jnp
    from alpacare_jax import checkpoint
    if int(sys.argv[3]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    store = checkpoint.RunCheckpoints(sys.argv[1])
    big = int(sys.argv[2])
    for step in range(1, 1000):
        state = {"params": {"w": jax.random.normal(jax.random.key(step), (big,))}, "step": jnp.int32(step)}
        store.save(step, state, {"position": step})
        print(step, flush=True)
"""


def writer(folder: Path, size: int, file_limit: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(size), str(file_limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def restore_w(store, step, size):
    struct = jax.ShapeDtypeStruct((size,), jnp.float32, sharding=sharding.replicated(mesh_of(fsdp=1)))
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=struct.sharding)
    return store.restore(step, {"params": {"w": struct}, "step": count})


def test_a_process_killed_while_saving_leaves_only_whole_checkpoints(tmp_path):
    size = 3_000_000
    process = writer(tmp_path, size)
    while "2" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    deadline = time.monotonic() + 60
    while not any("tmp" in path.name for path in tmp_path.iterdir()):  # a save is under way
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    with checkpoint.RunCheckpoints(tmp_path) as store:
        steps = store.steps()
        assert steps
        for step in steps:
            assert store.metadata(step) == {"position": step}
            expected = np.asarray(jax.random.normal(jax.random.key(step), (size,)))
            assert np.array_equal(restore_w(store, step, size)["params"]["w"], expected)
        # and the run can go on writing
        store.save(steps[-1] + 1, {"params": {"w": jnp.zeros(size)}, "step": jnp.int32(0)}, {"position": 0})
        store.wait()
        assert store.steps()[-1] == steps[-1] + 1


def test_a_full_disk_is_told_and_earlier_checkpoints_stay(tmp_path):
    """A limit on file size stands in for the disk: writes beyond it fail in the operating system."""
    with checkpoint.RunCheckpoints(tmp_path) as store:
        store.save(0, {"params": {"w": jnp.ones(100)}, "step": jnp.int32(0)}, {"position": 0})
    process = writer(tmp_path, 1_000_000, file_limit=200_000)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "CheckpointError: no disk space is left for the checkpoint" in stderr, stderr[-2000:]
    assert "ERROR:absl" not in stderr
    with checkpoint.RunCheckpoints(tmp_path) as store:
        assert store.steps() == [0]
        assert np.array_equal(restore_w(store, 0, 100)["params"]["w"], np.ones(100))


def fail_half_way(folder: Path) -> None:
    with checkpoint.atomic_folder(folder, overwrite=True) as partial:
        (partial / "half").write_text("done")
        raise ZeroDivisionError


def test_a_model_folder_is_whole_or_absent(tmp_path):
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    (hf / "model.safetensors").write_text("weights do not travel")
    params = make_state(mesh_of(fsdp=1))["params"]
    checkpoint.save_model(tmp_path / "model", params, CONFIG, hf=hf, source={"reference": "here"})
    assert [path.name for path in (tmp_path / "model" / "hf").iterdir()] == ["config.json"]
    same(params, checkpoint.load_params(tmp_path / "model"))
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / "model")
    same(params, checkpoint.load_params(tmp_path / "model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "model"]
