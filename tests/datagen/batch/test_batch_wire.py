import asyncio
import io
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from batch_server import BatchServer, Course, expire, refuse, succeed
from scripted_server import Scripted

from datagen.batch.files import Line, input_line
from datagen.batch.wire import BatchWire
from datagen.errors import ServiceError
from datagen.service.wire import RequestError, Service

T = TypeVar("T")
KEY = "sk-abcdefgh-0123456789-ZYXWVUTS"
ROW = {"custom_id": "tasks-0", "body": {"messages": [{"role": "user", "content": "Why rest?"}]}}


def with_wire(server: BatchServer, act: Callable[[BatchWire], Awaitable[T]], **changes: Any) -> T:
    values = {"first_wait_s": 0.01, "max_tries": 4, "timeout_s": 5, "patience_s": 10} | changes

    async def run() -> T:
        async with BatchWire(Service(server.base_url, "scripted", **values)) as wire:
            return await act(wire)

    return asyncio.run(run())


def line_of(row: dict[str, Any]) -> Line:
    response = row["response"] or {}
    return Line("0", response.get("status_code", 0), response.get("body"), row["error"])


def trouble_of(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> RequestError:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def read(wire: BatchWire) -> RequestError:
        await wire.open()
        with pytest.raises(RequestError) as caught:
            wire.read_line(line_of(row))
        return caught.value

    with BatchServer() as server:
        return with_wire(server, read)


def test_a_batch_goes_up_and_its_replies_come_down() -> None:
    async def act(wire: BatchWire) -> list[str]:
        file = io.BytesIO(b"".join(input_line("tasks", str(number), ROW["body"]) for number in range(3)))
        file.read()
        file_id = (await wire.upload(file, "x.jsonl"))["id"]
        made = await wire.create(file_id, {"alpacare_folder": "f", "alpacare_part": "1"})
        for number in range(5):
            await wire.create(file_id, {"alpacare_folder": "other", "alpacare_part": str(number)})
        found = await wire.find({"alpacare_folder": "f"}, time.time())
        assert [each["id"] for each in found] == [made["id"]]
        assert await wire.find({"alpacare_folder": "nobody"}, time.time()) == []
        batch = made
        while batch["status"] != "completed":
            batch = await wire.retrieve(made["id"])
        into = io.BytesIO(b"x" * 10_000)
        await wire.download(batch["output_file_id"], into)
        return into.read().decode().splitlines()

    with BatchServer() as server:
        assert len(with_wire(server, act)) == 3


@pytest.mark.parametrize(
    ("row", "code", "kind", "bill"),
    [
        (expire(ROW), "expired", "fault", "none"),
        (expire(ROW, "batch_cancelled"), "cancelled", "fault", "none"),
        (refuse(ROW, 400, "too long"), "bad-request", "final", "none"),
        (refuse(ROW, 429, "slow down", "rate_limit_exceeded"), "rate-limited", "refusal", "none"),
        (refuse(ROW, 429, "pay", "insufficient_quota"), "quota", "fatal", "none"),
        (refuse(ROW, 500, "oops"), "server-error", "fault", "none"),
        (refuse(ROW, 404, "no such model", "model_not_found"), "not-found", "fatal", "none"),
        ({"response": {"status_code": 200, "body": "text"}, "error": None}, "bad-reply", "fault", "unknown"),
        (
            {"response": {"status_code": 200, "body": {"choices": []}}, "error": None},
            "bad-reply",
            "fault",
            "unknown",
        ),
        ({"response": {"status_code": 500, "body": None}, "error": None}, "server-error", "fault", "none"),
        ({"response": None, "error": None}, "batch-error", "fault", "unknown"),
    ],
)
def test_lines_without_a_reply_are_judged_like_replies_that_fail(
    row: dict[str, Any], code: str, kind: str, bill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = trouble_of(row, monkeypatch)
    assert (trouble.code, trouble.kind, trouble.bill) == (code, kind, bill)


def test_no_key_leaves_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in (
        refuse(ROW, 500, f"your key {KEY} is odd"),
        {"response": None, "error": {"code": "x", "message": f"Bearer {KEY}"}},
        {"response": {"status_code": 200, "body": {"echo": KEY}}, "error": None},
    ):
        trouble = trouble_of(row, monkeypatch)
        assert KEY[:10] not in str(trouble)

    async def read(wire: BatchWire) -> str:
        await wire.open()
        return wire.read_line(line_of(succeed(ROW, f"the key is {KEY}"))).text

    with BatchServer() as server:
        assert KEY[:10] not in with_wire(server, read)


def test_a_wait_that_is_asked_for_is_kept() -> None:
    times: list[float] = []

    def fault(method: str, path: str, number: int) -> Scripted | None:
        times.append(time.monotonic())
        return Scripted("slow down", 429, headers={"retry-after": "0.4"}) if number < 2 else None

    async def act(wire: BatchWire) -> None:
        await wire.retry("looking", lambda: wire.find({"x": "y"}, time.time()))

    with BatchServer(fault=fault) as server:
        with_wire(server, act)
    assert [later - before >= 0.39 for before, later in itertools.pairwise(times)] == [True, True]


@pytest.mark.parametrize(
    ("reply", "changes", "words"),
    [
        (Scripted("later", 429, headers={"retry-after": "7200"}), {}, "asks for a wait of 2 h"),
        (Scripted("oops", 500), {"max_tries": 3}, "looking fails, after 3 tries"),
        (Scripted("oops", 500), {"max_tries": 99, "patience_s": 0.2}, "looking fails, after"),
        (Scripted("bad", 400), {}, "the service refuses looking"),
        (Scripted("no", 401), {}, "refused the key"),
        (Scripted(raw=b"<html>"), {"max_tries": 2}, "looking fails, after 2 tries"),
        (Scripted(raw=b"[]"), {"max_tries": 2}, "looking fails, after 2 tries"),
        (Scripted(raw=b'{"data": 3}'), {"max_tries": 2}, "looking fails, after 2 tries"),
    ],
)
def test_what_will_not_end_ends_the_run(reply: Scripted, changes: dict[str, Any], words: str) -> None:
    async def act(wire: BatchWire) -> None:
        await wire.retry("looking", lambda: wire.retrieve("batch_0"))

    with BatchServer(fault=lambda method, path, number: reply) as server:
        with pytest.raises(ServiceError, match=words) as caught:
            with_wire(server, act, **changes)
        remedies = ("run the same command again", "key", "check the base URL")
        assert any(remedy in str(caught.value) for remedy in remedies)


@pytest.mark.parametrize("raw", [b'{"batches": []}', b"[" * 100_000])
def test_a_list_of_batches_in_an_unknown_form_ends_the_run(raw: bytes) -> None:
    with (
        BatchServer(fault=lambda method, path, number: Scripted(raw=raw)) as server,
        pytest.raises(ServiceError, match="looking for a batch fails, after 2 tries"),
    ):
        with_wire(server, lambda wire: wire.find({"x": "y"}, time.time()), max_tries=2)


def test_a_call_that_takes_longer_than_the_patience_is_tried_again() -> None:
    asked: list[float] = []

    async def act(wire: BatchWire) -> None:
        async def call() -> None:
            await asyncio.sleep(0.3)
            asked.append(time.monotonic())
            if len(asked) == 1:
                raise RequestError("timeout", "no reply", "fault")

        await wire.retry("sending", call)

    with BatchServer() as server:
        with_wire(server, act, patience_s=0.2)
    assert len(asked) == 2


def test_a_service_that_was_reached_is_waited_for(tmp_path: Path) -> None:
    async def act(wire: BatchWire) -> str:
        file = await wire.retry("sending", lambda: wire.upload(io.BytesIO(b"{}\n"), "x.jsonl"))
        return str((await wire.retry("sending", lambda: wire.upload(io.BytesIO(b"{}\n"), file["id"])))["id"])

    with BatchServer(
        [Course()], fault=lambda method, path, number: Scripted("oops", 500) if 0 < number < 9 else None
    ) as server:
        assert with_wire(server, act, max_tries=2) == "file-1"


def test_a_lone_refusal_of_a_key_that_was_taken_before_is_asked_again_and_a_lasting_one_ends_the_run() -> (
    None
):
    async def act(wire: BatchWire) -> str:
        for _ in range(3):
            file = await wire.retry("sending", lambda: wire.upload(io.BytesIO(b"{}\n"), "x.jsonl"))
        return str(file["id"])

    def fault(method: str, path: str, number: int) -> Scripted | None:
        return Scripted("forbidden", 403) if number in (1, 2, 4) or number > 5 else None

    with BatchServer([Course()], fault=fault) as server:
        assert with_wire(server, act)
        with pytest.raises(ServiceError, match="refused the key"):
            with_wire(server, act)
