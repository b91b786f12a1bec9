"""Batches at providers that differ from OpenAI's: files that take time, other words, files and counts that lack."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_server import BatchServer, Course, Fault, Row, answer, refuse, succeed
from scripted_server import Scripted
from test_batch import by_try, errors, live_results, outcomes, results, seeds, settings_for

from datagen.batch.client import BatchesUnderWay
from datagen.batch.states import read_file_state, read_state
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.synthesize import synthesize
from datagen.work.asking import cancel_all

__all__ = ["seeds"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            "waiting",
            "validating VALIDATING in_progress InProgress finalizing queued PENDING running NotStarted created",
        ),
        ("waiting", "processing submitted JOB_STATE_RUNNING preprocessing incomplete"),
        (
            "completed",
            "completed COMPLETED Succeeded SUCCESS done finished ended JOB_STATE_PARTIALLY_SUCCEEDED",
        ),
        ("completed", "completed_with_errors"),
        ("failed", "failed FAILED error validation_failed rejected JOB_STATE_FAILED"),
        ("expired", "expired EXPIRED TIMEOUT_EXCEEDED timed_out JOB_STATE_EXPIRED"),
        ("cancelling", "cancelling canceling CANCELLATION_REQUESTED"),
        ("cancelled", "cancelled canceled CANCELED JOB_STATE_CANCELLED stopped"),
        ("unknown", "archived hibernated JOB_STATE_UNSPECIFIED"),
    ],
)
def test_states_of_batches_are_read_in_any_words(state: str, words: str) -> None:
    assert {read_state(word) for word in words.split()} == {state}


@pytest.mark.parametrize(
    ("state", "files"),
    [
        (
            "waiting",
            [
                {"status": word}
                for word in ["uploaded", "pending", "processing", "PROCESSING", "queued", "running"]
            ],
        ),
        ("waiting", [{"processed": False}]),
        ("ready", [{}, {"status": None}, {"processed": True, "status": "uploaded"}]),
        ("ready", [{"status": word} for word in ["processed", "ok", "ready", "PROCESSED", "success"]]),
        ("failed", [{"status": word} for word in ["error", "failed", "deleted", "deleting", "Invalid"]]),
    ],
)
def test_states_of_files_are_read_in_any_words(state: str, files: list[Row]) -> None:
    assert {read_file_state(file) for file in files} == {state}


def test_a_file_is_waited_for_until_it_is_processed(tmp_path: Path, seeds: Path) -> None:
    with BatchServer() as server:
        server.file_states = ["pending", "pending", "processing", "processed"]
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert server.count("GET", "/v1/files/file-0") == 3
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_a_file_that_never_says_so_is_used_all_the_same(
    tmp_path: Path, seeds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with BatchServer() as server:
        server.file_states = ["uploaded"]
        synthesize(settings_for(server, seeds, service={"patience_s": 0.05}), tmp_path / "work")
    assert "is still 'uploaded'" in caplog.text
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_a_file_that_cannot_be_processed_is_told_and_sent_anew(tmp_path: Path, seeds: Path) -> None:
    with BatchServer() as server:
        server.file_states = ["uploaded", "error"]
        with pytest.raises(ServiceError, match="could not process") as caught:
            synthesize(settings_for(server, seeds), tmp_path / "work")
        assert "`mode` live" in str(caught.value)
        assert not server.batches
        server.file_states = ["processed"]
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert len([name for name in server.files if name.startswith("file-")]) == len(server.batches) + 1
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)


def test_a_file_is_not_sent_again_after_the_batch_was_not_made(tmp_path: Path, seeds: Path) -> None:
    no = Scripted("the moon is full", 400)
    with BatchServer(
        fault=lambda method, path, number: (
            no if (method, path, number) == ("POST", "/v1/batches", 0) else None
        )
    ) as server:
        with pytest.raises(ServiceError, match="the moon is full"):
            synthesize(settings_for(server, seeds), tmp_path / "work")
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert server.count("POST", "/v1/files") == len(server.batches)
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    with Ledger(tmp_path / "work" / "ledger.sqlite", read_only=True) as ledger:
        assert not list(ledger.execute("SELECT * FROM notes WHERE key LIKE 'batch file%'"))


def test_a_file_that_is_gone_is_sent_again(tmp_path: Path, seeds: Path) -> None:
    def fault(method: str, path: str, number: int) -> Scripted | None:
        if (method, path, number) == ("POST", "/v1/batches", 0):
            return Scripted("not now", 400)
        return Scripted("no such file", 404) if path == "/v1/files/file-0" else None

    with BatchServer(fault=fault) as server:
        with pytest.raises(ServiceError):
            synthesize(settings_for(server, seeds), tmp_path / "work")
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert server.batches["batch_0"]["input_file_id"] == "file-1"


def test_a_file_whose_arrival_was_not_heard_of_is_found(tmp_path: Path, seeds: Path) -> None:
    lost = Fault(Scripted(reset=True), after=True)
    with BatchServer(
        fault=lambda method, path, number: (
            lost if (method, path, number) == ("POST", "/v1/files", 0) else None
        )
    ) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert server.count("POST", "/v1/files") == len(server.batches)


def together(batch: Row) -> Row:
    kept = {key: batch[key] for key in ("id", "input_file_id", "output_file_id", "error_file_id")}
    return {"job": kept | {"status": batch["status"].upper(), "progress": 12.5}}


def mistral(batch: Row) -> Row:
    words = {"completed": "SUCCESS", "validating": "QUEUED", "expired": "TIMEOUT_EXCEEDED"}
    told = batch["request_counts"]
    return {
        "id": batch["id"],
        "status": words.get(batch["status"], "RUNNING"),
        "output_file": batch["output_file_id"],
        "error_file": batch["error_file_id"],
        "total_requests": told["total"],
        "completed_requests": told["completed"] + told["failed"],
        "succeeded_requests": told["completed"],
        "failed_requests": told["failed"],
        "errors": [],
    }


def google(batch: Row) -> Row:
    words = {"completed": "JOB_STATE_SUCCEEDED", "expired": "JOB_STATE_EXPIRED"}
    return batch | {"status": words.get(batch["status"], "JOB_STATE_RUNNING"), "request_counts": None}


def unheard_of(batch: Row) -> Row:
    words = {"completed": "archived", "expired": "archived", "in_progress": "hibernated"}
    return batch | {"status": words.get(batch["status"], batch["status"])}


@pytest.mark.parametrize("change", [together, mistral, google, unheard_of])
def test_providers_words_and_fields_differ_and_the_result_does_not(
    tmp_path: Path, seeds: Path, change: Callable[[Row], Row], caplog: pytest.LogCaptureFixture
) -> None:
    courses = [Course(end="expired", done=0.5, change=change), Course(change=change)]
    with BatchServer(courses) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
        billed = Counter(id for id, _, _ in server.billed)
    assert set(billed.values()) == {1}
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert ("unknown state 'hibernated'" in caplog.text) == (change is unheard_of)


def test_a_batch_without_metadata_is_found_by_its_file(tmp_path: Path, seeds: Path) -> None:
    lost = Fault(Scripted(reset=True), after=True)
    with BatchServer(
        fault=lambda method, path, number: (
            lost if (method, path, number) == ("POST", "/v1/batches", 0) else None
        )
    ) as server:
        keep = server._create
        server._create = lambda asked: (keep(asked), server.batches["batch_0"].update(metadata=None))[0]
        synthesize(settings_for(server, seeds), tmp_path / "work")
    assert max(Counter(server.asked()).values()) == 1


def test_a_batch_that_may_be_made_where_none_are_listed_can_be_given_up(tmp_path: Path, seeds: Path) -> None:
    def fault(method: str, path: str, number: int) -> Scripted | Fault | None:
        if (method, path) == ("GET", "/v1/batches"):
            return Scripted("method not allowed", 405)
        return Fault(Scripted(reset=True), after=True) if (method, path) == ("POST", "/v1/batches") else None

    with BatchServer(fault=fault) as server:
        for _ in range(2):
            with pytest.raises(ServiceError, match="does not list") as caught:
                synthesize(settings_for(server, seeds), tmp_path / "work")
            assert "`cancel_batches`" in str(caught.value)
        cancel_all(settings_for(server, seeds), tmp_path / "work")
    assert outcomes(tmp_path / "work") == {"unknown": len(server.rows["batch_0"])}


def test_replies_whose_file_is_gone_can_be_given_up(tmp_path: Path, seeds: Path) -> None:
    gone = Scripted("no such file", 404)
    with BatchServer(
        fault=lambda method, path, number: gone if path.endswith("/content") else None
    ) as server:
        with pytest.raises(ServiceError, match="fetching the replies of batch") as caught:
            synthesize(settings_for(server, seeds), tmp_path / "work")
        assert "`cancel_batches`" in str(caught.value)
        cancel_all(settings_for(server, seeds), tmp_path / "work")
    assert set(outcomes(tmp_path / "work")) == {"unknown"}


def test_an_unknown_state_is_not_waited_for_for_ever(tmp_path: Path, seeds: Path) -> None:
    work = tmp_path / "work"
    with BatchServer([Course(steps=["hibernated"] * 999)]) as server:
        with pytest.raises(BatchesUnderWay):
            synthesize(settings_for(server, seeds), work, wait=False)
        with Ledger(work / "ledger.sqlite") as ledger:
            ledger.execute("UPDATE batches SET planned_at = '2020-01-01T00:00:00+00:00'")
        with pytest.raises(ServiceError, match="unknown state") as caught:
            synthesize(settings_for(server, seeds), work)
        assert "hibernated" in str(caught.value)
        assert "`cancel_batches`" in str(caught.value)
        server._cancel = lambda id: Scripted("it sleeps", 409)
        cancel_all(settings_for(server, seeds), work)
    assert set(outcomes(work)) == {"unknown"}


def test_an_output_file_that_is_named_late_is_waited_for(tmp_path: Path, seeds: Path) -> None:
    looks = Counter[str]()

    def late(batch: Row) -> Row:
        looks[batch["id"]] += batch["status"] == "completed"
        return batch | {"output_file_id": None} if looks[batch["id"]] in (1, 2) else batch

    with BatchServer([Course(change=late, steps=[])]) as server:
        # Once a batch has ended, a look shows it as it is.
        synthesize(settings_for(server, seeds), tmp_path / "work")
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
    assert set(outcomes(tmp_path / "work")) == {"settled"}


def test_a_batch_of_errors_alone_needs_no_output_file(tmp_path: Path, seeds: Path) -> None:
    wrong = Course(reply=lambda row, number: refuse(row, 400, "temperature is not supported"))
    wrong.change = lambda batch: batch | {"status": "failed"} if batch["error_file_id"] else batch
    with BatchServer([wrong, Course()]) as server:
        with pytest.raises(ServiceError, match="refused every request") as caught:
            synthesize(settings_for(server, seeds, target=20), tmp_path / "work")
        assert set(outcomes(tmp_path / "work")) == {"free"}
    assert "`task_sampling.temperature`" in str(caught.value)


BROKEN: tuple[object, ...] = (
    {"choices": []},
    "text",
    None,
    {"output": {"text": "Rest."}},
)


@pytest.mark.parametrize("body", [BROKEN[0], BROKEN[1], BROKEN[3]])
def test_replies_that_cannot_be_read_are_not_paid_for_again_and_again(
    tmp_path: Path, seeds: Path, body: object
) -> None:
    """A provider of another form: one batch shows it. The same command tries each once more, and no third time."""
    with BatchServer([Course(reply=lambda row, number: answer(row, 200, body))]) as server:
        for run in (1, 2):
            with pytest.raises(ServiceError, match="no reply of a batch is readable") as caught:
                synthesize(settings_for(server, seeds, target=20), tmp_path / "work")
            assert len(server.batches) == run
            assert "`mode` live" in str(caught.value)
        assert set(Counter(server.asked()).values()) == {2}
        many = len(server.rows["batch_0"])
    assert outcomes(tmp_path / "work") == {"unknown": 2 * many}
    assert len(errors(tmp_path / "work")) == many
    assert "2 of them paid for" in errors(tmp_path / "work")[0]


@pytest.mark.parametrize("body", BROKEN)
def test_one_reply_that_cannot_be_read_is_asked_for_once_more(
    tmp_path: Path, seeds: Path, body: object
) -> None:
    def reply(row: Row, number: int) -> Row:
        return answer(row, 200, body) if row["custom_id"] == "tasks-000001" else succeed(row)

    with BatchServer([Course(reply=reply)]) as server:
        funnel = synthesize(settings_for(server, seeds, batch={"max_rounds": 9}), tmp_path / "work")
        assert Counter(server.asked())["tasks-000001"] == 2
    assert sum(funnel.task_requests_failed.values()) == 1
    assert funnel.target_reached


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (lambda row: refuse(row, 429, "slow down"), 2),
        (lambda row: refuse(row, 500, "oops"), 2),
        (lambda row: refuse(row, 503, "overloaded"), 2),
        (lambda row: refuse(row, 400, "too long"), 1),
        (lambda row: refuse(row, 400, "flagged", "content_filter"), 1),
        (lambda row: answer(row, 400, {"error": "content blocked by the safety filter"}), 1),
    ],
)
def test_rows_mean_what_the_table_of_refusals_says(
    tmp_path: Path, seeds: Path, row: Callable[[Row], Row], asked: int
) -> None:
    def reply(each: Row, tried: int) -> Row:
        return row(each) if each["custom_id"] == "tasks-000001" and tried == 1 else succeed(each)

    with BatchServer([Course(reply=by_try(reply))]) as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
        assert Counter(server.asked())["tasks-000001"] == asked
    assert outcomes(tmp_path / "work")["free"] == 1


def test_completions_without_an_envelope_are_read(tmp_path: Path, seeds: Path) -> None:
    def bare(row: Row, number: int) -> Row:
        good = succeed(row)
        body = good["response"]["body"]
        return good | {"response": {"body": body} if number % 2 else {"status_code": "200", "body": body}}

    class Lenient(BatchServer):
        """Sorts good and bad lines by what they hold."""

        def _finish(self, id: str, course: Course) -> None:
            super()._finish(id, Course(end=course.end))
            lines = [bare(row, number) for number, row in enumerate(self.rows[id])]
            self.files[f"{id}-output_file_id"] = "".join(json.dumps(line) + "\n" for line in lines).encode()

    with Lenient() as server:
        synthesize(settings_for(server, seeds), tmp_path / "work")
    assert results(tmp_path / "work") == live_results(tmp_path, seeds)
