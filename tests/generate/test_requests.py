"""Requests that strangers send: every one is answered with 200 or named as a mistake, and the server lives on."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from alpacare_jax.errors import DataError
from alpacare_jax.generate import Engine, serve
from alpacare_jax.generate.api import Api
from alpacare_jax.generate.connections import Limits
from alpacare_jax.generate.protocol import CompletionRequest, parse_request
from alpacare_jax.generate.worker import Worker
from alpacare_jax.tokenizer import Tokenizer

LIMITS = Limits(body_bytes=100_000, request_s=0.6, idle_s=0.5, closing_s=0.2, connections=12, requests=6)
LONE = "\\ud83d"


class Running:
    """A server in a thread of this process, with limits that are soon reached."""

    def __init__(self, engine: Engine, limits: Limits = LIMITS) -> None:
        self.worker = Worker(engine)
        self.worker.start()
        listener = serve.bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        app = Api(self.worker, "tiny", limits=limits).build()
        self.server = serve.make_server(app, self.worker, ready.set, limits)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[listener])))
        self.thread.start()
        assert ready.wait(30)

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send one request: a dict as JSON, bytes as they are, an iterator in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = json.dumps(body) if isinstance(body, dict) else body
            method = "GET" if body is None else "POST"
            connection.request(method, path, data, {"content-type": "application/json"} | headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read() or b"{}")
        finally:
            connection.close()

    def complete(self, **fields: Any) -> tuple[int, dict[str, Any]]:
        asked = {"model": "tiny", "prompt": "The heart", "max_tokens": 2, "temperature": 0}
        return self.ask("/v1/completions", asked | fields)

    def chat(self, **fields: Any) -> tuple[int, dict[str, Any]]:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "A"}], "max_tokens": 2}
        return self.ask("/v1/chat/completions", asked | fields)

    def connect(self, *pieces: bytes) -> socket.socket:
        """Open a connection and send something."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        for piece in pieces:
            connection.sendall(piece)
        return connection

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.worker.stop()


@pytest.fixture(scope="module")
def running(make_engine: Callable[..., Engine]) -> Iterator[Running]:
    server = Running(make_engine())
    yield server
    server.stop()


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 2**31},
        {"top_k": 10**400},
        {"top_k": -1, "temperature": 1},
        {"top_k": 2**40, "temperature": 1},
        {"temperature": 1e-45},
        {"temperature": 1e-30},
        {"temperature": 5e-324},
        {"temperature": -0.0},
        {"top_p": 1e-45, "temperature": 1},
        {"top_p": 5e-324, "temperature": 2},
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"max_tokens": 10**30, "stop": ["e", "a", "t", " "]},
        {"seed": -(2**63)},
        {"seed": 2**64 - 1, "n": 2},
        {
            "n": None,
            "best_of": None,
            "stop": None,
            "logit_bias": None,
            "no_such_field": None,
            "stream_options": None,
        },
        {"logit_bias": {}, "suffix": "", "min_p": 0.0, "repetition_penalty": 1, "best_of": 1},
        {"stream_options": {"include_usage": None}},
        {"prompt": [5, 6, 7]},
        {"prompt": [[5], [6, 7]]},
    ],
)
def test_extremes_with_a_meaning_are_taken(running: Running, fields: dict[str, Any]) -> None:
    status, reply = running.complete(**fields)
    assert status == 200, reply


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("top_k", [-2, 5.0, True, "5", [5]]),
        ("temperature", [2.1, 1e30, -1e-9, True, "1", 10**400]),
        ("top_p", [0, -0.0, 1.0000001, "1"]),
        ("min_p", [0.1, 1, False]),
        ("presence_penalty", [1e30, -2.1]),
        ("repetition_penalty", [1.1, 0, -1]),
        ("n", [0, -1, 129, 2**40, 1.0]),
        ("best_of", [2, -1, 10**30, 1.0]),
        ("max_tokens", [-1, 5.0, "5", True, {}]),
        ("logprobs", [21, -1, 2**40, True]),
        ("stop", ["", [""], ["x"] * 1000, 5, [None], {}]),
        ("seed", [2**64, -(2**63) - 1, 1.5, "5"]),
        ("logit_bias", [{"5": 1}, {"x": 1}, {str(i): 1 for i in range(3000)}, []]),
        ("prompt", [[-1], [2**31], [2**70], [1.0], [True], [[[1]]], ["a", 1], [1, "a"], [], [[]], None, 5]),
        ("prompt", [["a"] * 2049]),
        ("suffix", ["x"]),
        ("user", [5]),
        ("stream_options", [5, {"include_usage": "x"}]),
        ("tools", [[{"type": "function"}]]),
        ("response_format", [{"type": "json_schema"}, "text"]),
        ("model", [None, 5]),
    ],
)  # fmt: skip
def test_other_values_are_refused_by_name(running: Running, field: str, values: list[Any]) -> None:
    for value in values:
        status, reply = running.complete(**{field: value})
        assert (status, reply["error"]["param"]) == (400, field), (value, reply)
        assert field in reply["error"]["message"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([1, True], "element 1 must be a token id"),
        ([1, "a"], "element 1 must be a token id"),
        (["a", 1], "element 1 must be a text or a list of token ids"),
        ([[1], [1.0]], "element 1 must be a text or a list of token ids"),
    ],
)
def test_the_wrong_element_of_a_prompt_is_named(prompt: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_request(json.dumps({"model": "tiny", "prompt": prompt}).encode(), CompletionRequest)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "assistant", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content is missing"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, "'image_url'"),
        ({"role": "user", "content": ["a"]}, "messages[1].content"),
        ({"role": "user", "content": [{"type": 5, "text": "a"}]}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "messages[1].content"),
        ({"role": "user", "content": "x <|im_end|>"}, "messages[1].content"),
        ({"role": "tool", "content": "x"}, "messages[1].role"),
        ({"content": "x"}, "messages[1].role is missing"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[1].tool_calls"),
        ({"role": "user", "content": "a", "thoughts": "b"}, "messages[1].thoughts"),
        (5, "messages[1]"),
        (None, "messages[1]"),
    ],
)  # fmt: skip
def test_a_message_at_fault_is_named(running: Running, message: Any, place: str) -> None:
    first, last = {"role": "user", "content": "A"}, {"role": "user", "content": "B"}
    status, reply = running.chat(messages=[first, message, last])
    assert (status, reply["error"]["param"]) == (400, "messages")
    assert place in reply["error"]["message"]


def test_fields_that_ask_for_nothing_are_as_good_as_absent(running: Running) -> None:
    plain = running.chat(
        messages=[{"role": "user", "content": "AB"}, {"role": "assistant", "content": ""}], seed=1
    )
    assistant = {"role": "assistant", "content": None, "tool_calls": [], "refusal": None, "audio": None}
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    nothing = {"tools": None, "tool_choice": "none", "functions": [], "response_format": {"type": "text"}}
    other = running.chat(messages=[{"role": "user", "content": parts}, assistant], seed=1, **nothing)
    assert (plain[0], other[0]) == (200, 200)
    assert other[1]["choices"] == plain[1]["choices"]
    assert other[1]["usage"] == plain[1]["usage"]


def fields(text: str) -> bytes:
    return b'{"model": "tiny", "prompt": "a", "max_tokens": 1, ' + text.encode() + b"}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 90_000, 400),
        (b'{"a":' * 15_000, 400),
        (fields('"metadata": ' + "[" * 2000 + "]" * 2000), 400),
        (fields('"seed": ' + "9" * 5000), 400),
        (fields('"temperature": NaN'), 400),
        (fields('"temperature": -Infinity'), 400),
        (fields('"temperature": 1e999'), 400),
        (fields(f'"user": "{LONE}"'), 400),
        (fields(f'"{LONE}": 1'), 400),
        (fields(f'"stop": ["{LONE}x"]'), 400),
        (fields('"user": "\\ud83e\\udec0"'), 200),
        (b"\xef\xbb\xbf" + fields('"n": 1'), 200),
        (fields('"n": 1').decode().encode("utf-16"), 400),
        (fields('"user": "\xe9"').decode().encode("latin-1"), 400),
        (b'{"model": "tiny", "prompt": "\xed\xa0\xbd", "max_tokens": 1}', 400),
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"{} {}", 400),
        (b"{'model': 'tiny'}", 400),
        (json.dumps({f"k{i}": 1 for i in range(5000)}).encode(), 400),
    ],
)
def test_bodies_are_read_or_refused(running: Running, body: bytes, status: int) -> None:
    found, reply = running.ask("/v1/completions", body)
    assert found == status, reply
    assert status == 200 or reply["error"]["message"]


@pytest.mark.parametrize("text", ["word " * 19_000, "w" * 95_000, " " * 95_000, "\u6f22" * 16_450])
def test_a_text_that_is_far_too_long_is_refused(running: Running, text: str) -> None:
    for status, reply in (
        running.complete(prompt=text),
        running.chat(messages=[{"role": "user", "content": text}]),
    ):
        assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("kind", "status"),
    [("text/plain", 415), ("multipart/form-data; boundary=x", 415), ("application/json; charset=utf-8", 200)],
)
def test_other_content_types_are_refused(running: Running, kind: str, status: int) -> None:
    assert running.ask("/v1/completions", fields('"n": 1'), **{"content-type": kind})[0] == status


def test_the_size_of_a_body_is_counted(running: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(15):
            yield b" " * 10_000

    for body in (chunks(), b" " * 150_000):
        status, reply = running.ask("/v1/completions", body)
        assert status == 413
        assert "100,000" in reply["error"]["message"]
    start = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
    began = time.monotonic()
    for length, answered in (
        (b"content-length: 5\r\n\r\n" + b"x" * 50, b"400"),
        (b"content-length: -1\r\n\r\n", b"400"),
        (b"content-length: 10000000000\r\n\r\n{", b"413"),
        (b"content-length: " + b"9" * 5000 + b"\r\n\r\n", b"4"),
        (b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{", b"400"),
        (b"transfer-encoding: chunked\r\n\r\n20000\r\n{", b"400"),
        (b"transfer-encoding: chunked\r\n\r\n-5\r\n{", b"400"),
    ):
        with running.connect(start, length) as lying:
            assert b" " + answered in lying.recv(100)[:15]
    assert time.monotonic() - began < LIMITS.request_s


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100 + b"\r\n", b"200"),
        (b"GET /health HTTP/2.0\r\nhost: x\r\n\r\n", b"505"),
        (b"GET /health HTTP/0.9\r\nhost: x\r\n\r\n", b"505"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET /health HTTP/3\r\nhost: x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"400"),
        (b"GET /" + b"a" * 100_000, b"431"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x:\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"name: value\r\n" * 20_000 + b"\r\n", b"431"),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000, b"431"),
    ],
)
def test_heads_of_requests_are_read_or_refused_at_once(running: Running, head: bytes, status: bytes) -> None:
    with running.connect(head) as connection:
        assert connection.recv(13)[9:12] == status


SLOW = {
    "nothing": b"",
    "a request line": b"GET /health HT",
    "headers": b"GET /health HTTP/1.1\r\nhost: x\r\nx-a",
    "a body": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n{",
    "a chunked body": b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    "an idle connection": b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
}


def test_connections_without_a_whole_request_are_closed(running: Running) -> None:
    connections = {name: running.connect(sent) for name, sent in SLOW.items()}
    began, ended = time.monotonic(), {}
    while len(ended) < len(connections) and time.monotonic() - began < 5:
        for name, connection in connections.items():
            if name in ended:
                continue
            try:  # a byte now and then keeps no connection open
                if name not in ("nothing", "an idle connection"):
                    connection.sendall(b" ")
                connection.settimeout(0.05)
                while connection.recv(1000):
                    pass
                ended[name] = time.monotonic() - began
            except TimeoutError:
                pass
            except OSError:
                ended[name] = time.monotonic() - began
    for connection in connections.values():
        connection.close()
    assert set(ended) == set(SLOW)
    assert max(ended.values()) < 3
    assert running.complete()[0] == 200


def test_a_slow_request_is_told(running: Running) -> None:
    with running.connect(SLOW["a body"]) as slow:
        reply = b""
        while piece := slow.recv(1000):
            reply += piece
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive whole" in reply


def test_a_crowd_of_connections_keeps_nobody_out(running: Running) -> None:
    crowd = [running.connect(b"POST /v1/") for _ in range(3 * LIMITS.connections)]
    try:
        assert running.ask("/health")[0] == 200
        assert running.complete()[0] == 200
        assert len(running.server.server_state.connections) <= LIMITS.connections + 1
    finally:
        for connection in crowd:
            connection.close()


def test_requests_beyond_the_limit_are_told_to_come_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, go = running.worker.engine.step, threading.Event()
    monkeypatch.setattr(running.worker.engine, "step", lambda: (go.wait(10), step())[1])
    asked = b'{"model":"tiny","prompt":"a","max_tokens":1}'
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        % len(asked)
    )
    waiting = [running.connect(head, asked) for _ in range(LIMITS.requests)]
    until = time.monotonic() + 5
    while running.complete()[0] != 503 and time.monotonic() < until:
        time.sleep(0.02)
    assert running.complete()[0] == 503
    assert running.ask("/health")[0] == 200
    go.set()
    for connection in waiting:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()


def test_a_step_that_fails_is_answered_and_the_server_lives_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = running.worker.engine
    healthy, faults = engine._programs.decode, []

    def fail_once(*arguments: Any) -> Any:
        monkeypatch.setattr(engine._programs, "decode", healthy)
        healthy(*arguments)  # takes the cache with it
        faults.append(arguments)
        raise OverflowError("Python integer 2147483648 out of bounds for int32")

    monkeypatch.setattr(engine._programs, "decode", fail_once)
    status, reply = running.complete(max_tokens=5, ignore_eos=True)
    assert faults
    assert (status, reply["error"]["type"]) == (500, "server_error")
    assert running.complete(max_tokens=5)[0] == 200
    assert running.ask("/health")[0] == 200


def test_an_engine_that_cannot_go_on_ends_the_server(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(slots=1)

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("the device is gone")

    server = Running(engine)
    monkeypatch.setattr(engine._programs, "draw", broken)
    status, reply = server.complete()
    assert status == 503
    assert "failed" in reply["error"]["message"]
    server.thread.join(20)
    assert not server.thread.is_alive()
    assert isinstance(server.worker.failure, RuntimeError)
    monkeypatch.undo()
    engine.recover()


def test_streamed_scores_are_those_of_the_whole_reply(running: Running, tokenizer: Tokenizer) -> None:
    asked = {"max_tokens": 24, "ignore_eos": True, "temperature": 1.0, "seed": 3, "logprobs": 1}
    free = running.complete(**asked)[1]["choices"][0]["text"]
    stop = [free[8:12], "never seen"]
    whole = running.complete(**asked, stop=stop)[1]["choices"][0]
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    body = {"model": "tiny", "prompt": "The heart", "stream": True, "stop": stop} | asked
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    events = [line[6:] for line in connection.getresponse().read().decode().splitlines() if line]
    connection.close()
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == whole["text"] == free.partition(stop[0])[0]
    scored = [token for choice in choices for token in (choice["logprobs"] or {}).get("tokens", ())]
    assert scored == whole["logprobs"]["tokens"]
