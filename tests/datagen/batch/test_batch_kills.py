import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from batch_server import BatchServer, Course, Fault
from marking import slow_but
from scripted_server import Scripted

from datagen.ledger import Ledger
from datagen.records import SeedTask, write_records
from datagen.synthesize import status

SEEDS = (
    "What is gout?",
    "List signs of sepsis.",
    "Summarise this.",
    "Explain insulin to a child.",
    "Why rest?",
)
FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl")
USD_PER_TOKEN = 1000 / 1e6 / 2


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    write_records(path, [SeedTask(text, "<noinput>", "Open Q&A", "Medicine", "Nurse", "2") for text in SEEDS])
    (path.parent / "prices.yaml").write_text("scripted: {input: 1000, output: 1000, batch_discount: 0.5}\n")
    return path


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory, seeds: Path) -> dict[str, str]:
    work = tmp_path_factory.mktemp("unkilled") / "work"
    with BatchServer() as server:
        process = start(work, server, seeds)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    return results(work)


def start(work: Path, server: BatchServer, seeds: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(work), "--seeds", str(seeds)]
    command += ["--base-url", server.base_url, "--model", "scripted", "--mode", "batch", "--target", "10"]
    command += ["--tasks-per-request", "4", "--batch-poll-s", "0.02", "--max-tokens", "200"]
    command += [
        "--prices",
        str(seeds.parent / "prices.yaml"),
        "--budget-usd",
        "40",
        "--answer-max-tokens",
        "200",
    ]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=work.parent
    )


def results(work: Path) -> dict[str, str]:
    return {
        name: re.sub(r'"time": "[^"]*"', '"time": ""', (work / name).read_text("utf-8")) for name in FILES
    }


def wait_for(server: BatchServer, method: str, path: str, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while server.count(method, path) < times:
        assert time.monotonic() < deadline, f"{method} {path} never came: {server.calls}"
        time.sleep(0.002)


CONTENT = "/v1/files/batch_0-output_file_id/content"
WINDOWS = {
    "between file and batch": ("POST", "/v1/files", True),
    "between batch and record": ("POST", "/v1/batches", True),
    "while it is looked at": ("GET", "/v1/batches/batch_0", True),
    "while its replies come": ("GET", CONTENT, True),
}


@pytest.mark.parametrize("window", slow_but(["between file and batch", "between batch and record"], WINDOWS))
def test_a_killed_run_goes_on_and_pays_nothing_twice(
    tmp_path: Path, seeds: Path, unkilled: dict[str, str], window: str
) -> None:
    method, path, after = WINDOWS[window]
    work = tmp_path / "work"
    hold = Fault(Scripted(delay_s=60), after=after)
    with BatchServer(
        fault=lambda call, at, number: hold if (call, at, number) == (method, path, 0) else None
    ) as server:
        process = start(work, server, seeds)
        wait_for(server, method, path)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        shown = status(work).batches
        assert [batch["state"] for batch in shown] == ["planned" if method == "POST" else "open"]
        assert bool(shown[0]["status"]) == (window != "between file and batch")
        process = start(work, server, seeds)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert set(Counter(server.asked()).values()) == {1}, "nothing is asked twice"
    check(work, server, unkilled)


def check(work: Path, server: BatchServer, unkilled: dict[str, str]) -> None:
    """See that everything billed is accounted for, once, and that the result is that of an unkilled run."""
    assert results(work) == unkilled
    billed = {id: (prompt, completion) for id, prompt, completion in server.billed}
    assert len(billed) == len(server.billed)
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        assert {each.outcome for each in ledger.tries()} <= {"settled", "free"}
        tries = list(ledger.tries("outcome = 'settled'"))
        settled = {f"{each.stage}-{each.id}": (each.prompt_tokens, each.completion_tokens) for each in tries}
        assert settled == billed
        assert len(settled) == len(tries)
        assert sum(each.cost_usd or 0.0 for each in tries) == pytest.approx(
            sum(map(sum, billed.values())) * USD_PER_TOKEN
        )


@pytest.mark.slow
def test_a_harvest_that_is_killed_is_finished_by_the_next_process(tmp_path: Path) -> None:
    requests = 3000
    program = Path(__file__).parents[3] / "benchmarks" / "synthesis_batch.py"
    with BatchServer([Course(steps=())]) as server:
        command = [sys.executable, str(program), "--requests", str(requests), "--client"]
        command += [str(tmp_path), server.base_url, "wait"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        answered = 0
        while not answered:
            assert time.monotonic() < deadline
            if (tmp_path / "ledger.sqlite").exists() and server.billed:
                with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
                    answered = ledger.counts()["answers"]["answered"]
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
            answered = ledger.counts()["answers"]["answered"]
            settled = sum(each.outcome == "settled" for each in ledger.tries())
        assert 0 < answered < requests, "killed in the middle"
        assert settled == answered, "a reply and its bill are written down together"
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(done.stdout)["answered"] == requests
        assert len(server.asked()) == requests
        bill = sum(prompt * 1.0 + completion * 4.0 for _, prompt, completion in server.billed) / 1e6 / 2
        assert json.loads(done.stdout)["spent_usd"] == pytest.approx(bill)


def test_an_interruption_while_waiting_says_how_to_go_on(
    tmp_path: Path, seeds: Path, unkilled: dict[str, str]
) -> None:
    work = tmp_path / "work"
    with BatchServer([Course(steps=["in_progress"] * 10_000), Course()]) as server:
        process = start(work, server, seeds)
        wait_for(server, "GET", "/v1/batches/batch_0", times=3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert "run the same command again" in stderr
        assert "continue at the provider" in stderr
        assert "Traceback" not in stderr
        assert re.search(r"1 batch \(in_progress\) with 3 requests: \d+ completed, 0 failed", stderr)
        server.shorten("batch_0")
        process = start(work, server, seeds)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    check(work, server, unkilled)


@pytest.mark.slow
def test_the_command_can_leave_and_come_back(tmp_path: Path, seeds: Path, unkilled: dict[str, str]) -> None:
    work = tmp_path / "work"
    with BatchServer([Course(steps=("in_progress",))]) as server:
        left = 0
        while True:
            process = start(work, server, seeds, "--no-wait")
            stdout, stderr = process.communicate(timeout=60)
            if process.returncode != 3:
                break
            left += 1
            assert "run the same command again" in stderr
            assert re.search(
                r"1 batch \((not sent yet|validating|in_progress)\) with \d+ requests", stderr
            ), stderr
            command = [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(work), "--status"]
            shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            assert re.search(
                r"batch \d, (tasks|answers): batch_\d \w+, \d+ completed, 0 failed of \d+, for", shown
            )
            assert left < 20
    assert process.returncode == 0, stderr
    assert "instructions" in stdout
    assert left >= 2
    check(work, server, unkilled)
