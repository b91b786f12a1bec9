"""Kill real runs in batch mode with ``kill -9`` at random moments and compare them with an unkilled one.

    python benchmarks/batch_kills.py [--kills 50] [--target 300]

A server on loopback plays the provider: one request in twelve fails or expires the first time, a third of all calls is
answered with HTTP 500 or cut off, also after they were obeyed, and replies come in shuffled order. Printed are the
kills and the states that they hit, requests asked more often than their failures explain, and the money that the
provider counted beside the money that the ledger did.
"""

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.extend(
    str(Path(__file__).parents[1].resolve() / "tests" / "datagen" / room) for room in (".", "batch")
)

from batch_server import BatchServer, Course, Fault, expire, refuse, succeed
from scripted_server import Scripted

from datagen.batch.store import BatchStore
from datagen.ledger import Ledger

FILES = ("instructions.jsonl", "tasks.jsonl", "rejected.jsonl")
PRICES = "scripted: {input: 1000, output: 1000, batch_discount: 0.5}\n"
USD_PER_TOKEN = 1000 / 1e6 / 2
BUDGET_USD = 5000


def start(work: Path, server: BatchServer, target: int) -> "subprocess.Popen[str]":
    """Start the command as a user would."""
    prices = work.parent / "prices.yaml"
    prices.write_text(PRICES)
    command = [sys.executable, "-m", "alpacare_jax", "synthesize", "--work", str(work), "--mode", "batch"]
    command += ["--base-url", server.base_url, "--model", "scripted", "--target", str(target)]
    command += ["--tasks-per-request", "4", "--batch-poll-s", "0.05", "--batch-requests", "40"]
    command += ["--prices", str(prices), "--budget-usd", str(BUDGET_USD), "--max-tokens", "400"]
    command += ["--answer-max-tokens", "200", "--max-tries", "20"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def provider(draw: random.Random | None) -> BatchServer:
    """Play a provider; with a random source its wire fails."""
    tries: Counter[str] = Counter()

    def reply(row: dict[str, Any], _: int) -> dict[str, Any]:
        tries[row["custom_id"]] += 1
        fate = zlib.crc32(row["custom_id"].encode()) % 24
        if tries[row["custom_id"]] == 1 and fate < 2:
            return expire(row) if fate else refuse(row, 500, "oops")
        return succeed(row)

    def fault(method: str, path: str, number: int) -> Fault | Scripted | None:
        if draw is None or draw.random() > 1 / 3:
            return None
        trouble = draw.choice([Scripted("oops", 500), Scripted(reset=True), Scripted("busy", 503)])
        return Fault(trouble, after=draw.random() < 0.5)

    return BatchServer([Course(steps=("in_progress",), reply=reply)], fault=fault)


def results(work: Path) -> list[str]:
    """Return the result files without the times of the replies."""
    return [re.sub(r'"time": "[^"]*"', "", (work / name).read_text("utf-8")) for name in FILES]


def main() -> None:
    """Run unkilled once, then kill and resume until the run is through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--target", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        with provider(None) as server:
            begun = time.monotonic()
            process = start(Path(folder) / "unkilled", server, options.target)
            _, stderr = process.communicate()
            assert process.returncode == 0, stderr
            whole_s = time.monotonic() - begun
        print(
            f"unkilled: {whole_s:.1f} s, {len(server.batches)} batches, {len(server.asked())} requests asked"
        )
        with provider(random.Random(options.seed + 1)) as server:
            kills, hit = 0, Counter[str]()
            while True:
                process = start(Path(folder) / "killed", server, options.target)
                try:
                    # The interpreter takes a while to start; moments before that would prove nothing.
                    limit = None if kills >= options.kills else 0.8 + draw.random() * whole_s / 4
                    _, stderr = process.communicate(timeout=limit)
                    assert process.returncode == 0, stderr
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    kills += 1
                    hit[_state(Path(folder) / "killed")] += 1
        _report(Path(folder), server, kills, hit)


def _state(work: Path) -> str:
    if not (work / "ledger.sqlite").exists():
        return "before the ledger"
    with Ledger(work / "ledger.sqlite", read_only=True) as ledger:
        return (
            ", ".join(sorted({record.status or record.state for record in BatchStore(ledger).under_way()}))
            or "none"
        )


def _report(folder: Path, server: BatchServer, kills: int, hit: Counter[str]) -> None:
    same = results(folder / "killed") == results(folder / "unkilled")
    billed = Counter(id for id, _, _ in server.billed)
    counted = sum(prompt + completion for _, prompt, completion in server.billed) * USD_PER_TOKEN
    with Ledger(folder / "killed" / "ledger.sqlite", read_only=True) as ledger:
        spent = sum(each.cost_usd or 0.0 for each in ledger.tries())
        outcomes = Counter(each.outcome for each in ledger.tries())
        held, most = 0.0, 0.0
        for each in ledger.tries():
            held += each.cost_usd or 0.0
            most = max(most, held)
    print(f"killed {kills} times, with batches under way: {json.dumps(hit)}")
    print(f"result equals the unkilled run's: {same}")
    print(f"{len(server.batches)} batches, {len(server.asked())} requests asked, {len(server.calls)} calls")
    print(f"replies billed twice: {sum(many > 1 for many in billed.values())} of {len(billed)}")
    print(f"billed ${counted:.4f}, ledger ${spent:.4f}, cap ${BUDGET_USD}; tries {json.dumps(outcomes)}")


if __name__ == "__main__":
    main()
