"""A loopback chat server that enforces limits in a sliding window, misbehaves on purpose, and keeps a log.

Run by ``synthesis_throughput.py`` in a process of its own. Every request that arrives counts against the limit of
requests a minute, whatever becomes of it; its tokens (prompt and reply) count when it arrives. A request beyond a
limit is refused with 429, ``Retry-After`` and ``x-ratelimit-*`` headers. Of the others a set share meets a fault,
drawn from a seeded generator. When the connection that started it asks for ``/log``, it reports what it saw.

A request arrives when the kernel receives its last bytes, not when this program gets round to reading them: where
the kernel stamps what it receives (Linux), a busy machine does not make requests look bunched that were not.
"""

import argparse
import asyncio
import bisect
import dataclasses
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter, deque
from typing import Any

FAULTS = ("429-with", "429-without", "429-absurd", "500", "503", "hang", "reset", "truncated", "invalid-json",
          "empty-choices", "content-filter", "length")  # fmt: skip
#: These end a request, with a reply or with a reason; the others are asked again.
USEFUL = ("ok", "length")
ABSURD_S = 86400
#: Linux's SO_TIMESTAMPNS, which :mod:`socket` does not name: seconds and nanoseconds of the wall clock.
_STAMPS = 35 if sys.platform == "linux" else None
_STAMP = struct.Struct("qq")


class StampedSocket(socket.socket):
    """A socket that knows when the bytes that were read from it last had come in, by the monotonic clock."""

    arrived: float | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection of this kind; it takes over the option of the socket that listens."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return StampedSocket(self.family, self.type, self.proto, fileno=descriptor), address

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Read, and keep the kernel's stamp."""
        data, ancillary, *_ = self.recvmsg(size, socket.CMSG_SPACE(_STAMP.size), flags)
        for _, kind, value in ancillary:
            if kind == _STAMPS and len(value) == _STAMP.size:
                seconds, nanoseconds = _STAMP.unpack(value)
                ago = max(0.0, time.time() - (seconds + nanoseconds / 1e9))
                self.arrived = time.monotonic() - ago
        return data


def arrival(writer: asyncio.StreamWriter) -> float:
    """Return when the last bytes of a connection came in: by the kernel's stamp where there is one, or now."""
    connection = getattr(writer.get_extra_info("socket"), "_sock", None)
    stamp = getattr(connection, "arrived", None)
    return time.monotonic() if stamp is None else stamp


@dataclasses.dataclass
class Rules:
    """Limits in one window, the share of faults, and how long a reply takes."""

    requests: int
    tokens: int
    window_s: float
    faults: float
    seed: int
    headers: bool
    latency_s: float
    retry_after_s: float


class Window:
    """What arrived within the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._arrivals: deque[tuple[float, int]] = deque()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def forget(self, now: float) -> None:
        """Let go of what is older than the window."""
        while self._arrivals and self._arrivals[0][0] <= now - self._seconds:
            self.tokens -= self._arrivals.popleft()[1]

    def add(self, now: float, tokens: int) -> None:
        """Count an arrival."""
        self._arrivals.append((now, tokens))
        self.tokens += tokens

    def oldest(self, now: float) -> float:
        """Return the seconds until the oldest arrival is forgotten."""
        return self._arrivals[0][0] + self._seconds - now if self._arrivals else 0.0


class Server:
    """Answers requests by the rules and remembers what became of each."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._draw = random.Random(rules.seed)
        self._window = Window(rules.window_s)
        self.arrivals: list[float] = []
        self.tokens: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self.useful: Counter[str] = Counter()
        self.first_429: float | None = None
        self._newest = -float("inf")
        self._late = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.split("\r\n")
                        if line.lower().startswith("content-length")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                if head.startswith("GET /log"):
                    await _send(writer, 200, json.dumps(self.log()).encode())
                elif not await self._answer(json.loads(body), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: dict, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether the connection is still of use."""
        self._late = max(self._late, time.monotonic() - (now := arrival(writer)))
        self.arrivals.append(now)
        now = max(now, self._newest)
        self._newest = now
        words = self._draw.randrange(40, 200)
        prompt_tokens = sum(len(message["content"]) // 4 for message in body["messages"])
        id = body["messages"][-1]["content"].split(" ", 1)[0]
        self._window.forget(now)
        too_many = len(self._window) >= self.rules.requests
        tokens = prompt_tokens + words
        too_much = self._window.tokens + tokens > self.rules.tokens
        fault = "limit" if too_many or too_much else self._fault()
        counted = 0 if fault == "limit" or fault[:3] in ("429", "500", "503") else tokens
        self._window.add(now, counted)
        self.tokens.append(counted)
        self.outcomes[fault] += 1
        if self.first_429 is None and (fault == "limit" or fault.startswith("429")):
            self.first_429 = now
        if fault in USEFUL:
            self.useful[id] += 1
        return await self._misbehave(fault, words, prompt_tokens, writer)

    def _fault(self) -> str:
        return self._draw.choice(FAULTS) if self._draw.random() < self.rules.faults else "ok"

    async def _misbehave(
        self, fault: str, words: int, prompt_tokens: int, writer: asyncio.StreamWriter
    ) -> bool:
        headers = self._limit_headers()
        if fault == "limit":
            wait_s = max(self._window.oldest(time.monotonic()), 0.001)
            await _send(writer, 429, _error("rate limit reached"), headers | {"retry-after": f"{wait_s:.3f}"})
        elif fault.startswith("429"):
            wait = {"429-with": f"{self.rules.retry_after_s:g}", "429-absurd": str(ABSURD_S)}.get(fault)
            await _send(writer, 429, _error("slow down"), headers | ({"retry-after": wait} if wait else {}))
        elif fault in ("500", "503"):
            await _send(writer, int(fault), _error("out of order"), headers)
        elif fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "reset":
            writer.transport.abort()
            return False
        else:
            await asyncio.sleep(self.rules.latency_s * self._draw.uniform(0.5, 1.5))
            payload = _reply(fault, words, prompt_tokens)
            await _send(writer, 200, payload, headers, more=20 if fault == "truncated" else 0)
            return fault != "truncated"
        return True

    def _limit_headers(self) -> dict[str, str]:
        if not self.rules.headers:
            return {}
        reset = f"{max(self._window.oldest(time.monotonic()), 0):.3f}s"
        a_minute = 60 / self.rules.window_s
        return {
            "x-ratelimit-limit-requests": str(round(self.rules.requests * a_minute)),
            "x-ratelimit-limit-tokens": str(round(self.rules.tokens * a_minute)),
            "x-ratelimit-remaining-requests": str(
                max(0, round((self.rules.requests - len(self._window)) * a_minute))
            ),
            "x-ratelimit-remaining-tokens": str(
                max(0, round((self.rules.tokens - self._window.tokens) * a_minute))
            ),
            "x-ratelimit-reset-requests": reset,
            "x-ratelimit-reset-tokens": reset,
        }

    def log(self) -> dict:
        """Return what was seen: counts by outcome, useful replies by request, highest rates."""
        start = self.first_429 if self.first_429 is not None else float("inf")
        noted = sorted(zip(self.arrivals, self.tokens, strict=True))
        times, tokens = [at for at, _ in noted], [amount for _, amount in noted]
        first = bisect.bisect_left(times, start)
        seconds = self.rules.window_s
        return {
            "arrivals": len(times),
            "longest_unread_s": self._late,
            "outcomes": dict(self.outcomes),
            "useful": dict(self.useful),
            "span_s": times[-1] - times[0] if times else 0.0,
            "most_requests": most_in_window(times, [1] * len(times), seconds),
            "most_tokens": most_in_window(times, tokens, seconds),
            "most_requests_after_first_429": most_in_window(times[first:], [1] * len(times[first:]), seconds),
            "most_tokens_after_first_429": most_in_window(times[first:], tokens[first:], seconds),
        }


def most_in_window(times: list[float], amounts: list[int], seconds: float) -> int:
    """Return the largest sum of amounts within any stretch of so many seconds."""
    most = total = first = 0
    for at, amount in zip(times, amounts, strict=True):
        total += amount
        while times[first] <= at - seconds:
            total -= amounts[first]
            first += 1
        most = max(most, total)
    return most


def _error(words: str) -> bytes:
    return json.dumps(
        {"error": {"message": words, "type": "requests", "code": "rate_limit_exceeded"}}
    ).encode()


def _reply(fault: str, words: int, prompt_tokens: int) -> bytes:
    if fault == "invalid-json":
        return b'{"choices": [{"message": {"content": "half a'
    finish = {"content-filter": "content_filter", "length": "length"}.get(fault, "stop")
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "word " * words},
        "finish_reason": finish,
    }
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "limited",
            "choices": [] if fault == "empty-choices" else [choice],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": words},
        }
    ).encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    payload: bytes,
    headers: dict[str, str] | None = None,
    more: int = 0,
) -> None:
    lines = [
        f"HTTP/1.1 {status} X",
        "content-type: application/json",
        f"content-length: {len(payload) + more}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
    await writer.drain()


async def main() -> None:
    """Serve until the standard input is closed; print the port first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", help="the rules as JSON")
    server = Server(Rules(**json.loads(parser.parse_args().rules)))
    own = StampedSocket(socket.AF_INET, socket.SOCK_STREAM)
    if _STAMPS is not None:
        own.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)
    own.bind(("127.0.0.1", 0))
    listener = await asyncio.start_server(server.serve, sock=own, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)

    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
