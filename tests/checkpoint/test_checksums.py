import random
import shutil

import jax.numpy as jnp
import pytest

from alpacare_jax import checkpoint
from alpacare_jax.checkpoint import checksums
from alpacare_jax.checkpoint.folders import latest_intact, params_folder
from alpacare_jax.checkpoint.runs import ITEMS
from alpacare_jax.errors import CheckpointError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    (run / "alpacare.json").write_text('{"kind": "run"}')
    with checkpoint.RunCheckpoints(run / "checkpoints") as store:
        for step in (2, 4):
            state = {"params": {"w": jnp.arange(5000.0) + step}, "step": jnp.int32(step)}
            store.save(step, state, {"position": step})
    return run


@pytest.fixture
def run(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.folders, "read_description", lambda _: {"kind": "run"})
    return shutil.copytree(saved, tmp_path / "run")


def files(folder):
    return sorted(path for item in ITEMS for path in (folder / item).rglob("*") if path.is_file())


def flip(file, at):
    held = bytearray(file.read_bytes())
    held[at] ^= 0x40
    file.write_bytes(held)


def test_every_damage_of_every_file_is_recognised_and_named(run):
    """A flipped bit, a cut, a lost file; a file whose bytes are those that were written is let pass."""
    step, rng = run / "checkpoints" / "4", random.Random(0)
    assert latest_intact(run, ITEMS) == (4, {})
    for file in files(step):
        whole = file.read_bytes()
        damages = [lambda file=file, at=rng.randrange(len(whole)): flip(file, at) for _ in range(4)]  # noqa: B008
        damages.append(lambda file=file, whole=whole: file.write_bytes(whole[: len(whole) // 2]))
        damages.append(lambda file=file, whole=whole: file.write_bytes(whole + b"\n"))
        damages += [file.unlink] if file.name != checksums.NAME else []
        for damage in damages:
            damage()
            if file.name == checksums.NAME and file.read_bytes().split() == whole.split():
                continue
            found, damaged = latest_intact(run, ITEMS)
            assert (found, list(damaged)) == (2, [4]), file
            assert file.name in damaged[4] or file.name == checksums.NAME
            file.write_bytes(whole)
    assert latest_intact(run, ITEMS) == (4, {})


def test_the_latest_intact_checkpoint_is_used_and_that_is_said(run, caplog):
    flip(max(files(run / "checkpoints" / "4"), key=lambda file: file.stat().st_size), 1000)
    assert params_folder(run) == run / "checkpoints" / "2" / "params"
    assert "the one of step 2 is used" in caplog.text
    assert "have changed" in caplog.text
    with pytest.raises(CheckpointError, match="damaged"):
        params_folder(run, 4)
    checkpoint.put_damaged_aside(run)
    assert checkpoint.steps_of(run) == [2]
    assert (run / "damaged" / "4" / "params").is_dir()
    with checkpoint.RunCheckpoints(run / "checkpoints") as store:
        state = {"params": {"w": jnp.arange(5000.0)}, "step": jnp.int32(4)}
        store.save(4, state, {"position": 4})
    assert latest_intact(run, ITEMS) == (4, {})


def test_where_every_checkpoint_is_damaged_nothing_is_used_and_nothing_moved(run):
    for step in (2, 4):
        shutil.rmtree(run / "checkpoints" / str(step) / "params" / "d")
    for use in (params_folder, checkpoint.put_damaged_aside):
        with pytest.raises(CheckpointError, match="every checkpoint of the run is damaged"):
            use(run)
    assert checkpoint.steps_of(run) == [2, 4]


def test_checkpoints_of_earlier_versions_have_no_checksums_and_are_used(run):
    for file in run.rglob(checksums.NAME):
        file.unlink()
    assert latest_intact(run, ITEMS) == (4, {})
