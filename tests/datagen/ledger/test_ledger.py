import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from datagen.errors import DataError
from datagen.ledger import Ledger, StageSpending, Try
from datagen.ledger import file as ledger_file
from datagen.money.budget import Budget
from datagen.money.prices import Price, Prices


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / "ledger.sqlite"


def ask(ledger: Ledger, id: str, stage: str = "tasks") -> None:
    ledger.record_sent(stage, id, prompt_hash="h" + id, request={"model": "m", "messages": ["Größe"]})


def test_a_request_goes_from_sent_to_answered_and_keeps_what_was_asked(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.get("tasks", "0") is None
        ask(ledger, "0")
        ask(ledger, "0")
        sent = ledger.get("tasks", "0")
        ledger.record_reply(
            "tasks", "0", text="hi\n", finish_reason="stop", model="m", prompt_tokens=3, completion_tokens=2
        )
        answered = ledger.get("tasks", "0")
    assert sent is not None
    assert answered is not None
    assert (sent.state, sent.tries, sent.reply, sent.finished_at) == ("sent", 2, None, None)
    assert (answered.state, answered.reply, answered.finish_reason) == ("answered", "hi\n", "stop")
    assert (answered.prompt_tokens, answered.completion_tokens, answered.cost_usd) == (3, 2, None)
    assert answered.request == '{"model": "m", "messages": ["Größe"]}'
    assert answered.finished_at is not None
    assert answered.finished_at >= answered.created_at


def test_stages_do_not_share_ids(path: Path) -> None:
    with Ledger(path) as ledger:
        ask(ledger, "0", "tasks")
        ask(ledger, "0", "answers")
        ledger.record_failure("answers", "0", error="timeout: no reply")
        ask(ledger, "1", "tasks")
        counts = ledger.counts()
        assert [entry.id for entry in ledger.entries("tasks")] == ["0", "1"]
    assert counts["tasks"] == {
        "sent": 2, "answered": 0, "failed": 0, "tries": 2, "prompt_tokens": 0, "completion_tokens": 0
    }  # fmt: skip
    assert counts["answers"]["failed"] == 1


def test_failed_requests_can_be_taken_back_and_answered_ones_cannot(path: Path) -> None:
    with Ledger(path) as ledger:
        for id in "012":
            ask(ledger, id)
        ledger.record_reply("tasks", "0", text="kept", finish_reason="stop", model="m")
        ledger.record_failure("tasks", "1", error="timeout: late")
        ledger.record_failure("tasks", "2", error="timeout: late")
        assert ledger.reopen("tasks", "1") == 1
        assert [entry.state for entry in ledger.entries()] == ["answered", "sent", "failed"]
        assert ledger.reopen("tasks") == 1
        assert [entry.state for entry in ledger.entries()] == ["answered", "sent", "sent"]


def test_another_prompt_under_the_same_id_is_refused(path: Path) -> None:
    with Ledger(path) as ledger:
        ask(ledger, "7")
        assert ledger.get("tasks", "7", prompt_hash="h7") is not None
        with pytest.raises(DataError, match="another configuration") as caught:
            ledger.get("tasks", "7", prompt_hash="other")
    assert "stage tasks, id 7" in str(caught.value)


def test_a_try_is_written_down_before_and_after(path: Path) -> None:
    with Ledger(path) as ledger:
        first = ledger.open_try(Try(0, "tasks", "0", "m", 10, 20, 0.5))
        second = ledger.open_try(Try(0, "answers", "1", "m", 10, 20, 0.5, batch=True))
        assert list(ledger.open_tries()) == [first, second]
        ledger.close_try(first.number, "settled", cost_usd=0.25, prompt_tokens=3, completion_tokens=4)
        assert [each.batch for each in ledger.open_tries()] == [True]
        assert ledger.spending() == {
            "answers": StageSpending(held_usd=0.5),
            "tasks": StageSpending(spent_usd=0.25, settled=1),
        }
        ledger.note("progress", "one")
        ledger.note("progress", "two")
        assert ledger.noted("progress") == "two"
        assert ledger.noted("nothing") is None


def test_rows_are_taken_over_wholly_or_not_at_all(path: Path) -> None:
    with Ledger(path) as ledger:
        for id in "012":
            ask(ledger, id)
        ledger.record_reply("tasks", "1", text="kept", finish_reason="stop", model="m", cost_usd=0.5)
        entries = list(ledger.entries())
    with Ledger(path.with_name("other.sqlite")) as other:
        assert not other.began()
        other.copy(entries)
        assert list(other.entries()) == entries
        assert other.began()
    with Ledger(path.with_name("third.sqlite")) as third:
        ask(third, "2")
        with pytest.raises(DataError):
            third.copy(entries)
        assert [entry.id for entry in third.entries()] == ["2"]


KILLED = """
import os, signal, sys
from datagen.ledger import Ledger
ledger = Ledger(sys.argv[1])
for number in range(50):
    ledger.record_sent("tasks", f"{number:02d}", prompt_hash="h", request={})
    if number < 49:
        ledger.record_reply("tasks", f"{number:02d}", text=f"reply {number}", finish_reason="stop", model="m")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_no_reply_and_frees_the_lock(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        entries = list(ledger.entries("tasks"))
    assert [entry.reply for entry in entries[:-1]] == [f"reply {number}" for number in range(49)]
    assert entries[-1].state == "sent"


def test_a_second_writer_is_refused_and_a_reader_is_not(path: Path) -> None:
    with Ledger(path) as ledger:
        ask(ledger, "0")
        with pytest.raises(DataError, match="another process is writing") as caught:
            Ledger(path)
        assert f"process {os.getpid()}" in str(caught.value)
        with Ledger(path, read_only=True) as reader:
            assert reader.counts()["tasks"]["sent"] == 1
            ask(ledger, "1")
            assert reader.counts()["tasks"]["sent"] == 2
            with pytest.raises(DataError, match="cannot be written"):
                ask(reader, "2")
    with Ledger(path) as ledger:
        assert ledger.get("tasks", "2") is None


def test_a_reader_needs_a_ledger(path: Path) -> None:
    with pytest.raises(DataError, match="no ledger yet"):
        Ledger(path, read_only=True)
    assert not path.parent.exists()


def test_a_newer_ledger_is_refused_unchanged(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataError, match="newer version") as caught:
        Ledger(path)
    assert "version 99" in str(caught.value)


def test_a_file_that_is_no_ledger_is_refused_and_kept(path: Path) -> None:
    content = b"Notes of the ward round, not a ledger." * 20
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        Ledger(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["half", "all but the header", "noise"])
def test_a_damaged_ledger_is_named_and_left_as_it_is(path: Path, damage: str, read_only: bool) -> None:
    with Ledger(path) as ledger:
        for number in range(200):
            ledger.record_sent("tasks", str(number), prompt_hash="h" * 64, request={"text": "x" * 400})
    whole = path.read_bytes()
    damaged = {
        "half": whole[: len(whole) // 2],
        "all but the header": whole[:100],
        "noise": whole[:8192] + b"\xa5" * (len(whole) - 8192),
    }[damage]
    path.write_bytes(damaged)
    with (
        pytest.raises(DataError, match="cannot be read; it may be damaged") as caught,
        Ledger(path, read_only=read_only) as ledger,
    ):
        list(ledger.entries())
    assert str(path) in str(caught.value)
    assert "restore the file" in str(caught.value)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("read_only", [False, True])
def test_a_ledger_cut_to_its_first_byte_is_no_new_one(path: Path, read_only: bool) -> None:
    Ledger(path).close()
    os.truncate(path, 1)
    with pytest.raises(DataError, match="may be damaged"):
        Ledger(path, read_only=read_only)
    assert path.stat().st_size == 1


def test_nothing_is_written_to_a_ledger_that_lost_a_part_of_its_last_page(path: Path) -> None:
    """SQLite itself reads what is missing as zeros, and finds out when it comes there, if ever."""
    with Ledger(path) as ledger:
        for number in range(200):
            ledger.record_sent("tasks", str(number), prompt_hash="h" * 64, request={"text": "x" * 400})
    os.truncate(path, path.stat().st_size - 3000)
    cut = path.read_bytes()
    with pytest.raises(DataError, match="may be damaged"):
        Ledger(path)
    assert path.read_bytes() == cut


@pytest.mark.parametrize("read_only", [False, True])
def test_a_folder_in_the_ledger_s_place_is_said_to_be_one(path: Path, read_only: bool) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DataError, match="the ledger is a folder"):
        Ledger(path, read_only=read_only)


def test_a_ledger_that_another_program_holds_is_said_to_be_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "LOCK_TIMEOUT_S", 0.1)
    Ledger(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DataError, match="another program holds the ledger"):
        Ledger(path)
    other.execute("ROLLBACK")
    other.close()
    with Ledger(path) as ledger:
        ask(ledger, "0")


VERSION_1 = """
CREATE TABLE requests (
    stage TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed')),
    tries INTEGER NOT NULL DEFAULT 0, prompt_hash TEXT NOT NULL, request TEXT NOT NULL, reply TEXT,
    finish_reason TEXT, model TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL,
    batch_id TEXT, error TEXT, created_at TEXT NOT NULL, sent_at TEXT, finished_at TEXT, PRIMARY KEY (stage, id)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
BODY = '{"model": "m", "messages": [], "max_tokens": 50}'
EARLIER = [
    ("answered", 3, BODY, "hi", 10, 20),
    ("answered", 1, BODY, "hi", 10, 20),
    ("answered", 1, BODY, "hi", 0, 0),
    ("failed", 2, BODY, None, None, None),
    ("sent", 0, BODY, None, None, None),
]


@pytest.fixture
def earlier(path: Path) -> Path:
    """A ledger as the first version wrote it."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        for number, (state, tries, request, reply, tokens_in, tokens_out) in enumerate(EARLIER):
            db.execute(
                "INSERT INTO requests (stage, id, state, tries, prompt_hash, request, reply, prompt_tokens,"
                " completion_tokens, created_at) VALUES ('tasks', ?, ?, ?, 'h', ?, ?, ?, ?, '2026-01-01')",
                (str(number), state, tries, request, reply, tokens_in, tokens_out),
            )
    db.close()
    return path


def test_a_ledger_of_the_first_version_is_taken_over(earlier: Path) -> None:
    with Ledger(earlier, read_only=True) as reader:
        before = list(reader.entries())
        assert [t.outcome for t in reader.tries()] == ["settled", "settled", "unknown", "unknown", "unknown"]
        assert reader.noted("x") is None
    for _ in range(2):
        with Ledger(earlier) as ledger:
            assert list(ledger.entries()) == before
            tries = list(ledger.tries())
    bound = len(BODY) + 128
    assert [(t.id, t.outcome, t.most_prompt_tokens, t.most_completion_tokens) for t in tries] == [
        ("0", "settled", bound, 50),
        ("1", "settled", bound, 50),
        ("0", "unknown", 2 * bound, 100),
        ("2", "unknown", bound, 50),
        ("3", "unknown", 2 * bound, 100),
    ]
    with Ledger(earlier) as ledger:
        budget = Budget(ledger, Prices({"m": Price(1.0, 1.0)}), 1.0)
        assert budget.spent_usd == pytest.approx((2 * 30 + 5 * (bound + 50)) / 1e6)


def test_taking_over_is_all_or_nothing(earlier: Path) -> None:
    with sqlite3.connect(earlier) as db:
        db.execute("UPDATE requests SET request = '{broken' WHERE id = '3'")
    db.close()
    with pytest.raises(DataError, match="cannot be read"):
        Ledger(earlier)
    with sqlite3.connect(earlier) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("requests",)]
    db.close()


def test_another_program_s_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    db.close()
    with pytest.raises(DataError, match="not a ledger") as caught:
        Ledger(path)
    assert "songs" in str(caught.value)


FULL = """
import resource, signal, sys
from datagen.ledger import file as ledger_file
from datagen.errors import DataError
from datagen.ledger import Ledger
from datagen.money.prices import Price, Prices
from datagen.money.budget import Budget
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
ledger = Ledger(sys.argv[1])
try:
    for number in range(1000):
        ledger.record_sent("tasks", f"{number:03d}", prompt_hash="h", request={"text": "x" * 2000})
        ledger.record_reply("tasks", f"{number:03d}", text="reply", finish_reason="stop", model="m")
except DataError as error:
    print(number, error)
"""


def test_no_room_left_is_said_and_what_was_answered_stays(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], check=True, capture_output=True, text=True, timeout=60
    )
    number, words = run.stdout.split(" ", 1)
    assert "the disk refused" in words
    with Ledger(path) as ledger:
        answered = sum(entry.state == "answered" for entry in ledger.entries())
    assert int(number) > 5
    assert answered >= int(number)
