import sqlite3
import time
from pathlib import Path

from datagen.ledger import Ledger


def write(ledger: Ledger, ids: range) -> None:
    for id in ids:
        ledger.record_sent("s", f"{id:05d}", prompt_hash="h", request={"text": "x" * 4000})
        ledger.record_reply("s", f"{id:05d}", text="y" * 500, finish_reason="stop", model="m")


def size(path: Path) -> int:
    return path.stat().st_size


def test_the_log_moves_into_the_database_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        with ledger.checkpoints_in_background():
            write(ledger, range(600))
            before = size(path)
            deadline = time.monotonic() + 15
            while size(path) < 2_000_000 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert before < size(path)
            write(ledger, range(600, 700))
        write(ledger, range(700, 710))
        assert sum(entry.state == "answered" for entry in ledger.entries()) == 710


def test_what_is_written_is_there_for_others_before_any_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, ledger.checkpoints_in_background():
        write(ledger, range(3))
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT COUNT(*) FROM requests").fetchone() == (3,)
        other.close()
