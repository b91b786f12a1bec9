import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.service.circuit import Circuit
from datagen.service.limiter import ConcurrencyLimit, Limiter, TokenEstimator
from datagen.service.limits import Allowance, Limits
from datagen.service.rates import CATCH_UP_S, HURRY, SHARE, RateLimit


@dataclasses.dataclass
class Bounds:
    concurrency: int = 8
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    heed_headers: bool = True

    def is_loopback(self) -> bool:
        return True


def circuit(clock: Callable[[], float]) -> Circuit:
    return Circuit(patience_s=60, first_wait_s=0.1, max_tries=3, clock=clock)


def times_of(meter: RateLimit, count: int, lateness: Callable[[int], float] = lambda at: 0.0) -> list[float]:
    """Spend 1 again and again, as early as the meter allows or a little later."""
    now, times = 100.0, []
    for at in range(count):
        now = max(now, meter.ready_at(now)) + lateness(at)
        meter.spend(1, now)
        times.append(now)
    return times


def most_in(times: list[float], seconds: float) -> int:
    return max(sum(at <= each < at + seconds for each in times) for at in times)


def test_spending_is_even_from_the_first_on() -> None:
    times = times_of(RateLimit(600), 100)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) == pytest.approx(0.1 / SHARE)
    assert max(gaps) == pytest.approx(0.1 / SHARE)


@given(
    st.lists(st.floats(0, 0.4) | st.floats(0, 20), min_size=300, max_size=300),
    st.sampled_from([60, 120, 600]),
)
def test_no_minute_sees_more_than_the_limit_however_late_the_clock_comes(
    late: list[float], limit: int
) -> None:
    times = times_of(RateLimit(limit), 300, lambda at: late[at])
    assert most_in(times, 59.99) <= limit * SHARE + 1
    assert most_in(times, 5.0) <= limit / 60 * SHARE * HURRY * 5.1 + 2, "no bursts within it"


@given(st.lists(st.tuples(st.floats(1, 400), st.floats(0, 1.5), st.floats(0, 3)), min_size=150, max_size=150))
def test_no_minute_sees_more_tokens_than_the_limit(tries: list[tuple[float, float, float]]) -> None:
    """Estimates are corrected up or down, after a while; what a minute really took stays within the limit."""
    meter, now = RateLimit(20_000), 100.0
    open_tries: list[tuple[float, float]] = []
    taken: list[tuple[float, float]] = []
    for estimate, ratio, delay in tries:
        now = max(now, meter.ready_at(now))
        for ends, change in [each for each in open_tries if each[0] <= now]:
            meter.correct(change, now)
            open_tries.remove((ends, change))
        now = max(now, meter.ready_at(now))
        meter.spend(estimate, now)
        taken.append((now, estimate * ratio))
        open_tries.append((now + delay, estimate * (ratio - 1)))
    most = max(sum(amount for at, amount in taken if start <= at < start + 60) for start, _ in taken)
    assert most <= 20_000 * SHARE + 1000, "what was in flight when it was learnt"


def test_a_small_lateness_is_made_up_for() -> None:
    on_time = times_of(RateLimit(6000), 1000)
    a_little_late = times_of(RateLimit(6000), 1000, lambda at: 0.03 if at % 50 == 0 else 0.0)
    assert a_little_late[-1] - on_time[-1] < 0.05


def test_a_stall_is_made_up_for_step_by_step_and_a_long_one_in_part() -> None:
    on_time = times_of(RateLimit(6000), 6000)
    stalled = times_of(RateLimit(6000), 6000, lambda at: 5.0 if at == 500 else 0.0)
    assert stalled[-1] - on_time[-1] < 0.1
    after = [at - stalled[500] for at in stalled[500:1000]]
    assert most_in(after, 0.5) <= 0.5 * 100 * SHARE * HURRY + 4, "not in a burst"
    long = times_of(RateLimit(6000), 6000, lambda at: 30.0 if at == 500 else 0.0)
    assert long[-1] - on_time[-1] == pytest.approx(30.0 - CATCH_UP_S, abs=0.2)


def test_without_a_limit_everything_goes_at_once() -> None:
    assert times_of(RateLimit(None), 50) == [100.0] * 50


def test_headers_tighten_and_loosen_below_the_bound_of_the_settings() -> None:
    meter = RateLimit(1000)
    seen = []
    for limit in (2000, 400, 800, 5000):
        meter.observe(Allowance(limit), now=0)
        seen.append(meter.per_minute)
    assert seen == [1000, 400, 800, 1000]


def test_headers_alone_set_the_limit_where_the_settings_are_silent() -> None:
    meter = RateLimit(None)
    seen = []
    for limit in (2000.0, 400.0, None, 5000.0):
        meter.observe(Allowance(limit), now=0)
        seen.append(meter.per_minute)
    assert seen == [2000, 400, 400, 5000]


def test_a_limit_a_day_is_not_taken_for_one_a_minute() -> None:
    meter = RateLimit(None)
    meter.observe(Allowance(limit=14400, remaining=14370, reset_s=179.6), now=0)
    assert meter.per_minute is None


def test_a_scarce_remainder_slows_the_pace_until_it_is_reset() -> None:
    meter = RateLimit(6000)
    meter.observe(Allowance(6000, remaining=24, reset_s=10), now=0.0)
    meter.spend(1, 0.0)
    assert meter.ready_at(0.0) == pytest.approx(0.1 / SHARE)
    meter = RateLimit(6000)
    meter.observe(Allowance(6000, remaining=24, reset_s=10), now=0.0)
    meter.spend(1, 11.0)
    assert meter.ready_at(11.0) == pytest.approx(11.0 + 0.01 / SHARE)


def test_tokens_are_corrected_when_they_are_counted() -> None:
    meter = RateLimit(60_000)
    meter.spend(2000, 0.0)
    assert meter.ready_at(0.0) == pytest.approx(2 / SHARE)
    meter.correct(-1500, 0.0)
    assert meter.ready_at(0.0) == pytest.approx(0.5 / SHARE)
    meter.correct(-1500, 0.0)
    assert meter.ready_at(0.0) == 0.0
    meter.spend(500, 0.0)
    assert meter.ready_at(0.0) == pytest.approx(0.5 / SHARE), "what came back early is no credit"


def test_the_estimator_starts_with_the_worst_case_and_never_exceeds_it() -> None:
    estimator = TokenEstimator()
    assert estimator.of(500, 1000) == 1500
    estimator.learn(500, 5000, 5000)
    assert estimator.of(500, 1000) == 1500
    for _ in range(1000):
        estimator.learn(400, 100, 50)
    assert 150 <= estimator.of(400, 1000) < 165


def test_the_number_in_flight_rises_in_use_and_halves_once_for_a_round() -> None:
    in_flight = ConcurrencyLimit(64, first=8, limits_known=False)
    for _ in range(8):
        in_flight.answered(in_flight.limit - 1)
    assert in_flight.limit == 16, "twice as many after a round"
    for number in range(16):
        in_flight.overloaded(number, next_number=16, whole=False)
    assert in_flight.limit == 8, "halved once, not sixteen times"
    for _ in range(9):
        in_flight.answered(in_flight.limit - 1)
    assert in_flight.limit == 9, "one more after a round"
    for _ in range(100):
        in_flight.answered(2)
    assert in_flight.limit == 9, "what is not used is not raised"
    for number in range(20, 40):
        in_flight.overloaded(number, next_number=number + 1, whole=False)
    assert in_flight.limit == 1


def test_known_limits_leave_the_number_in_flight_alone_unless_the_whole_service_is_overloaded() -> None:
    in_flight = ConcurrencyLimit(64, first=1, limits_known=True)
    in_flight.overloaded(0, 1, whole=False)
    assert in_flight.limit == 64
    in_flight.overloaded(1, 2, whole=True)
    assert in_flight.limit == 32
    learning = ConcurrencyLimit(64, first=1, limits_known=False)
    assert learning.limit == 1
    learning.limits_are_known()
    assert learning.limit == 64


def test_earlier_requests_go_first_and_a_cancelled_one_takes_no_room() -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        limiter = Limiter(Bounds(concurrency=1), circuit(loop.time), loop.time)
        first = await limiter.admit(0, 1)
        went: list[int] = []

        async def go(order: int) -> None:
            ticket = await limiter.admit(order, 1)
            went.append(order)
            limiter.leave(ticket)

        tasks = [asyncio.ensure_future(go(order)) for order in (5, 3, 9, 1)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        limiter.leave(first)
        await asyncio.wait(tasks)
        assert limiter.in_flight == 0
        return went

    assert asyncio.run(run()) == [1, 5, 9]


def test_a_permission_given_and_cancelled_at_once_is_returned() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        limiter = Limiter(Bounds(concurrency=1), circuit(loop.time), loop.time)
        first = await limiter.admit(0, 1)
        second = asyncio.ensure_future(limiter.admit(1, 1))
        await asyncio.sleep(0)
        limiter.leave(first)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        return limiter.in_flight

    assert asyncio.run(run()) == 0


def test_an_allowance_that_is_used_up_pauses_before_any_refusal() -> None:
    now = 50.0
    held = circuit(lambda: now)
    limiter = Limiter(Bounds(requests_per_minute=60), held, lambda: now)
    limiter.observe(Limits(None, Allowance(60, 0, 12.0)))
    assert held.open_at() == 62.0
    limiter.observe(Limits(None, Allowance(60, 0, 86400.0)))
    assert held.open_at() == 110.0, "a long reset is tested again after a minute"
    assert not held.ended


def said_so_far(limiter: Limiter, *limits: Limits, tokens: float = 500.0) -> None:
    """Let replies with these limits come, a try before and one after them."""

    async def run() -> None:
        limiter.leave(await limiter.admit(0, tokens))
        for each in limits:
            limiter.observe(each)
        for order in (1, 2):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(limiter.admit(order, tokens), 0.01)

    asyncio.run(run())


def allowed(requests: float | None = None, tokens: float | None = None) -> Limits:
    return Limits(None, Allowance(requests, requests), Allowance(tokens, tokens))


@pytest.mark.parametrize(
    ("bounds", "limits", "words"),
    [
        (Bounds(), [allowed(tokens=10)], "next request waits 51 min"),
        (
            Bounds(tokens_per_minute=200_000),
            [allowed(tokens=10)],
            "20,000 times less than the 200,000 a minute before",
        ),
        (Bounds(), [allowed(600), allowed(60)], "10 times less than the 600 a minute before"),
        (Bounds(), [allowed(600), allowed(120)], None),
        (Bounds(requests_per_minute=60), [allowed(60, 30_000)], None),
        (Bounds(tokens_per_minute=200_000, heed_headers=False), [allowed(tokens=10)], None),
    ],
)
def test_a_header_that_all_but_stops_the_run_is_warned_of(
    bounds: Bounds, limits: list[Limits], words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    times = itertools.count(100.0, 0.001)
    said_so_far(Limiter(bounds, circuit(lambda: next(times)), lambda: next(times)), *limits)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if words is None:
        assert not warned
        return
    assert any(words in each for each in warned), warned
    assert all("heed_headers: false" in each for each in warned)
    assert len(warned) <= 2


def test_limits_in_headers_are_not_heeded_on_request() -> None:
    times = itertools.count(100.0, 0.001)
    limiter = Limiter(Bounds(heed_headers=False), circuit(lambda: next(times)), lambda: next(times))
    limiter.observe(allowed(1, 10))
    assert limiter.requests.per_minute is None
    assert limiter.tokens.per_minute is None
