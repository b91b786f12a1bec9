"""A real OpenAI-compatible HTTP server on loopback that answers by script, and can misbehave by script."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loopback_server import MODEL, LoopbackServer, Request, Scripted

__all__ = [
    "MODEL",
    "WORDS",
    "Script",
    "Scripted",
    "ScriptedServer",
    "asks_for_tasks",
    "text_of",
    "write_tasks",
]

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


class ScriptedServer(LoopbackServer):
    """Serves ``/v1/chat/completions`` from a function (body, try of that body) or a queue of replies."""

    def __init__(self, script: "Script | Sequence[Scripted | str]", port: int = 0) -> None:
        super().__init__(port)
        queue = None if callable(script) else iter(script)
        self._script: Script = script if callable(script) else lambda body, tried: next(queue)  # type: ignore
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0

    def serve(self, request: Request) -> None:
        body = json.loads(request.body)
        with self.lock:
            tried = 1 + self.bodies.count(body)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.authorizations.append(request.headers.get("authorization", ""))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            reply = self._script(body, tried)
        try:
            request.send(reply if isinstance(reply, Scripted) else Scripted(reply))
        finally:
            with self.lock:
                self.in_flight -= 1

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
