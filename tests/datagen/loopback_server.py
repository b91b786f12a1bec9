"""A real HTTP server on loopback, in threads of its own, that can misbehave; its subclasses say what it answers."""

import dataclasses
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

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


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed in the middle of a request; they are part of the tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Request(BaseHTTPRequestHandler):
    """One request: ``command``, ``path``, ``headers`` and its ``body``."""

    protocol_version = "HTTP/1.1"
    owner: "LoopbackServer"
    body = b""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.body = b""
        self.owner.serve(self)

    def do_POST(self) -> None:
        chunked = self.headers.get("transfer-encoding") == "chunked"
        self.body = self._chunks() if chunked else self._whole(int(self.headers.get("content-length") or 0))
        self.owner.serve(self)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _whole(self, length: int) -> bytes:
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away")
        return body

    def send(self, reply: Scripted) -> None:
        """Answer as scripted; a client that has gone away is not waited for."""
        if reply.delay_s:
            self.owner.closing.wait(reply.delay_s)
        if reply.reset:
            self.close_connection = True
            self.connection.close()
            return
        payload = reply.body()
        try:
            self.send_response(reply.status, reply.reason)
            self.send_header("content-type", reply.content_type)
            self.send_header("content-length", str(len(payload) + reply.promise_more))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if reply.promise_more:
            self.close_connection = True


class LoopbackServer:
    """A context manager that serves on loopback while it is open."""

    def __init__(self, port: int = 0) -> None:
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._http = _QuietServer(("127.0.0.1", port), type("OwnRequest", (Request,), {"owner": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def serve(self, request: Request) -> None:
        """Answer one request, in a thread of its own."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
