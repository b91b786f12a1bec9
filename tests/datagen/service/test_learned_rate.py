"""A service that refuses what is too much and names no limit: the pace is found out, and kept."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Scripted, ScriptedServer

from datagen.client import ChatRequest, Sampling, Service, complete
from datagen.ledger import Ledger
from datagen.service.rates import LearnedRate

Limiter = Callable[[float], bool]


def window(limit: int, seconds: float) -> Limiter:
    """Take so many in each window of so many seconds."""
    counts: dict[int, int] = {}

    def takes(at: float) -> bool:
        counts[int(at / seconds)] = counts.get(int(at / seconds), 0) + 1
        return counts[int(at / seconds)] <= limit

    return takes


def bucket(per_second: float, burst: float) -> Limiter:
    """Take so many a second on average, and a burst after a rest."""
    state = [burst, 0.0]

    def takes(at: float) -> bool:
        state[:] = [min(burst, state[0] + (at - state[1]) * per_second), at]
        if state[0] < 1:
            return False
        state[0] -= 1
        return True

    return takes


def simulate(takes: Limiter, minutes: int, latency_s: float, stray: float = 0.0) -> tuple[float, float]:
    """Return the answers a minute and the part of all tries that was refused, in the second half of the time."""
    rate, draw, now, number, refusals_in_a_row = LearnedRate(), random.Random(0), 0.0, 0, 0
    outcomes: list[tuple[float, bool]] = []
    while now < 60 * minutes:
        now = rate.ready_at(now)
        rate.sent(now)
        taken = draw.random() >= stray and takes(now)
        outcomes.append((now, taken))
        if taken:
            now, refusals_in_a_row = now + latency_s, 0
            rate.answered(number, number + 1, now)
        else:
            rate.refused(number, now)
            now += draw.uniform(0, min(60, 2**refusals_in_a_row))
            refusals_in_a_row += 1
        number += 1
    later = [taken for at, taken in outcomes if at > 30 * minutes]
    return sum(later) / (minutes / 2), 1 - sum(later) / len(later)


@pytest.mark.parametrize(
    ("takes", "limit", "latency_s"),
    [
        pytest.param(lambda: window(60, 60), 60, 0.2, id="60 in each minute"),
        pytest.param(lambda: window(10, 1), 600, 0.02, id="10 in each second"),
        pytest.param(lambda: bucket(10, 20), 600, 0.02, id="600 a minute, with bursts"),
        pytest.param(lambda: bucket(1, 1), 60, 0.2, id="one a second"),
    ],
)
def test_most_of_an_unnamed_limit_is_used_and_few_are_refused(
    takes: Callable[[], Limiter], limit: int, latency_s: float
) -> None:
    answered, refused = simulate(takes(), 20, latency_s)
    assert answered > 0.8 * limit
    assert refused < 0.08


@pytest.mark.parametrize(
    ("takes", "latency_s"),
    [
        pytest.param(lambda: window(60, 60), 0.2, id="60 in each minute"),
        pytest.param(lambda: window(10, 1), 0.02, id="10 in each second"),
        pytest.param(lambda: bucket(10, 20), 0.02, id="600 a minute, with bursts"),
        pytest.param(lambda: bucket(1, 1), 0.2, id="one a second"),
        pytest.param(lambda: lambda at: True, 0.2, id="no limit at all"),
    ],
)
def test_refusals_for_other_reasons_do_not_bring_the_pace_down(
    takes: Callable[[], Limiter], latency_s: float
) -> None:
    """One try in ten is refused however slowly they come; a pace that fell for each would end near nothing."""
    for minutes in (20, 60):
        answered, _ = simulate(takes(), minutes, latency_s, stray=0.1)
        assert answered > 30


def test_a_limit_is_kept_though_some_are_refused_for_other_reasons() -> None:
    answered, refused = simulate(bucket(10, 20), 20, 0.02, stray=0.02)
    assert answered > 0.8 * 600
    assert refused < 0.08


def test_a_very_small_limit_is_found_too() -> None:
    answered, refused = simulate(window(3, 60), 30, 0.2)
    assert answered > 2
    assert refused < 0.25


def test_nothing_is_slowed_down_before_a_refusal() -> None:
    rate = LearnedRate()
    for number in range(1000):
        assert rate.ready_at(float(number)) == number
        rate.sent(float(number))
        rate.answered(number, number + 1, number + 0.5)
    assert rate.per_minute == math.inf


def test_a_round_of_refusals_lowers_the_pace_once() -> None:
    rate = LearnedRate()
    for number in range(60):
        rate.answered(number, number + 1, float(number))
    for number in range(60, 68):
        rate.refused(number, 60.0)
    rate.answered(68, 76, 61.0)
    once = rate.per_minute
    for number in range(69, 76):
        rate.refused(number, 61.5)
    rate.answered(76, 77, 62.0)
    assert once == pytest.approx(59, abs=2)
    assert rate.per_minute >= once


def test_a_service_elsewhere_without_figures_is_asked_at_the_pace_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server that takes 40 requests a second; without the pace, it would refuse most of what it gets."""
    monkeypatch.setattr(Service, "is_loopback", lambda self: False)
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed-here")
    takes = bucket(40, 4)
    refused = 0

    def limited(body: dict[str, Any], tried: int) -> Scripted | str:
        nonlocal refused
        if takes(time.monotonic()):
            return "ok"
        refused += 1
        return Scripted("slow down", 429)

    requests = [
        ChatRequest(f"{number}", ({"role": "user", "content": f"{number}"},), Sampling())
        for number in range(300)
    ]
    with ScriptedServer(limited) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        service = Service(server.base_url, "scripted", concurrency=16, first_wait_s=0.1, max_tries=20)
        replies = complete(requests, service, ledger, stage="s")
    assert [reply.text for reply in replies] == ["ok"] * 300
    assert refused < 45
