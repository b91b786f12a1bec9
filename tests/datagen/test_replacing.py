"""A folder of results is replaced as a whole, and what a killed process left beside it is cleared away."""

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datagen.errors import DataError
from datagen.replacing import moved_into_place

_WRITES = """
import os, signal, sys
from pathlib import Path
from datagen.replacing import moved_into_place

out, moment = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def killed_before_the_second(self, target):
    if self.name == "new" and moment == "between":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.rename = killed_before_the_second
with moved_into_place(out, lambda: None) as folder:
    (folder / "rows").write_text("of the other process")
    print("writing", flush=True)
    if moment == "within":
        sys.stdin.read()
"""


def start(out: Path, moment: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITES, str(out), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def write(out: Path, text: str = "new") -> None:
    with moved_into_place(out, lambda: None) as folder:
        (folder / "rows").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_cleared_away_by_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out, "within") as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".out.")
    write(tmp_path / "other")
    assert names(tmp_path) == [leftover, "other"]
    write(out)
    assert names(tmp_path) == ["other", "out"]
    assert names(out) == ["rows"]


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out, "within") as process:
        with pytest.raises(DataError, match="another process is writing") as caught:
            write(out)
        assert str(out) in str(caught.value)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0
    assert names(tmp_path) == ["out"]
    assert (out / "rows").read_text() == "of the other process"


def test_a_folder_that_a_killed_process_had_moved_aside_is_put_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "the only copy")
    with start(out, "between"):
        pass
    assert not out.exists()

    def refuse() -> None:
        if out.exists():
            raise DataError("there is one already", where=out)

    with pytest.raises(DataError, match="already"), moved_into_place(out, refuse):
        pytest.fail("the folder is there again, and the command must not begin")
    assert names(tmp_path) == ["out"]
    assert (out / "rows").read_text() == "the only copy"


@pytest.mark.parametrize("name", [".out.part", ".out.b.abc.part", ".out.mine.part", "out.abc.part"])
def test_what_only_looks_like_a_leftover_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("somebody's")
    write(tmp_path / "out")
    assert names(tmp_path) == sorted([name, "out"])


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "out", "before")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), moved_into_place(tmp_path / "out", interrupted) as folder:
        (folder / "rows").write_text("whole, and not yet in place")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "rows").read_text() == "before"


@pytest.mark.parametrize("replaced", [False, True])
def test_the_hidden_folder_of_an_earlier_version_is_cleared_and_its_old_folder_put_back(
    tmp_path: Path, replaced: bool
) -> None:
    out, hidden = tmp_path / "out", tmp_path / ".out.a1b2.part"
    for part in ("new", "old"):
        (hidden / part).mkdir(parents=True)
    (hidden / "lock").touch()
    (hidden / "old" / "rows").write_text("the only copy")
    if replaced:
        write(out, "a later one")
    else:
        with moved_into_place(out, lambda: None):
            assert (out / "rows").read_text() == "the only copy"
    assert names(tmp_path) == ["out"]


def test_the_hidden_folder_of_a_living_process_of_an_earlier_version_is_left_alone(tmp_path: Path) -> None:
    hidden = tmp_path / ".out.a1b2.part"
    (hidden / "new").mkdir(parents=True)
    with (hidden / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write(tmp_path / "out")
        assert names(tmp_path) == [hidden.name, "out"]
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "before")
    (tmp_path / "out").symlink_to("elsewhere")
    write(tmp_path / "out")
    assert names(tmp_path) == ["elsewhere", "out"]
    assert (tmp_path / "elsewhere" / "rows").read_text() == "before"


def test_whatever_lies_in_the_hidden_folder_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".out.partial" / "params").mkdir(parents=True)
    (tmp_path / ".out.partial" / "alpacare.json").touch()
    (tmp_path / ".out.partial" / "old").symlink_to("nowhere")
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]
