import datetime
import sqlite3
from pathlib import Path

import pytest

from datagen.batch.client import describe
from datagen.batch.states import read_refusal
from datagen.batch.store import BatchStore
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.money.prices import Price, Prices

BODY = {"model": "m", "messages": [{"role": "user", "content": "Why rest?"}], "max_tokens": 10}
PRICES = Prices({"m": Price(1.0, 1.0)})
ABOUT = {"base_url": "http://127.0.0.1/v1", "model": "m", "requests": 2, "prompt_tokens": 60, "content": "ab"}


def test_a_ledger_of_before_batches_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.record_sent("tasks", "0", prompt_hash="h", request=BODY)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE batches")
        db.execute("PRAGMA user_version = 2")
    db.close()
    with Ledger(path, read_only=True) as ledger:
        assert BatchStore(ledger).all() == []
        assert BatchStore(ledger).under_way() == []
    with Ledger(path) as ledger:
        assert BatchStore(ledger).plan("tasks", **ABOUT).number == 1
        assert ledger.get("tasks", "0") is not None


def test_a_batch_goes_from_planned_to_open_to_ended(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        store = BatchStore(ledger)
        record = store.plan("tasks", **ABOUT)
        for id in ("1", "0"):
            ledger.record_sent("tasks", id, prompt_hash="h", request=BODY | {"n": int(id)})
            store.add(record, id)
        ledger.record_sent("tasks", "2", prompt_hash="h", request=BODY)
        assert (record.state, record.key, record.asked_for) == ("planned", "part-1", False)
        assert list(store.bodies(record)) == [("0", BODY | {"n": 0}), ("1", BODY | {"n": 1})]
        store.asking(record)
        assert store.get(1).asked_for
        record = store.opened(record, "batch_x")
        assert (record.state, list(store.members(record))) == ("open", ["0", "1"])
        record = store.checked(record, status="in_progress", completed=1, failed=0)
        assert store.under_way("tasks") == [record]
        assert store.under_way("answers") == []
        assert describe([record]).startswith(
            "1 batch (in_progress) with 2 requests: 1 completed, 0 failed, after"
        )
        store.ended(record, "done")
        assert store.under_way() == []
        assert store.all()[0].words == "done"


def test_two_folders_and_two_contents_are_told_apart(tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b"):
        with Ledger(tmp_path / name / "ledger.sqlite") as ledger:
            store = BatchStore(ledger)
            for content in ("ab", "cd"):
                seen.append(store.metadata(store.plan("tasks", **ABOUT | {"content": content})))
            assert BatchStore(ledger).folder() == store.folder()
    assert len({tuple(sorted(each.items())) for each in seen}) == 4
    assert all(len(value) <= 64 for each in seen for value in each.values())


def test_what_was_never_run_is_free_and_what_is_lost_is_not(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        store, budget = BatchStore(ledger), Budget(ledger, PRICES, 1.0)
        for number, end in ((0, "take_back"), (1, "give_up")):
            id = str(number)
            record = store.plan("tasks", **ABOUT)
            held = budget.try_reserve("m", BODY, stage="tasks", id=id, batch=True)
            assert held is not None
            ledger.record_sent("tasks", id, prompt_hash="h", request=BODY)
            store.add(record, id)
            if end == "take_back":
                store.take_back(record, budget, "never sent")
                assert budget.spent_usd == 0
            else:
                store.give_up(record, budget)
                assert budget.spent_usd == held.reserved_usd
        entries = list(ledger.entries("tasks"))
        assert [(each.tries, each.state) for each in entries] == [(0, "sent"), (1, "sent")]
        assert budget.held_usd == 0


def test_age_runs_until_the_end(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        store = BatchStore(ledger)
        record = store.plan("tasks", **ABOUT)
        later = datetime.datetime.fromisoformat(record.planned_at) + datetime.timedelta(hours=3)
        assert record.age_s(later) == 3 * 3600
        store.ended(record)
        assert store.get(1).age_s(later) < 60


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (None, ("no reason is given", False, False, {})),
        ({"data": "?"}, ("no reason is given", False, False, {})),
        ([{"message": "bare list"}], ("error: bare list", False, False, {})),
        (
            {"data": [{"code": "invalid_json_line", "message": "bad", "line": 3}]},
            ("invalid_json_line: bad", False, False, {3: "bad"}),
        ),
        (
            {"data": [{"code": "x", "message": "a", "line": 3}, {"code": "y", "message": "b", "line": None}]},
            ("x: a; y: b", False, False, {}),
        ),
        (
            {"data": [{"code": "billing_hard_limit_reached", "message": "pay", "line": None}]},
            ("billing_hard_limit_reached: pay", False, True, {}),
        ),
    ],
)
def test_refusals_are_read_with_care(errors: object, expected: tuple[object, ...]) -> None:
    refusal = read_refusal({"errors": errors}, str)
    assert (
        refusal.words,
        refusal.queue_is_full,
        getattr(refusal.meant, "code", "") == "quota",
        refusal.lines,
    ) == expected
