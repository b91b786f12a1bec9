"""A real OpenAI-compatible HTTP server on loopback that answers by script, and can misbehave by script."""

import dataclasses
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted"


@dataclasses.dataclass
class Scripted:
    """What the server does with one request: a status and a text, or a raw body, or silence."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = "application/json"
    delay_s: float = 0.0
    reset: bool = False
    reason: str | None = None
    promise_more: int = 0

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.status != 200:
            return json.dumps({"error": {"message": self.text, "type": "scripted", "code": None}}).encode()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": self.finish_reason,
        }
        usage = {"prompt_tokens": 7, "completion_tokens": len(self.text.split()), "total_tokens": 0}
        return json.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": MODEL,
                "choices": [choice],
                "usage": usage,
            }
        ).encode()


Script = Callable[[dict[str, Any], int], "Scripted | str"]


WORDS = [
    "anemia",
    "asthma",
    "gout",
    "sepsis",
    "stroke",
    "eczema",
    "malaria",
    "measles",
    "angina",
    "goitre",
    "rickets",
    "scurvy",
    "tetanus",
    "mumps",
    "rabies",
    "lupus",
    "cystitis",
    "pneumonia",
    "migraine",
    "epilepsy",
    "glaucoma",
    "cataract",
    "hepatitis",
    "nephritis",
    "colitis",
    "gastritis",
    "vertigo",
    "sciatica",
    "bursitis",
    "tendinitis",
    "myopia",
    "rosacea",
    "acne",
    "psoriasis",
    "vitiligo",
    "leprosy",
    "cholera",
    "typhoid",
    "dengue",
    "botulism",
]


def text_of(body: dict[str, Any]) -> str:
    """All that a request says, whatever the number of its messages."""
    return "\n".join(message["content"] for message in body["messages"])


def asks_for_tasks(body: dict[str, Any]) -> bool:
    """Tell a request for tasks, which shows whole examples, from a request for an answer."""
    return "Difficulty:" in text_of(body)


def write_tasks(body: dict[str, Any], tried: int = 1) -> str:
    """Play a teacher whose tasks and answers depend on the messages alone, repeats included."""
    draw = random.Random(text_of(body) if asks_for_tasks(body) else body["messages"][-1]["content"])
    if not asks_for_tasks(body):
        return f"Think of {draw.choice(WORDS)} first. Answer number {draw.randrange(10**6)} follows."
    blocks = []
    for number in range(4, 8):
        words = " ".join(draw.sample(WORDS, 6))
        given = "<noinput>" if number % 2 else f"A patient of {draw.randrange(20, 80)} years with {words}."
        instruction = (
            f"Compare {words} briefly." if number < 7 else "Explain gout and its usual treatment briefly."
        )
        blocks.append(
            f"{number}. Type: Open Q&A\nTopic: Medicine\nView: Student\nDifficulty: {draw.randrange(1, 6)}\n"
            f"Instruction: {instruction}\nInput: {given}\n"
        )
    return "###\n".join(blocks)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed in the middle of a request; they are part of the tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class ScriptedServer:
    """Serves ``/v1/chat/completions`` from a function (body, try of that body) or a queue of replies."""

    def __init__(self, script: "Script | Sequence[Scripted | str]", port: int = 0) -> None:
        queue = None if callable(script) else iter(script)
        self._script: Script = script if callable(script) else lambda body, tried: next(queue)  # type: ignore
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _QuietServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def _handler(owner) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                sent = self.rfile.read(length)
                if len(sent) < length:
                    raise ConnectionError("the client went away")
                body = json.loads(sent)
                with owner._lock:
                    tried = 1 + owner.bodies.count(body)
                    owner.bodies.append(body)
                    owner.times.append(time.monotonic())
                    owner.authorizations.append(self.headers.get("authorization", ""))
                    owner.in_flight += 1
                    owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
                    reply = owner._script(body, tried)
                try:
                    self.answer(reply if isinstance(reply, Scripted) else Scripted(reply))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with owner._lock:
                        owner.in_flight -= 1

            def answer(self, reply: Scripted) -> None:
                if reply.delay_s:
                    owner._closing.wait(reply.delay_s)
                if reply.reset:
                    self.close_connection = True
                    self.connection.close()
                    return
                payload = reply.body()
                self.send_response(reply.status, reply.reason)
                self.send_header("content-type", reply.content_type)
                self.send_header("content-length", str(len(payload) + reply.promise_more))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)
                if reply.promise_more:
                    self.wfile.flush()
                    self.close_connection = True

        return Handler

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def count(self) -> int:
        return len(self.bodies)

    def texts(self) -> Iterator[str]:
        """The last message of each request, in the order of arrival."""
        return (body["messages"][-1]["content"] for body in self.bodies)

    def wait_for(self, count: int, limit_s: float = 20.0) -> None:
        """Wait until so many requests have arrived."""
        deadline = time.monotonic() + limit_s
        while self.count < count:
            assert time.monotonic() < deadline, f"only {self.count} of {count} requests came"
            time.sleep(0.005)

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
