"""Kill a synthesis run again and again, and see that nothing is lost, paid twice or overspent.

    python benchmarks/synthesis_kills.py                 # 50 kills over 2,000 requests
    python benchmarks/synthesis_kills.py --kills 5 --requests 150

Real `alpacare synthesize` processes ask a real server process on loopback, which writes down every request it receives
and bills it, answered or not. The processes are killed (SIGKILL) when the server has seen a random number of requests,
plus a random moment. Checked, with exit status 1 if it does not hold:

- the answers in the ledger are those of a run that nobody killed, and so are the published files, byte for byte (but
  for the times of the replies, which no two runs share, and the account of the money);
- requests that the server received more than once are no more than those in flight at the kills;
- after every kill, and at the end, the server's bill is within the cap, and within what the ledger counts as spent;
- a second run whose cap is too small for the work ends at the cap, over kills too.
"""

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from datagen.ledger import Ledger

MODEL = "scripted"
TASKS_PER_REQUEST = 4
CONCURRENCY = 8
DOLLARS_PER_MILLION = 1.0
WORST_USD = 0.004  # of one request, about
FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl", "funnel.json")
VIEWS = ("Nurse", "Student", "Patient", "Physician", "Pharmacist", "Researcher")
SYLLABLES = ("ka", "lo", "mi", "ne", "pu", "ra", "si", "to", "ve", "xi", "za", "du", "fe", "go", "hy")


def write_reply(messages: list[dict[str, str]]) -> str:
    """Play a teacher whose words depend on the messages alone."""
    asked = messages[-1]["content"]
    draw = random.Random(hashlib.sha256(json.dumps(messages).encode()).digest())
    if not asked.startswith("Write medical task"):
        return f"First rest, then {_words(draw, 12)}. The dose is number {draw.randrange(10**6)}."
    first = int(re.findall(r"\d+", asked)[0])
    return "\n###\n".join(
        f"{number}. Type: Open Q&A\nTopic: Medicine\nView: {draw.choice(VIEWS)}\nDifficulty: {draw.randrange(1, 6)}\n"
        f"Instruction: Explain how {_words(draw, 6)} are treated together.\nInput: <noinput>"
        for number in range(first, first + TASKS_PER_REQUEST)
    )


def _words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(count))


def bill_usd(prompt_tokens: int, completion_tokens: int) -> float:
    """Return what the server charges for one request, in US dollars."""
    return (prompt_tokens + completion_tokens) * DOLLARS_PER_MILLION / 1e6


def serve(port: "Synchronized[int]", count: "Synchronized[int]", log: Path, delay_s: float) -> None:
    """Answer requests until killed; note each in the log as soon as it is received, with its bill."""
    written = log.open("a", buffering=1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            body = json.loads(sent)
            text = write_reply(body["messages"])
            tokens = len(sent) // 4, len(text) // 4
            fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
            with count.get_lock():
                written.write(f"{fingerprint} {bill_usd(*tokens):.9f}\n")
                count.value += 1
            time.sleep(delay_s * (0.5 + random.random()))
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
            reply = {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": MODEL,
                "choices": [choice],
            }
            payload = json.dumps(reply | {"usage": usage}).encode()
            try:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
            except ConnectionError:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that were killed in the middle of a request."""

    server = Server(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    server.serve_forever()


class Teacher:
    """A server process, its address, and what it received so far."""

    def __init__(self, log: Path, delay_s: float) -> None:
        self._log = log
        self._port: Synchronized[int] = multiprocessing.Value("i", 0)
        self._count: Synchronized[int] = multiprocessing.Value("i", 0)
        self._process = multiprocessing.get_context("fork").Process(
            target=serve, args=(self._port, self._count, log, delay_s), daemon=True
        )

    def __enter__(self) -> "Teacher":
        self._process.start()
        while not self._port.value:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def base_url(self) -> str:
        """The address to ask."""
        return f"http://127.0.0.1:{self._port.value}/v1"

    @property
    def received(self) -> int:
        """How many requests came in."""
        return self._count.value

    def requests(self) -> list[tuple[str, float]]:
        """The fingerprint and the bill in US dollars of every request, in the order of arrival."""
        with self._count.get_lock():
            lines = self._log.read_text().splitlines()
        return [(name, float(usd)) for name, usd in (line.split() for line in lines)]

    def billed_usd(self) -> float:
        """The bill so far, in US dollars."""
        return sum(usd for _, usd in self.requests())


@contextmanager
def teacher(folder: Path, name: str, delay_s: float) -> Iterator[Teacher]:
    """Run a server process for the block."""
    with Teacher(folder / f"{name}.log", delay_s) as running:
        yield running


def start(work: Path, base_url: str, target: int, budget_usd: float) -> "subprocess.Popen[str]":
    """Start the real command."""
    prices = work.parent / "prices.yaml"
    prices.write_text(f"{MODEL}: {{input: {DOLLARS_PER_MILLION}, output: {DOLLARS_PER_MILLION}}}\n")
    command = [
        sys.executable,
        "-m",
        "alpacare_jax",
        "synthesize",
        "--work",
        str(work),
        "--base-url",
        base_url,
    ]
    command += ["--model", MODEL, "--target", str(target), "--tasks-per-request", str(TASKS_PER_REQUEST)]
    command += ["--concurrency", str(CONCURRENCY), "--max-tokens", "400", "--answer-max-tokens", "120"]
    command += ["--budget-usd", str(budget_usd), "--prices", str(prices)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@dataclasses.dataclass
class Ended:
    """What became of one work folder: kills, exit status and output of the last process, and what was checked."""

    kills: int = 0
    status: int | None = None
    output: str = ""
    in_flight: set[int] = dataclasses.field(default_factory=set)
    most_billed_usd: float = 0.0
    counted_usd: float = 0.0
    least_slack_usd: float = float("inf")
    problems: list[str] = dataclasses.field(default_factory=list)


def run_with_kills(
    work: Path, served: Teacher, target: int, budget_usd: float, moments: list[int], draw: random.Random
) -> Ended:
    """Run to the end, killing the process whenever the server has seen another of the given numbers of requests."""
    ended = Ended()
    for moment in [*moments, None]:
        process = start(work, served.base_url, target, budget_usd)
        if moment is not None:
            while process.poll() is None and served.received < moment:
                time.sleep(0.001)
            time.sleep(draw.random() * 0.05)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                ended.kills += 1
        ended.output, _ = process.communicate()
        ended.status = process.returncode
        check_money(ended, work, served, budget_usd)
        if ended.status not in (-signal.SIGKILL, 0, 1):
            break
    return ended


def check_money(ended: Ended, work: Path, served: Teacher, budget_usd: float) -> None:
    """Compare the server's bill with the cap and with what the ledger counts as spent."""
    billed = served.billed_usd()
    ended.most_billed_usd = max(ended.most_billed_usd, billed)
    if billed > budget_usd:
        ended.problems.append(f"the bill of ${billed:.6f} exceeds the cap of ${budget_usd:.6f}")
    if not (work / "ledger.sqlite").exists():
        return
    try:
        with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
            sums = ledger.spending().values()
            in_flight = {each.number for each in ledger.open_tries()} - ended.in_flight
    except sqlite3.OperationalError:
        return
    counted = sum(each.spent_usd + each.unknown_usd + each.held_usd for each in sums)
    ended.counted_usd = counted
    ended.least_slack_usd = min(ended.least_slack_usd, counted - billed)
    if ended.status == -signal.SIGKILL:
        ended.in_flight |= in_flight
        if len(in_flight) > CONCURRENCY:
            ended.problems.append(
                f"{len(in_flight)} requests were in flight, more than the {CONCURRENCY} allowed"
            )
    if counted < billed - 1e-9:
        ended.problems.append(f"the ledger counts ${counted:.6f} as spent, the server billed ${billed:.6f}")
    if counted > budget_usd + 1e-9:
        ended.problems.append(f"the ledger counts ${counted:.6f}, more than the cap of ${budget_usd:.6f}")


def answers(work: Path) -> dict[tuple[str, str], str | None]:
    """Return every reply that a ledger holds."""
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        return {(each.stage, each.id): each.reply for each in ledger.entries() if each.state == "answered"}


def published(work: Path) -> dict[str, bytes]:
    """Return the published files without the times of the replies and the account of the money."""
    files = {
        name: re.sub(rb'"time": "[^"]*"', b'"time": ""', (work / name).read_bytes()) for name in FILES[:-1]
    }
    funnel = json.loads((work / FILES[-1]).read_text())
    del funnel["money"]
    return files | {FILES[-1]: json.dumps(funnel).encode()}


def compare(ended: Ended, work: Path, whole: Path, served: Teacher) -> int:
    """See that a killed run came to what an unkilled one did; return how many requests came more than once."""
    if ended.status != 0:
        ended.problems.append(f"the last process ended with status {ended.status}: {ended.output[-600:]}")
        return 0
    seen = [name for name, _ in served.requests()]
    repeated = len(seen) - len(set(seen))
    mine, other = answers(work), answers(whole)
    if any(mine[key] != other[key] for key in mine.keys() & other.keys()):
        ended.problems.append("an answer differs from the unkilled run's")
    # The last task requests before the target is reached may have been sent or not, killed or not.
    if {key for key in mine.keys() ^ other.keys() if key[0] == "answers"}:
        ended.problems.append("the ledger's answers are not those of the unkilled run")
    for name, content in published(work).items():
        if content != published(whole)[name]:
            ended.problems.append(f"{name} differs from the unkilled run's")
    if repeated > len(ended.in_flight):
        ended.problems.append(f"{repeated} requests came again, {len(ended.in_flight)} were in flight")
    return repeated


def measure(kills: int, requests: int, seed: int, say: Callable[[str], None]) -> list[str]:
    """Run everything and print the figures.

    Args:
        kills: How often to kill.
        requests: About how many requests the run makes.
        seed: Of the moments.
        say: Prints a line.

    Returns:
        What did not hold.
    """
    draw = random.Random(seed)
    target = requests * TASKS_PER_REQUEST // (TASKS_PER_REQUEST + 1)
    with tempfile.TemporaryDirectory(prefix="alpacare-kills-") as name:
        folder = Path(name)
        with teacher(folder, "whole", 0.02) as served:
            whole = run_with_kills(folder / "whole", served, target, 100.0, [], draw)
            total, cost = served.received, served.billed_usd()
        say(
            f"unkilled: {total} requests, ${cost:.4f} billed, counted ${whole.counted_usd:.4f}, "
            f"exit status {whole.status}"
        )
        if whole.status != 0:
            return [whole.output]
        moments = sorted(draw.randrange(1, total) for _ in range(kills))
        with teacher(folder, "killed", 0.02) as served:
            # Every try that a kill cuts off stays spent at its worst case, so a cap that suffices has room for them.
            budget = 1.2 * cost + kills * CONCURRENCY * WORST_USD
            killed = run_with_kills(folder / "killed", served, target, budget, moments, draw)
            repeated = compare(killed, folder / "killed", folder / "whole", served)
            say(
                f"killed {killed.kills} times: {served.received} requests, {repeated} of them sent again, "
                f"{len(killed.in_flight)} in flight at the kills"
            )
            say(
                f"  billed ${killed.most_billed_usd:.4f}, counted ${killed.counted_usd:.4f}, cap ${budget:.4f}; "
                f"never counted less than billed (by ${killed.least_slack_usd:.6f} at least)"
            )
        with teacher(folder, "tight", 0.02) as served:
            tight = 0.6 * cost
            few = sorted(draw.randrange(1, max(2, total // 3)) for _ in range(max(1, kills // 5)))
            capped = run_with_kills(folder / "tight", served, target, tight, few, draw)
            if capped.status == 0 or "budget" not in capped.output:
                capped.problems.append(f"a run with too small a cap ended with status {capped.status}")
            say(
                f"too small a cap, killed {capped.kills} times: billed ${capped.most_billed_usd:.4f} of "
                f"${tight:.4f}, counted as spent ${capped.counted_usd:.4f}, exit status {capped.status}"
            )
    return [*killed.problems, *capped.problems]


def main() -> None:
    """Read the arguments, measure, and fail if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how often to kill")
    parser.add_argument("--requests", type=int, default=2000, help="requests of the run, about")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    started = time.monotonic()
    problems = measure(
        arguments.kills, arguments.requests, arguments.seed, lambda line: print(line, flush=True)
    )
    print(f"{time.monotonic() - started:.0f} s")
    for problem in problems:
        print(f"DOES NOT HOLD: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
