"""A short run of the benchmark: the limits hold, every request ends once, the server's log and the ledger agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "synthesis_throughput.py"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--not-configured"], id="limits from the headers"),
        pytest.param(["--no-headers"], id="limits from the settings"),
    ],
)
def test_every_request_ends_once_and_no_limit_is_exceeded(options: list[str]) -> None:
    # The part of the limit that is left unused is 120 ms of the window: a busy machine may be late by less.
    size = ["--requests", "190", "--rpm", "2400", "--window-s", "4", "--timeout-s", "3", "--json"]
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), *size, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    figures = json.loads(run.stdout)
    assert figures["answered"] + figures["failed"] == 190
    assert figures["without_an_end"] == 0
    assert figures["replies_that_differ_from_ledger"] == 0
    assert figures["in_the_ledger_but_not_answered_by_the_server"] == 0
    assert set(figures["failed_reasons"]) <= {"rate-limited", "content-filter", "bad-reply", "timeout", "connection",
                                              "server-error"}  # fmt: skip
    assert figures["most_requests_in_window_after_first_429"] <= figures["limit_of_requests_in_window"]
    assert figures["most_tokens_in_window_after_first_429"] <= figures["limit_of_tokens_in_window"]
    assert figures["outcomes"].get("limit", 0) <= 1
    assert figures["peak_rss_mb"] < 500
    assert figures["longest_loop_block_cpu_ms"] < 100
    assert figures["answered"] > 152
