import errno
import fcntl
import logging
import subprocess
import sys

import pytest

from alpacare_jax import checkpoint
from alpacare_jax.errors import DataError

HOLDER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_and_the_first_is_left_alone(tmp_path):
    target = tmp_path / "deep" / "model"

    def second():
        with checkpoint.atomic_folder(target, overwrite=True):
            raise AssertionError("never reached")

    with checkpoint.atomic_folder(target) as partial:
        (partial / "alpacare.json").write_text("the first")
        with pytest.raises(DataError, match="another process is writing") as caught:
            second()
        assert str(target) in str(caught.value)
    assert (target / "alpacare.json").read_text() == "the first"
    with checkpoint.atomic_folder(target, overwrite=True) as partial:
        assert not any(partial.iterdir())
        (partial / "alpacare.json").write_text("a later one")
    assert (target / "alpacare.json").read_text() == "a later one"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_writer_that_comes_too_late_finds_the_folder_of_the_first(tmp_path, monkeypatch):
    from datagen import replacing

    locked = replacing.locked

    def first_wins(folder, target):
        monkeypatch.setattr(replacing, "locked", locked)
        with checkpoint.atomic_folder(target) as partial:
            (partial / "alpacare.json").write_text("the first")
        return locked(folder, target)

    monkeypatch.setattr(replacing, "locked", first_wins)
    with pytest.raises(DataError, match="not empty"), checkpoint.atomic_folder(tmp_path / "model"):
        raise AssertionError("never reached")
    assert (tmp_path / "model" / "alpacare.json").read_text() == "the first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_claim_ends_with_its_process_however_it_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process"), checkpoint.claimed(tmp_path, tmp_path):
            raise AssertionError("never reached")
    finally:
        holder.kill()
        holder.communicate()
    with checkpoint.claimed(tmp_path, tmp_path):
        pass
    assert tmp_path.exists(), "only a folder that the claim made is removed"


def test_a_claim_leaves_no_empty_folder(tmp_path):
    with checkpoint.claimed(tmp_path / "run", tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


def test_without_locks_a_warning_is_given_and_the_work_goes_on(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with caplog.at_level(logging.WARNING), checkpoint.claimed(tmp_path / "run", tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("written")
    assert "No locks available" in caplog.text


def test_what_a_killed_writer_left_is_cleared_and_what_it_moved_aside_is_put_back(tmp_path):
    (tmp_path / ".model.partial" / "new" / "params").mkdir(parents=True)
    (tmp_path / ".model.partial" / "new" / "half").write_text("")
    (tmp_path / ".model.partial" / "old").mkdir()
    (tmp_path / ".model.partial" / "old" / "alpacare.json").write_text("before")
    with checkpoint.atomic_folder(tmp_path / "model", overwrite=True) as partial:
        assert not any(partial.iterdir())
        assert (tmp_path / "model" / "alpacare.json").read_text() == "before"
        (partial / "alpacare.json").write_text("after")
    assert (tmp_path / "model" / "alpacare.json").read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("stranger", [False, True])
def test_what_a_killed_writer_of_an_earlier_version_left_is_put_back_or_cleared(tmp_path, stranger):
    (tmp_path / ".model.partial" / "params").mkdir(parents=True)
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "alpacare.json").write_text("before")
    with pytest.raises(DataError, match="not empty"), checkpoint.atomic_folder(tmp_path / "model"):
        raise AssertionError("never reached")
    assert (tmp_path / "model" / "alpacare.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "alpacare.json").write_text("long replaced")
    if stranger:
        (tmp_path / ".model.old" / "notes").touch()
    with checkpoint.atomic_folder(tmp_path / "model", overwrite=True) as partial:
        (partial / "alpacare.json").write_text("after")
    assert (tmp_path / "model" / "alpacare.json").read_text() == "after"
    assert (tmp_path / ".model.old").exists() == stranger, "only what the software wrote is deleted"


def test_a_linked_hidden_folder_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    (tmp_path / ".model.partial").symlink_to(precious)
    with (
        pytest.raises(OSError, match=r"Not a directory|symbolic links"),
        checkpoint.atomic_folder(tmp_path / "model"),
    ):
        raise AssertionError("never reached")
    assert (precious / "file").exists()
