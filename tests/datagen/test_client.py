import dataclasses
import datetime
import email.utils
import logging
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, Scripted, ScriptedServer

from datagen.client import ChatRequest, Reply, Sampling, Service, complete, stream
from datagen.errors import ConfigError, DataError, ServiceError
from datagen.ledger import Ledger

SECRET = "sk-verysecret-0123456789"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def text_of(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def questions(texts: Sequence[str], **sampling: Any) -> list[ChatRequest]:
    return [ChatRequest(text, ({"role": "user", "content": text},), Sampling(**sampling)) for text in texts]


def service(server: ScriptedServer, **changes: Any) -> Service:
    settings = {"timeout_s": 5, "max_tries": 3, "concurrency": 4, "first_wait_s": 0.02} | changes
    return Service(server.base_url, "scripted", **settings)


def ask(texts: Sequence[str], server: ScriptedServer, ledger: Ledger, **changes: Any) -> list[Reply]:
    return complete(questions(texts), service(server, **changes), ledger, stage="s")


def test_replies_come_in_the_order_of_the_requests(ledger: Ledger) -> None:
    def later_first(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted(f"re {text_of(body)}", delay_s=0.2 - 0.02 * int(text_of(body)))

    seen: list[tuple[int, int]] = []
    with ScriptedServer(later_first) as server:
        replies = complete(
            questions([str(n) for n in range(10)]),
            service(server),
            ledger,
            stage="s",
            progress=lambda done, total: seen.append((done, total)),
        )
        assert server.most_in_flight == 4
    assert [reply.text for reply in replies] == [f"re {n}" for n in range(10)]
    assert seen == [(n, 10) for n in range(1, 11)]
    assert (replies[0].prompt_tokens, replies[0].completion_tokens) == (7, 2)


def test_the_body_holds_what_was_asked(ledger: Ledger) -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    full = ChatRequest("a", messages, Sampling(0.5, 0.9, 1.5, 64, ("###",), 11))
    plain = ChatRequest("b", messages, Sampling())
    with ScriptedServer(["x", "y"]) as server:
        complete([full, plain], service(server, concurrency=1), ledger, stage="s")
        first, second = server.bodies
    assert first == {
        "model": "scripted",
        "messages": list(messages),
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 1.5,
        "max_tokens": 64,
        "stop": ["###"],
        "seed": 11,
    }
    assert "seed" not in second
    assert "stop" not in second


def test_what_is_settled_is_not_asked_again_even_without_server_or_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"

    def one_refused(body: dict[str, Any], tried: int) -> Scripted | str:
        return Scripted("too long", 400) if text_of(body) == "b" else "re " + text_of(body)

    with ScriptedServer(one_refused) as server, Ledger(path) as ledger:
        before = ask("abc", server, ledger)
        with_more = ask("abcd", server, ledger)
        assert server.count == 4
    assert with_more[:3] == before
    with Ledger(path) as ledger:
        far = Service("https://nowhere.invalid/v1", "scripted")
        assert complete(questions("abcd"), far, ledger, stage="s") == with_more


FAULTS = {
    "429 without Retry-After": Scripted("slow down", 429),
    "429 with seconds": Scripted("slow down", 429, headers={"retry-after": "0.05"}),
    "429 with nonsense": Scripted("slow down", 429, headers={"retry-after": "soon"}),
    "500": Scripted("oops", 500),
    "503 with HTML": Scripted(status=503, raw=b"<html>busy</html>", content_type="text/html"),
    "connection reset": Scripted(reset=True),
    "truncated body": Scripted("half", promise_more=50),
    "hang": Scripted("late", delay_s=30),
    "HTML with 200": Scripted(raw=b"<html>please log in</html>", content_type="text/html"),
    "broken JSON": Scripted(raw=b'{"choices": [{"mess'),
    "not UTF-8": Scripted(raw=b"\xff\xfe\x00"),
    "JSON that is no object": Scripted(raw=b"[]"),
    "empty choices": Scripted(raw=b'{"choices": []}'),
    "no message": Scripted(raw=b'{"choices": [{"message": null}]}'),
    "content is no text": Scripted(raw=b'{"choices": [{"message": {"content": 5}}]}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_overcome(fault: str, ledger: Ledger) -> None:
    def faulty_first(body: dict[str, Any], tried: int) -> Scripted | str:
        return FAULTS[fault] if text_of(body) == "b" and tried == 1 else "re " + text_of(body)

    with ScriptedServer(faulty_first) as server:
        replies = ask("abc", server, ledger, timeout_s=0.5)
        assert server.count == 4
    assert [(reply.text, reply.error) for reply in replies] == [("re a", ""), ("re b", ""), ("re c", "")]
    entry = ledger.get("s", "b")
    assert entry is not None
    assert (entry.state, entry.tries, entry.error) == ("answered", 2, None)


@pytest.mark.parametrize(
    ("fault", "code", "asked"),
    [
        ("500", "server-error", 3),
        ("429 with seconds", "rate-limited", 9),
        ("connection reset", "connection", 3),
        ("truncated body", "connection", 3),
        ("hang", "timeout", 3),
        ("broken JSON", "bad-reply", 3),
    ],
)
def test_a_lasting_fault_is_recorded_and_costs_no_other_its_answer(
    fault: str, code: str, asked: int, ledger: Ledger
) -> None:
    def faulty(body: dict[str, Any], tried: int) -> Scripted | str:
        return FAULTS[fault] if text_of(body) == "b" else "re " + text_of(body)

    with ScriptedServer(faulty) as server:
        replies = ask("abcde", server, ledger, timeout_s=0.3 if fault == "hang" else 10)
        times = list(server.texts()).count("b")
        assert times in (asked, asked + 1) if code == "rate-limited" else times == asked
    assert [reply.text for reply in replies] == ["re a", "", "re c", "re d", "re e"]
    assert replies[1].error_code == code
    assert f"after {times} tries" in replies[1].error


def test_a_refused_request_is_not_repeated(ledger: Ledger) -> None:
    with ScriptedServer(lambda body, tried: Scripted("your prompt is too long", 400)) as server:
        (reply,) = ask("a", server, ledger)
        assert server.count == 1
    assert reply.error == "bad-request: HTTP 400: your prompt is too long"


def test_a_withheld_reply_is_a_failure_and_a_cut_one_is_not(ledger: Ledger) -> None:
    script = [Scripted("", finish_reason="content_filter"), Scripted("cut he", finish_reason="length")]
    with ScriptedServer(script) as server:
        withheld, cut = ask("ab", server, ledger, concurrency=1)
    assert withheld.error_code == "content-filter"
    assert (cut.text, cut.finish_reason, cut.error) == ("cut he", "length", "")


def test_odd_replies_are_kept_readable(ledger: Ledger) -> None:
    odd = rb'{"choices": [{"message": {"content": "a\ud800b\u0000c"}}], "usage": {"prompt_tokens": "many"}}'
    bare = b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}], "usage": null}'
    with ScriptedServer([Scripted(raw=odd), Scripted(raw=bare)]) as server:
        first, second = ask("ab", server, ledger, concurrency=1)
    assert (first.text, first.prompt_tokens, first.error) == ("a?b\0c", 0, "")
    assert (second.text, second.finish_reason, second.model) == ("", "stop", "scripted")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str, ledger: Ledger) -> None:
    def limited(body: dict[str, Any], tried: int) -> Scripted | str:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
        value = "1.1" if form == "seconds" else email.utils.format_datetime(at, usegmt=True)
        return Scripted("slow down", 429, headers={"retry-after": value}) if tried == 1 else "ok"

    with ScriptedServer(limited) as server:
        start = time.monotonic()
        (reply,) = ask("a", server, ledger, first_wait_s=0.01)
        waited_s = time.monotonic() - start
    assert reply.text == "ok"
    assert 1.0 <= waited_s < 4.0


def stopping(answer: Scripted) -> Script:
    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return answer if text_of(body) == "stop" else "re " + text_of(body)

    return script


QUOTA = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
QUOTA_BY_TYPE = b'{"error": {"message": "No money", "type": "insufficient_quota", "code": "429"}}'


@pytest.mark.parametrize(
    ("answer", "words", "remedy"),
    [
        (Scripted(f"Incorrect API key provided: {SECRET}", 401), "Incorrect API key provided: [key]", "KEY"),
        (Scripted("Incorrect API key provided: sk-verys*****6789", 401), "provided: [key]", "KEY"),
        (Scripted("Not yours", 403), "Not yours", "KEY"),
        (Scripted("The model `gpt-9` does not exist", 404), "`gpt-9` does not exist", "model's name"),
        (Scripted(status=429, raw=QUOTA), "You exceeded your quota", "credit"),
        (Scripted(status=429, raw=QUOTA_BY_TYPE), "No money", "credit"),
        (Scripted("Payment required", 402), "Payment required", "credit"),
    ],
)
def test_a_failure_of_the_whole_service_stops_with_its_words_and_keeps_the_rest(
    answer: Scripted,
    words: str,
    remedy: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    with ScriptedServer(stopping(answer)) as server:
        quota = words in ("You exceeded your quota", "No money", "Payment required")
        before = ["a", "b"] if quota else []
        with pytest.raises(ServiceError) as caught:
            ask([*before, "stop", "c"], server, ledger, api_key_env="TEACHER_KEY", concurrency=1)
        assert server.count == len(before) + 1
        assert server.authorizations == [f"Bearer {SECRET}"] * (len(before) + 1)
    assert words in str(caught.value)
    assert remedy in str(caught.value)
    states = [(entry.id, entry.state) for entry in ledger.entries()]
    assert states == [*((id, "answered") for id in before), ("stop", "sent")]
    ledger.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET not in str(caught.value) + caplog.text
    assert SECRET.encode() not in kept


REFUSING = {
    "key": Scripted("Not yours", 401),
    "door": Scripted(
        status=403, raw=b"<!DOCTYPE html><title>Just a moment</title>", content_type="text/html"
    ),
    "model": Scripted("No such model", 404),
}


@pytest.mark.parametrize("status", REFUSING)
def test_a_lone_refusal_of_key_or_model_after_answers_is_asked_again(status: str, ledger: Ledger) -> None:
    def proxy(body: dict[str, Any], tried: int) -> Scripted | str:
        return REFUSING[status] if text_of(body) in "df" and tried <= 2 else "re " + text_of(body)

    with ScriptedServer(proxy) as server:
        replies = ask("abcdefg", server, ledger, concurrency=1)
    assert [reply.text for reply in replies] == [f"re {text}" for text in "abcdefg"]


@pytest.mark.parametrize("status", REFUSING)
def test_a_key_that_is_refused_again_and_again_after_answers_stops_the_run(
    status: str, ledger: Ledger
) -> None:
    def revoked(body: dict[str, Any], tried: int) -> Scripted | str:
        return "re " + text_of(body) if text_of(body) in "abc" else REFUSING[status]

    with ScriptedServer(revoked) as server:
        with pytest.raises(ServiceError, match=r"refused the key|does not know the model"):
            ask("abcdefghijk", server, ledger, concurrency=1)
        assert server.count == 3 + 3
    assert (ledger.counts()["s"]["answered"], ledger.counts()["s"]["failed"]) == (3, 0)


def test_a_request_that_alone_is_forbidden_fails_alone(ledger: Ledger) -> None:
    """A gateway that looks into prompts answers 403 to some of them, whenever they are sent."""

    def gateway(body: dict[str, Any], tried: int) -> Scripted | str:
        return Scripted("blocked", 403) if text_of(body) == "10" else "re " + text_of(body)

    texts = [str(number) for number in range(60)]
    with ScriptedServer(lambda body, tried: slowly(gateway(body, tried))) as server:
        replies = ask(texts, server, ledger, concurrency=2, first_wait_s=0.01)
    assert [reply.error_code for reply in replies] == ["unauthorized" if n == 10 else "" for n in range(60)]
    assert "after 3 tries" in replies[10].error


def slowly(reply: Scripted | str) -> Scripted:
    return dataclasses.replace(reply if isinstance(reply, Scripted) else Scripted(reply), delay_s=0.01)


PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome &amp;\n log in</title></head><body>x</body></html>"


@pytest.mark.parametrize("status", [200, 404, 403, 405])
def test_a_web_page_instead_of_an_api_is_named_with_its_title(status: int, ledger: Ledger) -> None:
    page = Scripted(status=status, raw=PAGE, content_type="text/html")
    with ScriptedServer(lambda body, tried: page) as server:
        with pytest.raises(ServiceError) as caught:
            ask("abcdef", server, ledger, concurrency=1)
        assert server.count <= 3
    assert 'a web page (HTML) with the title "Welcome & log in"' in str(caught.value)
    assert "check the base URL" in str(caught.value)
    assert "/v1" in str(caught.value)
    assert ledger.counts()["s"]["failed"] == 0


def test_a_gateways_error_page_names_itself_and_both_remedies(ledger: Ledger) -> None:
    page = Scripted(status=502, raw=b"<html><h1>Bad gateway</h1></html>", content_type="text/html")
    with ScriptedServer(lambda body, tried: page) as server, pytest.raises(ServiceError) as caught:
        ask([str(number) for number in range(9)], server, ledger)
    assert "HTTP 502: a web page (HTML) without a title" in str(caught.value)
    assert "run the same command again later" in str(caught.value)
    assert "check the base URL" in str(caught.value)


def test_a_stop_does_not_wait_for_slow_requests_before_it(ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted:
        return Scripted("no", 401) if text_of(body) == "stop" else Scripted("late", delay_s=20)

    with ScriptedServer(script) as server:
        start = time.monotonic()
        with pytest.raises(ServiceError, match="refused the key"):
            ask(["slow", "stop"], server, ledger, timeout_s=30)
        assert time.monotonic() - start < 5


def test_a_key_echoed_in_a_reply_does_not_reach_the_ledger(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    script = [Scripted(f"your header was {SECRET}"), Scripted(f"bad header {SECRET}", 400)]
    with ScriptedServer(script) as server:
        echoed, refused = ask("ab", server, ledger, concurrency=1)
    assert echoed.text == "your header was [key]"
    assert refused.error.endswith("bad header [key]")
    ledger.close()
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_server_that_is_not_there_stops_the_run_resumably(ledger: Ledger) -> None:
    with ScriptedServer(["unused"]) as server:
        gone = service(server)
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        complete(questions("ab"), gone, ledger, stage="s")
    assert gone.base_url in str(caught.value)
    assert {entry.state for entry in ledger.entries()} == {"sent"}


def test_a_service_that_only_fails_stops_the_run_and_is_asked_again_next_time(ledger: Ledger) -> None:
    ill = True

    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return Scripted("out of order", 500) if ill and text_of(body) != "0" else "re " + text_of(body)

    texts = [str(number) for number in range(40)]
    with ScriptedServer(script) as server:
        with pytest.raises(ServiceError, match="in a row failed") as caught:
            ask(texts, server, ledger)
        assert "out of order" in str(caught.value)
        assert server.count < 40
        assert ledger.counts()["s"]["failed"] == 0
        ill = False
        assert [reply.text for reply in ask(texts, server, ledger)] == [f"re {text}" for text in texts]


def test_refused_requests_do_not_block_the_next_run(ledger: Ledger) -> None:
    def script(body: dict[str, Any], tried: int) -> Scripted | str:
        return Scripted("not this", 400) if int(text_of(body)) < 7 else "fine"

    texts = [str(number) for number in range(9)]
    with ScriptedServer(script) as server:
        with pytest.raises(ServiceError, match="not this"):
            ask(texts, server, ledger, concurrency=1)
        replies = ask(texts, server, ledger, concurrency=1)
    assert [reply.error_code for reply in replies] == ["bad-request"] * 7 + [""] * 2


def test_another_prompt_under_a_known_id_is_refused_before_sending(ledger: Ledger) -> None:
    with ScriptedServer(lambda body, tried: "ok") as server:
        complete(questions("a"), service(server), ledger, stage="s")
        with pytest.raises(DataError, match="another configuration"):
            complete(questions("a", temperature=0.1), service(server), ledger, stage="s")
        assert server.count == 1


def test_the_window_bounds_how_far_requests_run_ahead(ledger: Ledger) -> None:
    import asyncio
    import contextlib

    async def take_two(server: ScriptedServer) -> list[str]:
        endless = (questions([str(number)])[0] for number in range(10**9))
        replies = stream(endless, service(server, concurrency=8), ledger, stage="s", window=lambda: 2)
        texts = []
        async with contextlib.aclosing(replies):
            async for reply in replies:
                texts.append(reply.text)
                if len(texts) == 4:
                    break
        return texts

    with ScriptedServer(lambda body, tried: Scripted(text_of(body), delay_s=0.02)) as server:
        assert asyncio.run(take_two(server)) == ["0", "1", "2", "3"]
        assert server.most_in_flight <= 2
        assert server.count <= 6


def test_random_faults_end_with_every_request_answered_once(ledger: Ledger) -> None:
    quick = [FAULTS[name] for name in FAULTS if name != "hang"]

    def faulty(body: dict[str, Any], tried: int) -> Scripted | str:
        draw = random.Random(f"{text_of(body)} {tried}")
        return draw.choice(quick) if draw.random() < 0.3 else "re " + text_of(body)

    texts = [f"{number:03d}" for number in range(150)]
    with ScriptedServer(faulty) as server:
        replies = ask(texts, server, ledger, concurrency=8, max_tries=8, first_wait_s=0.005)
    assert [reply.text for reply in replies] == [f"re {text}" for text in texts]


def test_a_proxy_is_not_used_for_this_machine(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ScriptedServer(["hello"]) as server:
        assert ask("a", server, ledger)[0].text == "hello"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SOME_KEY", None, "environment variable SOME_KEY is not set"),
        ("SOME_KEY", " ", "environment variable SOME_KEY is empty"),
        ("", None, "no environment variable is named"),
        (
            "SOME_KEY",
            "\u201csk-verysecret\u201d",
            "characters beyond ASCII within environment variable SOME_KEY",
        ),
        ("SOME_KEY", "sk-very\nsecret", "line breaks"),
        ("SOME_KEY", "Bearer sk-verysecret", "spaces"),
    ],
)
def test_a_service_elsewhere_needs_a_key(
    name: str, value: str | None, words: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv(name, value)
    far = Service("https://nowhere.invalid/v1", "m", api_key_env=name)
    with pytest.raises(ServiceError, match=r"no key|cannot be sent") as caught:
        complete(questions("a"), far, ledger, stage="s")
    assert words in str(caught.value)
    assert ("`api_key_env`" in str(caught.value)) is ("cannot be sent" not in str(caught.value))
    assert "secret" not in str(caught.value)
    assert ledger.counts() == {}


@pytest.mark.parametrize("name", ["", "SOME_KEY"])
def test_a_server_on_this_machine_needs_no_key(name: str, ledger: Ledger) -> None:
    with ScriptedServer(["hello"]) as server:
        assert ask("a", server, ledger, api_key_env=name)[0].text == "hello"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.8.0.1", True), ("[::1]", True), ("0.0.0.0", True), ("10.0.0.1", False),
     ("127.0.0.1.example.org", False), ("api.openai.com", False)],
)  # fmt: skip
def test_only_this_machine_counts_as_loopback(host: str, loopback: bool) -> None:
    assert Service(f"http://{host}:8000/v1", "m").is_loopback() is loopback


def test_impossible_services_are_refused() -> None:
    with pytest.raises(ConfigError, match="not an address"):
        Service("localhost:8000", "m")
    with pytest.raises(ConfigError, match="user name or password") as caught:
        Service("https://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="more than an address") as caught:
        Service("http://localhost/v1?key=hunter2", "m")
    assert "hunter2" not in str(caught.value)
    for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "patience_s", "timeout_s"):
        for value in (0, -1):
            with pytest.raises(ConfigError, match=f"{name} must be a"):
                Service("http://localhost/v1", "m", **{name: value})  # type: ignore[arg-type]
