"""The client against real HTTP servers that enforce limits, pause, fail for a while, and echo keys."""

import asyncio
import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Scripted, ScriptedServer, text_of

from datagen.client import Reply, complete, stream
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.money.prices import Price, Prices
from datagen.service.chat import ChatRequest, Sampling
from datagen.service.wire import Service

DAY = "86400"


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made up for after a stall suits a window of a minute; the servers here have windows of seconds."""
    monkeypatch.setattr("datagen.service.rates.CATCH_UP_S", 0.05)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def questions(texts: Sequence[str]) -> list[ChatRequest]:
    return [
        ChatRequest(text, ({"role": "user", "content": text},), Sampling(max_tokens=100)) for text in texts
    ]


def numbered(count: int) -> list[str]:
    return [f"{number:03d}" for number in range(count)]


def service(server: ScriptedServer, **changes: Any) -> Service:
    settings = {"timeout_s": 10, "max_tries": 3, "concurrency": 8, "first_wait_s": 0.02} | changes
    return Service(server.base_url, "scripted", **settings)


def ask(texts: Sequence[str], server: ScriptedServer, ledger: Ledger, **changes: Any) -> list[Reply]:
    return complete(questions(texts), service(server, **changes), ledger, stage="s")


def most_in(times: Sequence[float], seconds: float) -> int:
    return max(sum(at <= each < at + seconds for each in times) for at in times)


def refused(wait: str | None = None, remaining: int | None = None) -> Scripted:
    headers = {} if wait is None else {"retry-after": wait}
    if remaining is not None:
        headers |= {"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": str(remaining)}
    return Scripted("slow down", 429, headers=headers)


class Enforcer:
    """A script that refuses what goes beyond a limit in a sliding window, and says so in headers or not."""

    def __init__(self, limit: int, window_s: float, *, headers: bool) -> None:
        self.limit, self.window_s, self.headers = limit, window_s, headers
        self.arrivals: list[float] = []
        self.refusals: list[float] = []

    def __call__(self, body: dict[str, Any], tried: int) -> Scripted:
        now = time.monotonic()
        recent = [at for at in self.arrivals if at > now - self.window_s]
        self.arrivals.append(now)
        said = {
            "x-ratelimit-limit-requests": f"{self.limit * 60 / self.window_s:g}",
            "x-ratelimit-remaining-requests": f"{max(0, self.limit - len(recent) - 1) * 60 / self.window_s:g}",
            "x-ratelimit-reset-requests": f"{max(0.0, recent[0] + self.window_s - now) if recent else 0:.3f}s",
        }
        # Client and server share one process and a busy machine: requests do not arrive exactly as they left.
        if len(recent) >= self.limit * 1.06:
            self.refusals.append(now)
            said["retry-after"] = "0.2"
            return Scripted("slow down", 429, headers=said if self.headers else {"retry-after": "0.2"})
        return Scripted("ok", headers=said if self.headers else {}, delay_s=0.05)


@pytest.mark.parametrize("headers", [True, False])
def test_a_configured_limit_is_never_exceeded_from_the_first_request_on(
    headers: bool, ledger: Ledger
) -> None:
    enforcer = Enforcer(60, 3.0, headers=headers)
    with ScriptedServer(enforcer) as server:
        ask(numbered(90), server, ledger, requests_per_minute=1200, concurrency=30)
    assert not enforcer.refusals
    assert most_in(enforcer.arrivals, 3.0) <= 60 * 1.06
    assert most_in(enforcer.arrivals, 0.5) <= 15, "no burst, not even at the start"
    # 90 at 97% of 20 a second: the limit is used, not only kept.
    assert enforcer.arrivals[-1] - enforcer.arrivals[0] < 1.4 * 90 / 19.4


def test_a_limit_told_in_headers_alone_is_kept_after_the_first_refusal(ledger: Ledger) -> None:
    enforcer = Enforcer(30, 1.5, headers=True)
    with ScriptedServer(enforcer) as server:
        replies = ask(numbered(80), server, ledger, concurrency=30)
    assert all(reply.text == "ok" for reply in replies)
    late = [at for at in enforcer.arrivals if not enforcer.refusals or at >= enforcer.refusals[0]]
    assert most_in(late, 1.5) <= 30 * 1.06
    assert len(enforcer.refusals) <= 1


def test_tokens_a_minute_are_kept_and_used(ledger: Ledger) -> None:
    def answer(body: dict[str, Any], tried: int) -> Scripted:
        usage = {"prompt_tokens": 20, "completion_tokens": 30}
        choice = {"message": {"content": "ok"}, "finish_reason": "stop"}
        return Scripted(raw=json.dumps({"choices": [choice], "usage": usage}).encode())

    with ScriptedServer(answer) as server:
        # 50 tokens each, 20 requests a second; the first is thought to take about 300, before anything is known.
        ask(numbered(60), server, ledger, tokens_per_minute=60_000, concurrency=20)
        assert most_in(server.times, 1.0) * 50 <= 1000 * 1.1
        assert 60 / 20 * 0.9 < server.times[-1] - server.times[0] < 6


def test_a_refusal_by_a_used_up_allowance_pauses_every_request(ledger: Ledger) -> None:
    gate = itertools.count()

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return refused("1.2", remaining=0) if next(gate) == 3 else Scripted("ok", delay_s=0.02)

    with ScriptedServer(script) as server:
        replies = ask(numbered(30), server, ledger, concurrency=2)
        gaps = [after - before for before, after in itertools.pairwise(server.times)]
    assert all(reply.text == "ok" for reply in replies)
    assert max(gaps) >= 1.1
    assert sum(gap > 0.5 for gap in gaps) == 1


def test_an_allowance_that_ends_pauses_without_a_refusal(ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        left = {"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "800ms"}  # fmt: skip
        return Scripted("ok", headers=left if text_of(body) == "004" else {})

    with ScriptedServer(script) as server:
        ask(numbered(10), server, ledger, concurrency=1)
        gaps = [after - before for before, after in itertools.pairwise(server.times)]
    assert gaps.index(max(gaps)) == 4
    assert 0.75 <= max(gaps) < 3


@pytest.mark.parametrize("remaining", [50, None])
def test_a_refusal_of_one_request_holds_up_no_other(remaining: int | None, ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        if text_of(body) == "002" and tried == 1:
            return refused("1.5", remaining)
        return Scripted("ok", delay_s=0.1)

    with ScriptedServer(script) as server:
        replies = ask(numbered(12), server, ledger, concurrency=4)
        times = dict(zip(server.texts(), server.times, strict=True))
    assert all(reply.text == "ok" for reply in replies)
    others = [at for text, at in times.items() if text != "002"]
    assert max(others) - min(others) < 1.2
    assert times["002"] - min(others) >= 1.5, "asked again, and not before its time"


@pytest.mark.parametrize("remaining", [50, None])
def test_an_absurd_wait_for_one_request_ends_that_request_with_the_reason(
    remaining: int | None, ledger: Ledger
) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        return refused(DAY, remaining) if text_of(body) == "002" else Scripted("ok", delay_s=0.1)

    with ScriptedServer(script) as server:
        start = time.monotonic()
        replies = ask(numbered(8), server, ledger, concurrency=4)
        assert time.monotonic() - start < 4
        assert list(server.texts()).count("002") == 1, "never asked before its time"
    assert [bool(reply.error) for reply in replies] == [text == "002" for text in numbered(8)]
    assert replies[2].error_code == "rate-limited"
    assert "not before 20" in replies[2].error
    assert "beyond the patience of 1 h 0 min" in replies[2].error


@pytest.mark.parametrize("remaining", [0, None])
def test_an_absurd_wait_for_everyone_ends_the_run_at_once_and_resumably(
    remaining: int | None, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datagen.service.circuit.FIRST_PROBE_S", 0.02)
    closed = True

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return refused(DAY, remaining) if closed and text_of(body) > "003" else "ok"

    with ScriptedServer(script) as server:
        with pytest.raises(ServiceError) as caught:
            ask(numbered(30), server, ledger, concurrency=2)
        assert server.count <= 14
        assert "1 d 0 h" in str(caught.value) or "refused every request" in str(caught.value)
        assert "slow down" in str(caught.value)
        assert ledger.counts()["s"]["failed"] == 0
        closed = False
        assert all(reply.text == "ok" for reply in ask(numbered(30), server, ledger))


def test_a_single_request_told_to_wait_a_day_does_not_hang(ledger: Ledger) -> None:
    with ScriptedServer(lambda body, tried: refused(DAY)) as server:
        with pytest.raises(ServiceError, match="longer than the patience"):
            ask(["a"], server, ledger)
        assert server.count == 1
    assert [entry.state for entry in ledger.entries()] == ["sent"]


def test_a_longer_patience_waits(ledger: Ledger) -> None:
    with ScriptedServer(lambda body, tried: refused("1.1", 0) if tried == 1 else Scripted("ok")) as server:
        with pytest.raises(ServiceError, match=r"longer than the patience of 0\.5 s"):
            ask(["a"], server, ledger, patience_s=0.5)
        assert ask(["b"], server, ledger, patience_s=2)[0].text == "ok"


def test_waiting_for_a_limit_costs_no_tries(ledger: Ledger) -> None:
    start = time.monotonic()

    def script(body: dict[str, Any], tried: int) -> Scripted:
        return refused("0.1", 0) if time.monotonic() - start < 1.5 else Scripted("ok")

    with ScriptedServer(script) as server:
        replies = ask(numbered(6), server, ledger, max_tries=1, concurrency=3)
        assert server.count >= 10
    assert [reply.text for reply in replies] == ["ok"] * 6


@pytest.mark.parametrize("header", [{"retry-after-ms": "900"}, {"retry-after": "0.9"}])
def test_a_busy_service_is_left_alone_for_the_time_it_asks(header: dict[str, str], ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted("loading", 503, headers=header) if tried == 1 else Scripted("ok")

    with ScriptedServer(script) as server:
        assert ask(["a"], server, ledger, max_tries=1)[0].text == "ok"
        assert server.times[1] - server.times[0] >= 0.9


def test_an_outage_opens_the_circuit_and_costs_no_request(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    began: list[float] = []

    def script(body: dict[str, Any], tried: int) -> Scripted:
        if text_of(body) < "010":
            return Scripted("ok")
        began.append(time.monotonic())
        return Scripted("out of order", 500) if began[-1] - began[0] < 1.0 else Scripted("ok")

    with ScriptedServer(script) as server:
        replies = ask(numbered(60), server, ledger, max_tries=4, first_wait_s=0.1)
        assert all(reply.text == "ok" for reply in replies)
        during = [at for at in began if at - began[0] < 1.0]
    assert len(during) < 40, "the service is probed, not flooded"
    assert "; next try in" in caplog.text


def test_two_requests_that_always_fail_at_the_end_do_not_stop_the_run(ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted("poison", 500) if text_of(body) > "007" else Scripted("ok")

    with ScriptedServer(script) as server:
        replies = ask(numbered(10), server, ledger, max_tries=5)
    assert [reply.error_code for reply in replies] == [""] * 8 + ["server-error"] * 2


def test_a_small_local_server_is_not_overrun(ledger: Ledger) -> None:
    """At most three at a time, 503 beyond: the number in flight settles near what the server can do."""
    busy_until: list[float] = []
    turned_away = 0

    def script(body: dict[str, Any], tried: int) -> Scripted:
        nonlocal busy_until, turned_away
        now = time.monotonic()
        busy_until = [at for at in busy_until if at > now]
        if len(busy_until) >= 3:
            turned_away += 1
            return Scripted("busy", 503)
        busy_until.append(now + 0.03)
        return Scripted("ok", delay_s=0.03)

    with ScriptedServer(script) as server:
        replies = ask(numbered(150), server, ledger, concurrency=64, max_tries=20)
        assert server.most_in_flight <= 16
        assert turned_away < server.count / 3
    assert all(reply.text == "ok" for reply in replies)


def test_a_strong_local_server_is_used_fully(ledger: Ledger) -> None:
    """Replies take a second until twenty were in flight at once, which no machine is too busy for."""
    full = threading.Event()

    def script(body: dict[str, Any], tried: int) -> Scripted:
        if server.in_flight >= 20:
            full.set()
        return Scripted("ok", delay_s=0.0 if full.is_set() else 1.0)

    with ScriptedServer(script) as server:
        ask(numbered(150), server, ledger, concurrency=20)
        assert most_in(server.times, 0.9) >= 8, "unpaced from the start"
        assert server.most_in_flight == 20


def test_one_slow_request_holds_up_only_what_is_behind_it(ledger: Ledger) -> None:
    """The requests drawn ahead stay few, though the source is endless."""

    async def take(server: ScriptedServer) -> int:
        drawn = 0

        def endless() -> Iterator[ChatRequest]:
            nonlocal drawn
            for number in itertools.count():
                drawn += 1
                yield questions([f"{number:06d}"])[0]

        replies = stream(endless(), service(server, concurrency=4), ledger, stage="s")
        async with contextlib.aclosing(replies):
            async for _ in replies:
                return drawn
        return -1

    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted("ok", delay_s=1.0 if text_of(body) == "000000" else 0.0)

    with ScriptedServer(script) as server:
        assert asyncio.run(take(server)) == 16


def test_what_is_in_flight_when_the_credit_ends_is_still_harvested(ledger: Ledger) -> None:
    broke = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'

    def script(body: dict[str, Any], tried: int) -> Scripted:
        if text_of(body) == "stop":
            return Scripted(status=429, raw=broke, delay_s=0.1)
        return Scripted("ok", delay_s=0.6)

    with ScriptedServer(script) as server:
        with pytest.raises(ServiceError, match="no credit") as caught:
            ask(["a", "b", "stop", "c", *numbered(20)], server, ledger, concurrency=4)
        assert server.count == 4
    assert "You exceeded your current quota" in str(caught.value)
    assert {e.id: e.state for e in ledger.entries()} == {
        "a": "answered",
        "b": "answered",
        "c": "answered",
        "stop": "sent",
    }


def test_an_error_inside_a_reply_with_status_200_is_judged_as_what_it_is(ledger: Ledger) -> None:
    inside = b'{"error": {"message": "upstream is busy", "code": 429}}'

    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted(raw=inside) if tried < 3 else Scripted("ok")

    with ScriptedServer(script) as server:
        assert ask(["a"], server, ledger, max_tries=1)[0].text == "ok"


SECRET = "sk-verysecret-0123456789-abcdefghij"


def test_a_key_that_is_echoed_anywhere_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    part = SECRET[8:24]
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    echo = {"x-echo": f"Bearer {SECRET}", "set-cookie": part}
    choice = {"message": {"content": f"You sent {SECRET} and {part}"}, "finish_reason": "stop"}
    script = [
        Scripted(raw=json.dumps({"choices": [choice], "model": f"m {SECRET}"}).encode(), headers=echo),
        Scripted(
            f"bad key {SECRET[:10]}...{SECRET[-4:]} or {part}", 400, headers=echo, reason=f"No {SECRET}"
        ),
        Scripted(raw=b'{"choices": [], "echo": "' + escaped.encode() + b'"}'),
        Scripted(raw=f"<html>{SECRET}</html>".encode(), content_type="text/html"),
        Scripted(raw=json.dumps({"error": {"message": SECRET, "code": 400}}).encode()),
        Scripted(raw=json.dumps({"choices": [choice | {"finish_reason": part}]}).encode()),
    ]
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ScriptedServer(script) as server:
        first, *others = ask(list("abcdef"), server, ledger, concurrency=1, max_tries=1)
        assert server.authorizations[0] == f"Bearer {SECRET}"
    assert first.text == "You sent [key] and [key]"
    assert "[key]" in others[0].error
    assert others[-1].error_code == "interrupted"
    everything = caplog.text + "".join(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())
    assert not [at for at in range(len(SECRET) - 7) if SECRET[at : at + 8] in everything]


def test_every_try_is_paid_for_as_it_ended(ledger: Ledger) -> None:
    usage = b'{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}], "usage": %s}'
    script = [
        refused("0.01", 50),
        Scripted("oops", 500),
        Scripted(raw=b'{"choices": ['),
        Scripted("fine"),
        Scripted(raw=usage % b'{"prompt_tokens": 9, "completion_tokens": 0}'),
        Scripted("too long", 400),
    ]
    budget = Budget(ledger, Prices({"scripted": Price(1.0, 2.0)}), 1.0)
    with ScriptedServer(script) as server:
        complete(
            questions("abc"), service(server, concurrency=1, max_tries=5), ledger, stage="s", budget=budget
        )
    assert [each.outcome for each in ledger.tries()] == [
        "free",
        "free",
        "unknown",
        "settled",
        "settled",
        "free",
    ]
    assert budget.held_usd == 0


def test_an_interrupted_try_keeps_its_worst_case_spent(ledger: Ledger) -> None:
    budget = Budget(ledger, Prices({"scripted": Price(1.0, 2.0)}), 1.0)

    async def interrupted(server: ScriptedServer) -> None:
        async def consume() -> None:
            async for _ in stream(questions("ab"), service(server), ledger, stage="s", budget=budget):
                pass

        task = asyncio.ensure_future(consume())
        await asyncio.to_thread(server.wait_for, 2)
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted("ok", delay_s=20 if text_of(body) == "b" else 0.05)

    with ScriptedServer(script) as server:
        asyncio.run(interrupted(server))
    assert sorted(each.outcome for each in ledger.tries()) == ["settled", "unknown"]
    assert budget.held_usd == 0
