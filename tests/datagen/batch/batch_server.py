"""A real HTTP server on loopback with OpenAI's batch interface: files, batches, and scripted courses of them.

Time does not pass by itself: a batch takes one step of its course each time it is looked at.
"""

import dataclasses
import email
import email.policy
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback_server import LoopbackServer, Request, Scripted
from scripted_server import write_tasks

Row = dict[str, Any]


@dataclasses.dataclass
class Course:
    """What becomes of one batch.

    ``steps`` are its states before the last; ``end`` is the last; ``reply`` makes the line of one request, or None
    for none; ``done`` is the part of the requests that is run at all, the others expire; ``change``
    makes what another provider would say of the batch.
    """

    steps: Sequence[str] = ("validating", "in_progress", "finalizing")
    end: str = "completed"
    done: float = 1.0
    reply: Callable[[Row, int], Row | None] | None = None
    errors: Sequence[Row] = ()
    extra_lines: Sequence[str] = ()
    cut_downloads: int = 0
    cut_lengths: int = 0
    silent: bool = False
    change: Callable[[Row], Row] = lambda batch: batch


def succeed(row: Row, text: str | None = None) -> Row:
    body = json.loads(Scripted(text if text is not None else write_tasks(row["body"])).body())
    body["usage"]["prompt_tokens"] = len(json.dumps(row["body"])) // 4
    return answer(row, 200, body)


def refuse(row: Row, status: int, message: str, code: str | None = None) -> Row:
    return answer(row, status, {"error": {"message": message, "type": "scripted", "code": code}})


def answer(row: Row, status: int, body: Any) -> Row:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": row["custom_id"], "response": response, "error": None}


def expire(row: Row, code: str = "batch_expired") -> Row:
    error = {"code": code, "message": "This request could not be executed before the window closed."}
    return {"id": "b", "custom_id": row["custom_id"], "response": None, "error": error}


class BatchServer(LoopbackServer):
    """Serves ``/v1/files`` and ``/v1/batches``.

    Args:
        courses: The course of each batch, in order of creation; the last one holds for all further ones. A function
            gets the number of the batch, from 0.
        fault: Called with (method, path, number of that call); what it returns is sent instead of the real answer,
            and with ``Fault(after=True)`` only once the real thing has been done.
    """

    def __init__(
        self,
        courses: Callable[[int], Course] | Sequence[Course] | None = None,
        fault: "Callable[[str, str, int], Scripted | Fault | None]" = lambda method, path, number: None,
        chat: Callable[[Row], Scripted] | None = None,
    ) -> None:
        super().__init__()
        listed = None if callable(courses) else courses or [Course()]
        self._courses = courses if callable(courses) else lambda n: listed[min(n, len(listed) - 1)]
        self._fault, self._chat = fault, chat
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, list[Row]] = {}
        self.calls: list[tuple[str, str]] = []
        self.authorizations: set[str] = set()
        self.billed: list[tuple[str, int, int]] = []
        self.latest_first = True
        #: So many times the list does not show the newest batch yet.
        self.list_lags = 0
        #: States of an input file, one for each look at it, the first when it is sent; none are told if it is empty.
        self.file_states: Sequence[str] = ()
        self._names: dict[str, str] = {}
        self._looks: dict[str, int] = {}
        self._downloads: dict[str, int] = {}
        self._plans: dict[str, tuple[Course, list[str]]] = {}

    def serve(self, request: Request) -> None:
        method, path = request.command, urlsplit(request.path).path
        with self.lock:
            self.authorizations.add(request.headers.get("authorization", ""))
            number = self.calls.count((method, path))
            self.calls.append((method, path))
            fault = self._fault(method, path, number)
            if fault is None or (isinstance(fault, Fault) and fault.after):
                reply = self._answer(request)
            if fault is not None:
                reply = fault.reply if isinstance(fault, Fault) else fault
        request.send(reply)

    def _answer(self, request: Request) -> Scripted:
        method, body = request.command, request.body
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        parts = path.removeprefix("/v1/").split("/")
        if parts == ["files"] and method == "POST":
            return self._upload(request.headers, body)
        if parts == ["files"]:
            return _json(200, {"object": "list", "data": [self._file(id) for id in self._names]})
        if parts[0] == "files" and parts[2:] == ["content"]:
            return self._content(parts[1])
        if parts[0] == "files" and parts[1] in self._names:
            self._looks[parts[1]] += 1
            return _json(200, self._file(parts[1]))
        if parts == ["batches"] and method == "POST":
            return self._create(json.loads(body))
        if parts == ["batches"]:
            return self._list(query)
        if parts[0] == "batches" and parts[1] in self.batches:
            if parts[2:] == ["cancel"]:
                return self._cancel(parts[1])
            return self._told(self._step(parts[1]), parts[1])
        if parts == ["chat", "completions"] and self._chat is not None:
            return self._chat(json.loads(body))
        return _json(404, {"error": {"message": f"no such thing: {path}", "code": None}})

    def _upload(self, headers: Any, body: bytes) -> Scripted:
        head = f"content-type: {headers['content-type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + body, policy=email.policy.HTTP)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert fields["purpose"].get_content().strip() == "batch"
        id = f"file-{len(self.files)}"
        self.files[id] = fields["file"].get_payload(decode=True)
        self._names[id] = fields["file"].get_filename()
        self._looks[id] = 0
        return _json(200, self._file(id))

    def _file(self, id: str) -> Row:
        file = {"id": id, "object": "file", "purpose": "batch", "bytes": len(self.files[id])}
        file["filename"] = self._names[id]
        if self.file_states:
            file["status"] = self.file_states[min(self._looks[id], len(self.file_states) - 1)]
        return file

    def _create(self, asked: Row) -> Scripted:
        assert asked["endpoint"] == "/v1/chat/completions"
        assert asked["completion_window"] == "24h"
        assert len(asked["metadata"]) <= 16
        assert all(len(key) <= 64 and len(value) <= 512 for key, value in asked["metadata"].items())
        id = f"batch_{len(self.batches)}"
        rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        assert all(row["method"] == "POST" and row["url"] == asked["endpoint"] for row in rows)
        assert len({row["custom_id"] for row in rows}) == len(rows)
        assert not self.file_states or self._file(asked["input_file_id"])["status"] in (
            "processed",
            "uploaded",
        )
        course = self._courses(len(self.batches))
        self.rows[id] = rows
        self._plans[id] = course, [*course.steps, course.end]
        self.batches[id] = {
            "id": id,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "created_at": int(time.time()),
            "metadata": asked["metadata"],
            "request_counts": {"total": len(rows), "completed": 0, "failed": 0},
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
        }
        return _json(200, self.batches[id])

    def _list(self, query: dict[str, list[str]]) -> Scripted:
        batches = list(self.batches.values())
        if self.list_lags:
            self.list_lags -= 1
            batches.pop()
        batches = batches[::-1] if self.latest_first else batches
        ids = [batch["id"] for batch in batches]
        start = ids.index(query["after"][0]) + 1 if "after" in query else 0
        # Small pages, so that a search has to turn them.
        page = batches[start : start + 2]
        return _json(200, {"object": "list", "data": page, "has_more": start + 2 < len(batches)})

    def _told(self, reply: Scripted, id: str) -> Scripted:
        """Say it in the words of the provider of the course."""
        return _json(200, self._plans[id][0].change(dict(self.batches[id]))) if reply.status == 200 else reply

    def _step(self, id: str) -> Scripted:
        course, states = self._plans[id]
        batch = self.batches[id]
        if batch["status"] == "cancelling":
            self._finish(id, dataclasses.replace(course, end="cancelled", done=0.5))
        elif states:
            batch["status"] = states.pop(0)
            if batch["status"] == "in_progress":
                batch["request_counts"]["completed"] = len(self.rows[id]) // 2
            if not states:
                self._finish(id, course)
        return _json(200, batch)

    def _finish(self, id: str, course: Course) -> None:
        batch, rows = self.batches[id], self.rows[id]
        self._plans[id] = course, []
        batch["status"] = course.end
        if course.end == "failed":
            batch["errors"] = {"object": "list", "data": list(course.errors)}
            batch["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
            return
        done = rows[: round(len(rows) * course.done)]
        make = course.reply or (lambda row, number: succeed(row))
        lines = [line for number, row in enumerate(done) if (line := make(row, number)) is not None]
        code = "batch_cancelled" if course.end == "cancelled" else "batch_expired"
        lines += [expire(row, code) for row in rows[len(done) :]] if not course.silent else []
        good: list[Row] = []
        bad: list[Row] = []
        for line in lines:
            answered = line["error"] is None and line["response"]["status_code"] == 200
            (good if answered else bad).append(line)
        for line in good:
            body = line["response"]["body"]
            usage = body.get("usage", {}) if isinstance(body, dict) else {}
            tokens = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
            self.billed.append((line["custom_id"], *tokens))
        random.Random(id).shuffle(good)
        batch["request_counts"] = {"total": len(rows), "completed": len(good), "failed": len(bad)}
        for key, part in (("output_file_id", good), ("error_file_id", bad)):
            if part:
                text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in part)
                if key == "output_file_id":
                    text += "".join(f"{line}\n" for line in course.extra_lines)
                self.files[f"{id}-{key}"] = text.encode()
                batch[key] = f"{id}-{key}"

    def _content(self, id: str) -> Scripted:
        if id not in self.files:
            return _json(404, {"error": {"message": "no such file", "code": None}})
        content = self.files[id]
        half = content[: len(content) // 2]
        course = self._plans.get(id.rpartition("-")[0], (Course(), []))[0]
        before = self._downloads.get(id, 0)
        self._downloads[id] = before + 1
        if before < course.cut_lengths:
            return Scripted(raw=half, promise_more=len(content) - len(half))
        if before < course.cut_lengths + course.cut_downloads:
            return Scripted(raw=half)
        return Scripted(raw=content)

    def _cancel(self, id: str) -> Scripted:
        if not self._plans[id][1]:
            return _json(409, {"error": {"message": "the batch has ended", "code": None}})
        self.batches[id]["status"] = "cancelling"
        return _json(200, self.batches[id])

    def shorten(self, id: str) -> None:
        """Let a batch end at the next look."""
        with self.lock:
            course, _ = self._plans[id]
            self._plans[id] = course, [course.end]

    def asked(self) -> list[str]:
        """The custom ids of all batches, in the order in which they were sent."""
        return [row["custom_id"] for rows in self.rows.values() for row in rows]

    def count(self, method: str, path: str) -> int:
        return sum(call == method and at.startswith(path) for call, at in list(self.calls))


@dataclasses.dataclass
class Fault:
    """A reply in place of the real one; ``after`` the real thing was done."""

    reply: Scripted
    after: bool = False


def _json(status: int, data: Any) -> Scripted:
    return Scripted(status=status, raw=json.dumps(data).encode())
