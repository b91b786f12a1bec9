"""A ledger is read where nothing can be written beside it, with everything that a killed process left in its log."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_server import ScriptedServer, write_tasks
from typer.testing import CliRunner

from alpacare_jax.cli import app
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.ledger.unwritable import open_unwritable

Closer = Callable[[Path], None]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Closer]:
    """A way to close a folder to writing: by its mode; for root, who heeds none, by a read-only mount."""
    with contextlib.ExitStack() as undo:

        def close(folder: Path) -> None:
            if os.geteuid() != 0:
                folder.chmod(0o555)
                undo.callback(folder.chmod, 0o755)
                return
            bind = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
            if bind.returncode:
                pytest.skip("root may not mount here, and heeds no mode")
            undo.callback(subprocess.run, ["umount", folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

        yield close


def write_rows(folder: Path) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        for number in range(3):
            ledger.record_sent("s", f"{number}", prompt_hash="h", request={"model": "m"})


def rows(folder: Path) -> int:
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        return len(list(ledger.entries("s")))


def killed_after_three_rows(folder: Path) -> None:
    """Let a process write three rows and be killed: they are in the log alone."""
    program = (
        "import os, signal, sys; from datagen.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for number in range(3): ledger.record_sent('s', f'{number}', prompt_hash='h', request={'model': 'm'})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(folder / "ledger.sqlite")])
    assert run.returncode == -signal.SIGKILL
    assert (folder / "ledger.sqlite-wal").stat().st_size > 0


def test_a_ledger_is_read_in_a_folder_that_cannot_be_written(tmp_path: Path, closed: Closer) -> None:
    write_rows(tmp_path)
    closed(tmp_path)
    with pytest.raises(OSError, match=r"[Rr]ead-only|[Pp]ermission"):
        (tmp_path / "more").touch()
    assert rows(tmp_path) == 3


@pytest.mark.parametrize("index", [True, False])
def test_rows_that_a_killed_process_left_in_the_log_are_read_too(
    tmp_path: Path, closed: Closer, index: bool
) -> None:
    killed_after_three_rows(tmp_path)
    if not index:
        (tmp_path / "ledger.sqlite-shm").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    closed(tmp_path)
    assert rows(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_is_taken_for_unchanging_beside_a_writer(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite"):
        assert open_unwritable(tmp_path / "ledger.sqlite") is None
    db = open_unwritable(tmp_path / "ledger.sqlite")
    assert db is not None
    db.close()


def test_the_copy_holds_the_log_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a read-only folder, so that it is tested wherever the tests run."""
    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    work = tmp_path / "work"
    work.mkdir()
    killed_after_three_rows(work)
    held = (work / "ledger.sqlite-wal").read_bytes()
    db = open_unwritable(work / "ledger.sqlite")
    assert db is not None
    with contextlib.closing(db):
        assert db.execute("SELECT COUNT(*) FROM requests").fetchone() == (3,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM requests")
    assert list(spare.iterdir()) == []
    assert (work / "ledger.sqlite-wal").read_bytes() == held


def test_no_ledger_is_named_as_such_on_a_read_only_medium(tmp_path: Path, closed: Closer) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all, and long enough to be taken for one" * 10)
    closed(tmp_path)
    with pytest.raises(DataError, match="not a ledger"):
        rows(tmp_path)


def test_status_and_report_read_a_folder_that_cannot_be_written(tmp_path: Path, closed: Closer) -> None:
    work = tmp_path / "work"
    with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
        service = ("--base-url", server.base_url, "--model", "scripted")
        run = CliRunner().invoke(app, ["synthesize", "--work", str(work), *service, "--target", "4"])
        assert run.exit_code == 0, run.output
    closed(work)
    status = CliRunner().invoke(app, ["synthesize", "--work", str(work), "--status"])
    assert status.exit_code == 0, status.output
    report = CliRunner().invoke(app, ["report", str(work), "--out", str(tmp_path / "report.html")])
    assert report.exit_code == 0, report.output
    assert (tmp_path / "report.html").stat().st_size > 10_000
