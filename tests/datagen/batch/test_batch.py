import contextlib
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer, Course, Fault, Row, expire, refuse, succeed
from scripted_server import Scripted, ScriptedServer, write_tasks

from datagen.batch.client import BatchesUnderWay
from datagen.batch.files import BatchLimits
from datagen.batch.store import BatchStore
from datagen.errors import ConfigError, DataError, ServiceError
from datagen.ledger import Ledger
from datagen.records import SeedTask, write_records
from datagen.service.chat import Sampling
from datagen.service.wire import Service
from datagen.settings import Settings
from datagen.synthesize import status, synthesize
from datagen.work.asking import cancel_all

SEEDS = (
    "What is gout?",
    "List signs of sepsis.",
    "Summarise this.",
    "Explain insulin to a child.",
    "Why rest?",
)
FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl")
LIVE: dict[str, str] = {}
PRICES = {"scripted": {"input": 1000.0, "output": 1000.0, "batch_discount": 0.5}}


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    write_records(path, [SeedTask(text, "<noinput>", "Open Q&A", "Medicine", "Nurse", "2") for text in SEEDS])
    return path


def settings_for(server: BatchServer | ScriptedServer, seeds: Path, **changes: Any) -> Settings:
    service = Service(server.base_url, "scripted", timeout_s=5, max_tries=3, first_wait_s=0.01, patience_s=30)
    service = dataclasses.replace(service, **changes.pop("service", {}))
    limits = BatchLimits(**{"poll_s": 0.01} | changes.pop("batch", {}))
    values = {"seeds": seeds, "target": 10, "tasks_per_request": 4, "mode": "batch", "prices": PRICES}
    return Settings(service, service, batch=limits, **values | changes)


def results(work: Path) -> dict[str, str]:
    return {
        name: re.sub(r'"time": "[^"]*"', '"time": ""', (work / name).read_text("utf-8")) for name in FILES
    }


def live_results(tmp_path: Path, seeds: Path) -> dict[str, str]:
    """What asking one by one gives; it is the same for all tests, so it is found out once."""
    if not LIVE:
        with ScriptedServer(lambda body, tried: write_tasks(body)) as server:
            synthesize(settings_for(server, seeds, mode="live"), tmp_path / "live")
        LIVE.update(results(tmp_path / "live"))
    return LIVE


def errors(work: Path) -> list[str]:
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        return [entry.error for entry in ledger.entries() if entry.error]


def outcomes(work: Path) -> Counter[str]:
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        return Counter(each.outcome for each in ledger.tries())


def by_try(make: Callable[[Row, int], Row | None]) -> Callable[[Row, int], Row | None]:
    """Count how often each request was asked, and hand the count on in place of the row's place."""
    tries: Counter[str] = Counter()

    def reply(row: Row, _: int) -> Row | None:
        tries[row["custom_id"]] += 1
        return make(row, tries[row["custom_id"]])

    return reply


def test_batches_give_what_asking_one_by_one_gives_at_half_the_price(tmp_path: Path, seeds: Path) -> None:
    with BatchServer() as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert funnel.target_reached
    assert len(server.asked()) == len(set(server.asked()))
    tokens = sum(prompt + completion for _, prompt, completion in server.billed)
    assert funnel.money.spent_usd == pytest.approx(tokens * 1000 / 1e6 / 2)
    assert funnel.money.unpriced_tries == 0
    with Ledger(tmp_path / "work" / "ledger.sqlite", read_only=True) as ledger:
        entry = next(ledger.entries("answers"))
        assert entry.batch_id in server.batches
        assert entry.cost_usd == pytest.approx(
            ((entry.prompt_tokens or 0) + (entry.completion_tokens or 0)) * 1000 / 1e6 / 2
        )
    rounds = [record for record in status(tmp_path / "work").batches if record["stage"] == "tasks"]
    assert len(rounds) <= 3


def test_only_what_is_missing_is_sent_again(tmp_path: Path, seeds: Path) -> None:
    def reply(row: Row, tried: int) -> Row:
        place = int(row["custom_id"].removeprefix("tasks-")) if row["custom_id"].startswith("tasks") else 9
        if place == 1:
            return refuse(row, 400, "this prompt is not allowed")
        if place == 2 and tried == 1:
            return refuse(row, 500, "try later")
        if place == 3 and tried == 1:
            return expire(row)
        return succeed(row)

    with BatchServer([Course(reply=by_try(reply))]) as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
    asked = Counter(server.asked())
    assert {id for id, many in asked.items() if many > 1} == {"tasks-000002", "tasks-000003"}
    assert funnel.task_requests_failed == {"bad-request": 1}
    assert errors(tmp_path / "work") == ["bad-request: HTTP 400: this prompt is not allowed"]
    assert outcomes(tmp_path / "work") == {"settled": len(server.billed), "free": 3}


def test_a_missing_reply_has_no_day_of_its_own(tmp_path: Path, seeds: Path) -> None:
    def reply(row: Row, tried: int) -> Row:
        return expire(row) if row["custom_id"] == "tasks-000000" and tried == 1 else succeed(row)

    with BatchServer([Course(reply=by_try(reply))]) as server:
        synthesize(settings_for(server, seeds, target=40), tmp_path / "work")
    _, second, *_ = server.rows.values()
    assert "tasks-000000" in {row["custom_id"] for row in second}
    assert len(second) > 1, "what the target lacks goes with it"
    stages = [rows[0]["custom_id"].split("-")[0] for rows in server.rows.values()]
    assert stages == ["tasks", "tasks", "answers"]


def test_a_batch_that_expires_half_way_keeps_what_was_done(tmp_path: Path, seeds: Path) -> None:
    for silent in (False, True):
        work = tmp_path / str(silent)
        with BatchServer([Course(end="expired", done=0.5, silent=silent), Course()]) as server:
            synthesize(settings_for(server, seeds), work)
        first, second = list(server.rows.values())[:2]
        half = {row["custom_id"] for row in first[: round(len(first) / 2)]}
        assert {row["custom_id"] for row in second} >= {row["custom_id"] for row in first} - half
        assert not {row["custom_id"] for row in second} & half
        assert results(work) == (results(tmp_path / "False"))
        assert set(outcomes(work)) == {"settled", "free"}, "what expired is not billed"


def test_rounds_are_bounded(tmp_path: Path, seeds: Path) -> None:
    def reply(row: Row, number: int) -> Row:
        return refuse(row, 503, "never") if row["custom_id"] == "tasks-000000" else succeed(row)

    with BatchServer([Course(reply=reply)]) as server:
        settings = settings_for(server, seeds, batch={"max_rounds": 3})
        synthesize(settings, tmp_path / "work")
        assert Counter(server.asked())["tasks-000000"] == 3
        assert errors(tmp_path / "work") == ["server-error: HTTP 503: never (after 3 tries)"]
        synthesize(settings, tmp_path / "work", retry_failed=True)
        assert Counter(server.asked())["tasks-000000"] == 4


def test_files_stay_within_the_limits(tmp_path: Path, seeds: Path) -> None:
    with BatchServer() as server:
        limits = {"max_requests": 3, "max_megabytes": 0.006}
        synthesize(settings_for(server, seeds, batch=limits), tmp_path / "work")
        sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()]
        assert max(sizes) <= 6_000
        assert max(len(rows) for rows in server.rows.values()) == 3
        assert len(server.rows["batch_0"]) == 2
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_no_more_tokens_are_enqueued_than_allowed(tmp_path: Path, seeds: Path) -> None:
    most = 0

    def look(method: str, path: str, number: int) -> None:
        nonlocal most
        open_ = [id for id, batch in server.batches.items() if batch["status"] != "completed"]
        tokens = sum(len(server.files[server.batches[id]["input_file_id"]]) for id in open_) / 3
        most = max(most, round(tokens))

    with BatchServer(fault=look) as server:
        limits = {"max_requests": 1, "enqueued_tokens": 2000}
        synthesize(settings_for(server, seeds, batch=limits), tmp_path / "work")
    assert 1400 < most <= 2000


def queue_full(limit: int) -> Course:
    message = (
        f"Enqueued token limit reached for scripted in organization o. Limit: {limit:,} enqueued tokens."
    )
    return Course(end="failed", errors=[{"code": "token_limit_exceeded", "message": message, "line": None}])


def test_a_full_queue_makes_batches_smaller(tmp_path: Path, seeds: Path) -> None:
    with BatchServer([queue_full(2500), Course()]) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
    refused, *sent = [len(rows) for rows in server.rows.values()]
    assert sent[0] < refused
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    with Ledger(tmp_path / "work" / "ledger.sqlite", read_only=True) as ledger:
        assert {entry.tries for entry in ledger.entries()} == {1}, "a refused batch is no try"


def test_a_queue_that_stays_full_ends_the_run_resumably(tmp_path: Path, seeds: Path) -> None:
    with BatchServer([queue_full(90_000)]) as server:
        settings = settings_for(server, seeds)
        with pytest.raises(ServiceError, match="stays full") as caught:
            synthesize(settings, tmp_path / "work")
        assert "enqueued_tokens" in str(caught.value)
    assert set(outcomes(tmp_path / "work")) == {"free"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"code": "model_not_found", "message": "no model scripted", "line": 1}, "no model scripted"),
        ({"code": "billing_hard_limit_reached", "message": "pay first", "line": None}, "no credit left"),
        ({"code": None, "message": None}, "refused a batch"),
    ],
)
def test_a_refused_batch_stops_with_the_providers_words(
    tmp_path: Path, seeds: Path, error: Row, words: str
) -> None:
    errors = [error | {"line": number} if error.get("line") else error for number in range(1, 6)]
    with BatchServer([Course(end="failed", errors=errors), Course()]) as server:
        with pytest.raises(ServiceError, match=words):
            synthesize(settings_for(server, seeds), tmp_path / "work")
        assert set(outcomes(tmp_path / "work")) == {"free"}
        assert synthesize(settings_for(server, seeds), tmp_path / "work").target_reached


def test_bad_lines_cost_the_others_nothing(tmp_path: Path, seeds: Path) -> None:
    error = {"code": "invalid_request", "message": "line 2 is too long", "line": 2}
    with BatchServer([Course(end="failed", errors=[error]), Course()]) as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
    assert funnel.task_requests_failed == {"bad-request": 1}
    assert Counter(server.asked())["tasks-000001"] == 1


def test_faults_on_the_way_are_outlasted(tmp_path: Path, seeds: Path) -> None:
    def fault(method: str, path: str, number: int) -> Scripted | None:
        troubles = [
            Scripted("busy", 500),
            Scripted("slow down", 429, headers={"retry-after": "0.05"}),
            Scripted(reset=True),
            Scripted(raw=b"<html>bad gateway</html>", content_type="text/html"),
            Scripted("later", 503, headers={"retry-after-ms": "20"}),
        ]
        # Every file, creation and look fails a few times, in another way each time.
        if number % 3 < 2:
            return troubles[(len(path) + number) % len(troubles)] if "chat" not in path else None
        return None

    with BatchServer(fault=fault) as server:
        settings = settings_for(server, seeds, service={"max_tries": 5})
        synthesize(settings, tmp_path / "work")
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert len(server.asked()) == len(set(server.asked())), "nothing is asked twice"


@pytest.mark.parametrize(
    ("path", "asked"), [("/v1/files", 1), ("/v1/batches", 3), ("/v1/batches/batch_0", 3)]
)
def test_a_wrong_key_stops_at_once_and_one_that_was_taken_before_after_three_refusals(
    tmp_path: Path, seeds: Path, path: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-wrong-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    refusal = Scripted(f"Incorrect API key provided: {key}", 401)
    with BatchServer(fault=lambda method, at, number: refusal if at == path else None) as server:
        with pytest.raises(ServiceError, match="refused the key") as caught:
            synthesize(settings_for(server, seeds), tmp_path / "work")
        assert [at for _, at in server.calls].count(path) == asked
        assert server.authorizations == {f"Bearer {key}"}
    assert key not in str(caught.value)
    assert key.encode() not in (tmp_path / "work" / "ledger.sqlite").read_bytes()


def test_a_service_without_batches_is_named(tmp_path: Path, seeds: Path) -> None:
    nothing = Scripted("no such route", 404)
    with BatchServer(fault=lambda method, path, number: nothing) as server:
        with pytest.raises(ServiceError, match="sending a batch's file") as caught:
            synthesize(settings_for(server, seeds), tmp_path / "work")
        assert len(server.calls) == 1
    assert "`mode` live" in str(caught.value)


def test_a_batch_whose_creation_was_not_heard_of_is_not_made_twice(tmp_path: Path, seeds: Path) -> None:
    lost = Fault(Scripted(reset=True), after=True)
    with BatchServer(
        fault=lambda method, path, number: lost if (method, path) == ("POST", "/v1/batches") else None
    ) as server:
        for oldest_first in (False, True):
            server.latest_first = not oldest_first
            synthesize(settings_for(server, seeds), tmp_path / str(oldest_first))
            asked = Counter(server.asked())
            assert max(asked.values()) == 1 + oldest_first, "two folders, each asks once"
    assert results(tmp_path / "True") == results(tmp_path / "False") == live_results(tmp_path, seeds)


def test_a_batch_made_twice_is_cancelled_and_counts_as_spent(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    lost = Fault(Scripted(reset=True), after=True)
    with BatchServer(
        fault=lambda method, path, number: (
            lost if (method, path, number) == ("POST", "/v1/batches", 0) else None
        )
    ) as server:
        server.list_lags = 1
        funnel = synthesize(settings_for(server, seeds), work)
        first, second, *_ = server.batches.values()
        assert first["metadata"] == second["metadata"]
        assert {first["status"], second["status"]} == {"completed", "cancelling"}
        many = len(server.rows["batch_0"])
    assert outcomes(work)["unknown"] == many
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        worst = sum(each.reserved_usd or 0.0 for each in ledger.tries("outcome = 'unknown'"))
    assert funnel.money.unknown_usd == pytest.approx(worst)
    assert results(work) == live_results(tmp_path, seeds)


@pytest.mark.parametrize("cut", [{"cut_lengths": 2}, {"cut_downloads": 2}])
def test_a_file_that_was_cut_on_the_way_is_fetched_again(
    tmp_path: Path, seeds: Path, cut: dict[str, int]
) -> None:
    with BatchServer([Course(**cut)]) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert server.count("GET", "/v1/files/batch_0-output_file_id/content") == 3
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert set(outcomes(tmp_path / "work")) == {"settled"}


def test_a_reply_that_was_made_and_lost_stays_paid_and_is_asked_again(tmp_path: Path, seeds: Path) -> None:
    with BatchServer([Course(cut_downloads=99), Course()]) as server:
        funnel = synthesize(settings_for(server, seeds), tmp_path / "work")
        first = server.rows["batch_0"]
    again = [id for id, many in Counter(server.asked()).items() if many > 1]
    assert 0 < len(again) < len(first)
    assert outcomes(tmp_path / "work")["unknown"] == len(again)
    bill = sum(prompt + completion for _, prompt, completion in server.billed) * 1000 / 1e6 / 2
    assert funnel.money.spent_usd >= bill
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_useless_lines_are_told_and_nothing_more(
    tmp_path: Path, seeds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = json.dumps(
        {
            "custom_id": "tasks-000000",
            "response": {"status_code": 200, "body": {"choices": []}},
            "error": None,
        }
    )
    lines = [twice, '{"custom_id": "tasks-777777", "response": null}', "not JSON", "{}"]
    with caplog.at_level("WARNING"), BatchServer([Course(extra_lines=lines)]) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
    for words in ("'tasks-000000' for the second time", "'tasks-777777' was not asked for", "not JSON"):
        assert words in caplog.text
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert "4 invalid lines" in status(tmp_path / "work").batches[0]["words"]


def test_a_batch_cancelled_by_someone_ends_the_run_resumably(tmp_path: Path, seeds: Path) -> None:
    with BatchServer([Course(end="cancelled", done=0.4), Course()]) as server:
        settings = settings_for(server, seeds)
        with pytest.raises(ServiceError, match="was cancelled at the provider"):
            synthesize(settings, tmp_path / "work")
        done = {id for id, _, _ in server.billed}
        assert done
        synthesize(settings, tmp_path / "work")
    assert all(Counter(server.asked())[id] == 1 for id in done)
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_every_refused_request_is_no_accident(tmp_path: Path, seeds: Path) -> None:
    wrong = Course(reply=lambda row, number: refuse(row, 400, "presence_penalty is not supported"))
    with BatchServer([wrong, Course()]) as server:
        with pytest.raises(ServiceError, match="refused every request") as caught:
            synthesize(settings_for(server, seeds, target=20), tmp_path / "work")
        assert "presence_penalty" in str(caught.value)
        assert not errors(tmp_path / "work")
        assert synthesize(settings_for(server, seeds, target=20), tmp_path / "work").target_reached


def test_without_waiting_every_call_goes_on(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer() as server:
        settings = settings_for(server, seeds)
        while not (work / "funnel.json").exists():
            with contextlib.suppress(BatchesUnderWay):
                synthesize(settings, work, wait=False)
                break
            shown = status(work).batches[-1]
            assert shown["batch_id"] in server.batches
            assert shown["status"] in ("validating", "in_progress", "finalizing")
            assert len(server.calls) < 100, "it never ends"
    assert results(work) == live_results(tmp_path, seeds)
    assert len(server.asked()) == len(set(server.asked()))


def test_batch_and_live_go_on_in_each_others_folder(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer(chat=lambda body: Scripted(write_tasks(body))) as server:
        settings = settings_for(server, seeds, target=6)
        live = dataclasses.replace(settings, mode="live")
        with pytest.raises(BatchesUnderWay):
            synthesize(settings, work, wait=False)
        with pytest.raises(DataError, match="under way") as caught:
            synthesize(live, work)
        assert "`cancel_batches`" in str(caught.value)
        assert server.count("POST", "/v1/chat") == 0
        while server.batches["batch_0"]["status"] != "finalizing":
            with pytest.raises(DataError, match="under way"):
                synthesize(live, work)
        synthesize(live, work)
        assert server.count("POST", "/v1/chat") >= 6, "the batch's replies are not asked for again"
        synthesize(dataclasses.replace(settings, target=10), work)
        assert len(server.batches) > 1
    assert results(work) == live_results(tmp_path, seeds)


def test_batches_are_ended_on_demand(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer() as server:
        settings = settings_for(server, seeds)
        with pytest.raises(BatchesUnderWay):
            synthesize(settings, work, wait=False)
        (ended,) = cancel_all(settings, work)
        assert (ended["state"], ended["status"]) == ("ended", "cancelled")
        assert len(server.batches) == 1
        done = {id for id, _, _ in server.billed}
        assert len(done) == round(len(server.rows["batch_0"]) / 2)
        assert outcomes(work) == {"settled": len(done), "free": len(server.rows["batch_0"]) - len(done)}
        assert cancel_all(settings, work) == []
        synthesize(settings, work)
    assert all(Counter(server.asked())[id] == 1 for id in done)
    assert results(work) == live_results(tmp_path, seeds)


def test_a_batch_that_nobody_knows_can_be_given_up(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer() as server:
        settings = settings_for(server, seeds)
        with pytest.raises(BatchesUnderWay):
            synthesize(settings, work, wait=False)
        server.batches.clear()
        with pytest.raises(ServiceError, match="looking at batch batch_0") as caught:
            synthesize(settings, work)
        assert "`cancel_batches`" in str(caught.value)
        assert len(cancel_all(settings, work)) == 1
        assert set(outcomes(work)) == {"unknown"}
        assert synthesize(settings, work).target_reached


def test_a_batch_is_not_looked_for_at_another_address(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer() as server, BatchServer() as other:
        with pytest.raises(BatchesUnderWay):
            synthesize(settings_for(server, seeds), work, wait=False)
        with pytest.raises(ConfigError, match="another address") as caught:
            synthesize(settings_for(other, seeds), work)
        assert server.base_url in str(caught.value)
        assert not other.calls


def test_a_batch_is_made_smaller_to_fit_the_budget_and_the_cap_holds(tmp_path: Path, seeds: Path) -> None:
    sampling = {"task_sampling": Sampling(max_tokens=100), "answer_sampling": Sampling(max_tokens=100)}
    with BatchServer() as server:
        budget = 6.0
        settings = settings_for(server, seeds, budget_usd=budget, target=100, **sampling)
        funnel = synthesize(settings, tmp_path / "work")
        assert funnel.budget_reached
        assert 2 <= len(server.rows["batch_0"]) < 25
        billed = sum(prompt + completion for _, prompt, completion in server.billed) * 1000 / 1e6 / 2
        assert funnel.money.spent_usd == pytest.approx(billed)
        assert budget / 2 < billed <= budget
        assert len(server.batches) < 40, "no row of tiny batches to spend the last cent"
        assert funnel.instructions > 0
    with Ledger(tmp_path / "work" / "ledger.sqlite", read_only=True) as ledger:
        for each in ledger.tries("outcome = 'settled'"):
            assert each.batch
            assert 0 < (each.cost_usd or 0) <= (each.reserved_usd or 0)


def test_a_batch_that_was_never_sent_is_taken_back_before_asking_live(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    refusal = Scripted("no", 403)
    with BatchServer(
        fault=lambda method, path, number: (
            refusal if method == "POST" and number == 0 and "chat" not in path else None
        ),
        chat=lambda body: Scripted(write_tasks(body)),
    ) as server:
        settings = settings_for(server, seeds)
        with pytest.raises(ServiceError, match="refused the key"):
            synthesize(settings, work)
        with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
            assert [record.state for record in BatchStore(ledger).all()] == ["planned"]
        synthesize(dataclasses.replace(settings, mode="live"), work)
        assert not server.batches
        assert status(work).batches[0]["words"] == "never sent"
    assert results(work) == live_results(tmp_path, seeds)


def test_a_wrong_address_holds_nothing_up(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer() as server:
        wrong = {"base_url": "http://127.0.0.1:9/v1", "max_tries": 1}
        with pytest.raises(ServiceError, match="sending a batch's file fails"):
            synthesize(settings_for(server, seeds, service=wrong), work)
        synthesize(settings_for(server, seeds), work)
    assert results(work) == live_results(tmp_path, seeds)
