"""What a batch of full size costs this machine: 50,000 answers through files of up to 200 MB, in time and memory.

    python benchmarks/synthesis_batch.py [--requests 50000]

A server on loopback plays the provider and answers at once, so all that is measured is this program's own work:
writing the ledger and the file, sending it, fetching the replies, settling them and their cost one by one. One
process sends and leaves (``--no-wait``), a second one comes back for the replies.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.extend(
    str(Path(__file__).parents[1].resolve() / "tests" / "datagen" / room) for room in (".", "batch")
)

from datagen.batch.client import BatchesUnderWay, BatchLimits, complete_in_batches
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.money.prices import Price, Prices
from datagen.service.chat import ChatRequest, Sampling
from datagen.service.wire import Service

MODEL = "scripted"
PRICES = Prices({MODEL: Price(1.0, 4.0, batch_discount=0.5)})
BUDGET_USD = 1000.0


def ask(work: Path, base_url: str, requests: int, wait: bool) -> dict[str, float]:
    """Run once; return seconds, peak memory in MB, and money."""
    service = Service(base_url, MODEL)
    words = (
        "The patient has had a dry cough for three weeks and asks what it may be and what to do about it. "
    )
    asked = [
        ChatRequest(
            f"t{number:06d}-00",
            (
                {"role": "system", "content": "You are an experienced physician and teacher."},
                {"role": "user", "content": f"{number}: {words * 12}"},
            ),
            Sampling(max_tokens=1024),
        )
        for number in range(requests)
    ]
    begun, cpu = time.monotonic(), time.process_time()
    with Ledger(work / "ledger.sqlite") as ledger:
        budget = Budget(ledger, PRICES, BUDGET_USD)
        answered = 0
        try:
            replies = complete_in_batches(
                asked,
                service,
                ledger,
                stage="answers",
                budget=budget,
                limits=BatchLimits(poll_s=0.2),
                wait=wait,
            )
            answered = sum(not reply.error for reply in replies)
        except BatchesUnderWay:
            pass
        money = {"spent_usd": budget.spent_usd, "held_usd": budget.held_usd}
    return {
        "seconds": time.monotonic() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "answered": answered,
        **money,
    }


def peak_mb() -> float:
    """Return the most memory this process ever held; ``getrusage`` would count its parent's before the start."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    """Play the provider, and run the client in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--client", nargs=3, metavar=("WORK", "URL", "WAIT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        work, url, wait = options.client
        print(json.dumps(ask(Path(work), url, options.requests, wait == "wait")))
        return

    from batch_server import BatchServer, Course, succeed

    text = "A dry cough that lasts is most often left over from an infection. " * 16
    course = Course(steps=("in_progress",), reply=lambda row, number: succeed(row, text))
    with tempfile.TemporaryDirectory() as folder, BatchServer([course]) as server:
        for label, wait in (("send and leave", "leave"), ("come back and harvest", "wait")):
            command = [sys.executable, __file__, "--requests", str(options.requests)]
            command += ["--client", folder, server.base_url, wait]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
            figures = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{label:<22} {figures['seconds']:7.1f} s wall {figures['cpu_seconds']:7.1f} s cpu "
                f"{figures['peak_mb']:7.0f} MB {figures['answered']:7.0f} answered "
                f"${figures['spent_usd']:.2f} spent ${figures['held_usd']:.2f} held"
            )
        files = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()]
        print(f"batches {len(files)}, input files {[f'{size / 1e6:.0f} MB' for size in files]}")


if __name__ == "__main__":
    main()
