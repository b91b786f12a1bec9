"""A server that dies in the middle of a run: what a person who waits reads, and that the run goes on after it."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datagen.client import ChatRequest, Sampling, Service, complete
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.service.circuit import Circuit, OutageLog


def test_lines_come_now_and_then_and_the_return_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "datagen")
    now = 0.0
    outage = OutageLog("http://h/v1", lambda: now)
    outage.over()
    outage.failed()
    for second, next_s in ((2, 1.0), (3, 2.0), (5, 4.0), (9, 8.0), (17, 30.4), (47, 60.0), (107, 1.0)):
        now = float(second)
        outage.failed()
        outage.wait("has been unreachable", next_s, second, 200)
    now = 130.0
    outage.over()
    outage.over()
    assert caplog.messages == [
        "http://h/v1 has been unreachable for 2 s; next try in 1 s (2 of 200); Ctrl-C keeps everything",
        "http://h/v1 has been unreachable for 17 s; next try in 30 s (17 of 200); Ctrl-C keeps everything",
        "http://h/v1 has been unreachable for 47 s; next try in 1 min 0 s (47 of 200); Ctrl-C keeps everything",
        "http://h/v1 has been unreachable for 1 min 47 s; next try in 1 s (107 of 200); Ctrl-C keeps everything",
        "http://h/v1 answers again, after 2 min 10 s; going on",
    ]


def test_faults_that_pass_by_themselves_are_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "datagen")
    circuit = Circuit(patience_s=600, first_wait_s=1, max_tries=3, clock=lambda: 0.0)
    for number in range(0, 40, 2):
        circuit.sent(number)
        circuit.failed(number, str(number), unreachable=False, words="server-error")
        circuit.sent(number + 1)
        circuit.answered(number + 1)
    assert caplog.messages == []


SERVE = """
import sys, threading
from scripted_server import Scripted, ScriptedServer
with ScriptedServer(lambda body, tried: Scripted(sys.argv[2], delay_s=0.05), port=int(sys.argv[1])) as server:
    print(server.port, flush=True)
    threading.Event().wait()
"""


def serve(port: int, text: str) -> "tuple[subprocess.Popen[str], int]":
    """Start a server in a process of its own, which can be killed with all its connections."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port), text],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


class AtFirst(logging.Handler):
    """Does something when the first line comes that holds some words."""

    def __init__(self, words: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._words, self._act = words, act

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self._words = "\0"
            self._act()


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_server_that_dies_is_waited_for(
    comes_back: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "datagen")
    requests = [
        ChatRequest(f"{number}", ({"role": "user", "content": f"{number}"},), Sampling())
        for number in range(40)
    ]
    first, port = serve(0, "first")
    processes = [first]
    service = Service(f"http://127.0.0.1:{port}/v1", "m", concurrency=2, first_wait_s=0.1, max_tries=2)

    def kill(settled: int, total: int) -> None:
        if settled == 10:
            first.kill()
            first.wait()

    handler = AtFirst("next try in", lambda: processes.append(serve(port, "second")[0]))
    if comes_back:
        logging.getLogger("datagen").addHandler(handler)
    try:
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            if comes_back:
                replies = complete(requests, service, ledger, stage="s", progress=kill)
                assert {reply.text for reply in replies} == {"first", "second"}
            else:
                with pytest.raises(ServiceError, match="cannot be reached"):
                    complete(requests, service, ledger, stage="s", progress=kill)
                assert ledger.counts()["s"]["failed"] == 0
                assert 10 <= ledger.counts()["s"]["answered"] < 40
    finally:
        logging.getLogger("datagen").removeHandler(handler)
        for process in processes:
            process.kill()
            process.communicate()
    line = (
        re.escape(service.base_url) + r" has been unreachable for \d+ s; next try in \d+ s \(1 of 6\); Ctrl-C"
    )
    assert any(re.match(line, each) for each in caplog.messages)
    assert any("answers again, after" in each for each in caplog.messages) is comes_back
