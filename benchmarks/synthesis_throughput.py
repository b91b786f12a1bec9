"""Ten thousand requests against a server that enforces limits and misbehaves.

    python benchmarks/synthesis_throughput.py [--requests 10000] [--no-headers] [--json]

A loopback server in a process of its own enforces 6,000 requests and 2,000,000 tokens a minute over a sliding
window, and answers 30% of the requests with a mix, in equal parts, of 429 with Retry-After, 429 without, 429 with
an absurd Retry-After (a day), 500, 503, silence, a connection reset, a truncated body, invalid JSON, no choices, a
withheld reply (content filter) and a cut one (finish_reason=length). The client asks with a ledger and a budget, as
``alpacare synthesize`` does. Afterwards the server's own log and the ledger are held against each other.

Useful throughput, as a share of what the limit allows net of faults:

    (replies used / wall time in minutes)  /  (requests a minute allowed x share of arrivals that got a usable reply)

A usable reply is a whole one or one cut by length. The numerator counts each request once, so a reply that had to be
asked for twice counts against the client; so do waiting at the start and the end, and pace left unused.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import platform
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from datagen.client import Reply, stream
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.service import rates
from datagen.service.chat import ChatRequest, Sampling
from datagen.service.wire import Service

SERVER = Path(__file__).with_name("limited_server.py")
STAGE = "benchmark"


@contextlib.contextmanager
def server(rules: dict[str, Any]) -> Iterator[str]:
    """Start the server in its own process; yield its address."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER), json.dumps(rules)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(timeout=20)


@dataclasses.dataclass
class Stalls:
    """How late the event loop came back: the longest time, and the most CPU time it spent in between."""

    longest_s: float = 0.0
    longest_cpu_s: float = 0.0

    async def watch(self, every_s: float = 0.005) -> None:
        """Look at the clock again and again."""
        due, cpu = time.perf_counter() + every_s, time.thread_time()
        while True:
            await asyncio.sleep(every_s)
            now, spent = time.perf_counter(), time.thread_time()
            self.longest_s = max(self.longest_s, now - due)
            self.longest_cpu_s = max(self.longest_cpu_s, spent - cpu)
            due, cpu = now + every_s, spent


def questions(count: int) -> Iterator[ChatRequest]:
    """Yield requests of the size that the task prompts have."""
    words = "A patient of sixty years with gout, asthma and angina asks what to do. " * 6
    for number in range(count):
        yield ChatRequest(
            f"{number:06d}", ({"role": "user", "content": f"{number:06d} {words}"},), Sampling(max_tokens=400)
        )


async def ask_all(count: int, service: Service, ledger: Ledger, stalls: Stalls) -> list[str]:
    """Ask everything; return the error of each request, "" where it was answered."""
    ticker = asyncio.ensure_future(stalls.watch())
    errors: list[str] = []
    replies: AsyncIterator[Reply] = stream(
        questions(count), service, ledger, stage=STAGE, window=lambda: count, budget=Budget(ledger)
    )
    async for reply in replies:
        errors.append(reply.error)
        if len(errors) % 1000 == 0:
            print(f"{len(errors)} of {count}", file=sys.stderr)
    ticker.cancel()
    return errors


def hold_against_each_other(errors: list[str], log: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """Compare replies, ledger and the server's log; every request must have ended exactly once."""
    entries = {entry.id: entry for entry in ledger.entries(STAGE)}
    answered = {id for id, entry in entries.items() if entry.state == "answered"}
    failed = {id for id, entry in entries.items() if entry.state == "failed" and entry.error}
    reasons: dict[str, int] = {}
    for id in failed:
        code = (entries[id].error or "").split(":")[0]
        reasons[code] = reasons.get(code, 0) + 1
    useful = log["useful"]
    return {
        "answered": len(answered),
        "failed": len(failed),
        "failed_reasons": reasons,
        "without_an_end": len(errors) - len(answered) - len(failed),
        "replies_that_differ_from_ledger": sum(
            bool(error) == (f"{at:06d}" in answered) for at, error in enumerate(errors)
        ),
        "answered_more_than_once_by_the_server": sum(many > 1 for many in useful.values()),
        "answered_by_the_server_but_not_in_the_ledger": len(useful.keys() - answered),
        "in_the_ledger_but_not_answered_by_the_server": len(answered - useful.keys()),
        "tries_in_ledger": sum(entry.tries for entry in entries.values()),
    }


def peak_rss_mb() -> float:
    """Return the most memory this program held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run once and return all figures."""
    rules = {
        "requests": round(options.rpm * options.window_s / 60),
        "tokens": round(options.tpm * options.window_s / 60),
        "window_s": options.window_s,
        "faults": options.faults,
        "seed": options.seed,
        "headers": options.headers,
        "latency_s": options.latency_s,
        "retry_after_s": 1.5,
    }
    if options.window_s < 60:
        # What may be made up for after a stall is meant for limits a minute.
        rates.CATCH_UP_S = 0.01 * options.window_s
    stalls = Stalls()
    with tempfile.TemporaryDirectory() as folder, server(rules) as address:
        service = Service(
            f"{address}/v1",
            "limited",
            timeout_s=options.timeout_s,
            concurrency=64,
            first_wait_s=0.5,
            requests_per_minute=options.rpm if options.configured else None,
            tokens_per_minute=options.tpm if options.configured else None,
        )
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            cpu, start = time.process_time(), time.perf_counter()
            errors = asyncio.run(ask_all(options.requests, service, ledger, stalls))
            wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
            with urllib.request.urlopen(f"{address}/log") as response:
                log = json.load(response)
            outcome = hold_against_each_other(errors, log, ledger)
    arrivals = log["arrivals"]
    usable_share = (log["outcomes"].get("ok", 0) + log["outcomes"].get("length", 0)) / arrivals
    allowed = options.rpm * usable_share
    return {
        "requests": options.requests,
        **outcome,
        "arrivals": arrivals,
        "outcomes": log["outcomes"],
        "window_s": options.window_s,
        "limit_of_requests_in_window": rules["requests"],
        "most_requests_in_window": log["most_requests"],
        "most_requests_in_window_after_first_429": log["most_requests_after_first_429"],
        "limit_of_tokens_in_window": rules["tokens"],
        "most_tokens_in_window": log["most_tokens"],
        "most_tokens_in_window_after_first_429": log["most_tokens_after_first_429"],
        "longest_unread_by_the_server_ms": round(log["longest_unread_s"] * 1000, 1),
        "wall_s": round(wall_s, 2),
        "useful_per_minute": round(outcome["answered"] / wall_s * 60, 1),
        "allowed_net_of_faults_per_minute": round(allowed, 1),
        "useful_share": round(outcome["answered"] / wall_s * 60 / allowed, 4),
        "cpu_s": round(cpu_s, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "longest_loop_block_ms": round(stalls.longest_s * 1000, 1),
        "longest_loop_block_cpu_ms": round(stalls.longest_cpu_s * 1000, 1),
        "python": platform.python_version(),
    }


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rpm", type=int, default=6_000, help="requests a minute")
    parser.add_argument("--tpm", type=int, default=2_000_000, help="tokens a minute")
    parser.add_argument("--window-s", type=float, default=60.0, help="the server's sliding window, seconds")
    parser.add_argument("--faults", type=float, default=0.3, help="share of requests that meet a fault")
    parser.add_argument("--latency-s", type=float, default=0.2, help="mean time of a reply, seconds")
    parser.add_argument("--timeout-s", type=float, default=3.0, help="the client's timeout, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-headers", dest="headers", action="store_false", help="no x-ratelimit-* headers")
    parser.add_argument(
        "--not-configured", dest="configured", action="store_false", help="learn limits from headers"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--verbose", action="store_true", help="show the client's log")
    options = parser.parse_args()
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
        for library in ("httpx", "httpx2"):  # openai is built on one of them
            logging.getLogger(library).setLevel(logging.WARNING)
    figures = run(options)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<48}{value}")


if __name__ == "__main__":
    main()
