import asyncio
import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Ledger
from datagen.money.bounds import most_prompt_tokens
from datagen.money.budget import Budget, BudgetReached
from datagen.money.dollars import usd
from datagen.money.prices import Price, Prices

# A dollar per million tokens, in and out: costs are token counts in millionths of a dollar.
PRICES = Prices({"m": Price(1.0, 1.0), "free": Price(0.0, 0.0), "half": Price(2.0, 2.0, batch_discount=0.5)})
BODY = {"model": "m", "messages": [{"role": "user", "content": "Why rest?"}], "max_tokens": 100}
WORST = (most_prompt_tokens(BODY) + 100) / 1e6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def outcomes(ledger: Ledger) -> list[str]:
    return [each.outcome for each in ledger.tries()]


def test_what_the_service_counts_replaces_the_worst_case(path: Path) -> None:
    async def spend(budget: Budget) -> None:
        one = await budget.reserve("m", BODY, stage="tasks", id="0")
        assert budget.held_usd == one.reserved_usd == WORST
        assert budget.spent_usd == 0
        assert budget.settle(one, 20, 10) == 30 / 1e6
        two = await budget.reserve("m", BODY)
        budget.release(two)
        three = await budget.reserve("m", BODY)
        assert budget.forfeit(three) == WORST

    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 0.01)
        asyncio.run(spend(budget))
        assert budget.held_usd == 0
        assert budget.spent_usd == pytest.approx(30 / 1e6 + WORST)
        assert budget.unknown_usd == WORST
        assert outcomes(ledger) == ["settled", "free", "unknown"]
        first = next(ledger.tries())
        assert (first.stage, first.id, first.prompt_tokens, first.completion_tokens) == ("tasks", "0", 20, 10)
        assert first.finished_at is not None
        assert Budget(ledger, PRICES, 0.01).spent_usd == budget.spent_usd


def test_a_try_waits_for_those_in_flight_and_only_then_gives_up(path: Path) -> None:
    async def spend(budget: Budget) -> None:
        one, two = await budget.reserve("m", BODY), await budget.reserve("m", BODY)
        waiting = asyncio.ensure_future(budget.reserve("m", BODY))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        budget.settle(one, 5, 5)
        three = await asyncio.wait_for(waiting, 1)
        late = asyncio.ensure_future(budget.reserve("m", BODY))
        budget.forfeit(three)
        await asyncio.sleep(0.01)
        assert not late.done(), "the second try may still turn out cheap"
        budget.forfeit(two)
        with pytest.raises(BudgetReached, match="budget is reached") as caught:
            await asyncio.wait_for(late, 1)
        assert isinstance(caught.value, ServiceError)
        for part in ("whose bill is unknown", "the next request could cost", "raise `budget_usd`"):
            assert part in str(caught.value)

    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 2.5 * WORST + 20 / 1e6)
        asyncio.run(bill_one_by_one(budget, [0] * 20))
        asyncio.run(spend(budget))
        assert outcomes(ledger)[20:] == ["settled", "unknown", "unknown"]


async def bill_one_by_one(budget: Budget, outputs: list[int]) -> None:
    for output in outputs:
        budget.settle(await asyncio.wait_for(budget.reserve("m", BODY), 1), 1, output)


@pytest.mark.parametrize("times", [1.1, 3, 30])
@pytest.mark.parametrize("honest", [0, 5, 19])
@pytest.mark.parametrize("cap_usd", [0.02, 0.1, 0.3])
def test_bills_beyond_the_bound_do_not_pass_the_cap_however_many_are_in_flight(
    times: float, honest: int, cap_usd: float, path: Path
) -> None:
    left = itertools.count()

    async def ask(budget: Budget) -> None:
        for number in left:
            one = await budget.reserve("m", BODY)
            await asyncio.sleep(0)
            budget.settle(one, 20, 20 if number < honest else round(times * WORST * 1e6))
            assert budget.spent_usd + budget.held_usd <= cap_usd

    async def ask_many(budget: Budget) -> list[BaseException | None]:
        return await asyncio.gather(*(ask(budget) for _ in range(16)), return_exceptions=True)

    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, cap_usd)
        assert all(isinstance(end, BudgetReached) for end in asyncio.run(ask_many(budget)))
        # What is left would not have sufficed for another two like the dearest.
        assert budget.spent_usd > cap_usd - 2.1 * times * WORST


def test_a_service_that_keeps_to_the_bound_is_trusted_after_twenty_bills(path: Path) -> None:
    def fits(budget: Budget) -> bool:
        one, two = budget.try_reserve("m", BODY), budget.try_reserve("m", BODY)
        for each in (one, two):
            if each is not None:
                budget.release(each)
        assert one is not None, "a lone try needs no more than its worst case"
        return two is not None

    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 10 * WORST)
        asyncio.run(bill_one_by_one(budget, [1] * 19))
        assert not fits(budget)
        asyncio.run(bill_one_by_one(budget, [1]))
        assert fits(budget)
        assert fits(Budget(ledger, PRICES, 10 * WORST)), "also by the next process"
    with Ledger(path.with_name("new.sqlite")) as ledger:
        assert fits(Budget(ledger, PRICES, 70 * WORST)), "there is enough for whatever two tries may cost"


def test_a_reply_without_a_count_of_tokens_stays_spent_at_its_worst(path: Path) -> None:
    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 1.0)
        one = budget.try_reserve("m", BODY)
        assert one is not None
        assert budget.settle(one, 0, 0) is None
        assert budget.unknown_usd == WORST


def test_a_service_that_counts_more_than_the_bound_raises_the_next_worst_case(path: Path) -> None:
    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 1.0)
        one = budget.try_reserve("m", BODY)
        assert one is not None
        budget.settle(one, 3 * round(WORST * 1e6), 0)
        two = budget.try_reserve("m", BODY)
        assert two is not None
        assert two.reserved_usd == pytest.approx(3 * WORST)
        again = Budget(ledger, PRICES, 1.0).try_reserve("m", BODY)
        assert again is not None
        assert again.reserved_usd == pytest.approx(3 * WORST)


def test_without_a_cap_an_unknown_model_costs_what_nobody_knows(path: Path) -> None:
    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES)
        one = budget.try_reserve("new", BODY)
        assert one is not None
        assert one.reserved_usd is None
        assert budget.settle(one, 20, 10) is None
        assert ledger.spending()[""].unpriced == 1
        with pytest.raises(ConfigError, match="a budget needs the price") as caught:
            Budget(ledger, PRICES, 1.0)
        assert "no price for new" in str(caught.value)
        assert "name the file in `prices`" in str(caught.value)
        # A price that is named later also holds for what was spent before.
        assert Budget(ledger, Prices({"new": Price(2.0, 2.0)}), 1.0).spent_usd == 60 / 1e6


def test_a_free_model_needs_no_money_and_a_bound_is_needed_for_others(path: Path) -> None:
    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 0.0)
        assert budget.try_reserve("free", BODY) is not None
        assert budget.try_reserve("m", BODY) is None
        with pytest.raises(ConfigError, match="bounds the cost of a reply"):
            budget.try_reserve("m", {"messages": []})


def test_batches_cost_less_and_outlive_their_process(path: Path) -> None:
    with Ledger(path) as ledger:
        budget = Budget(ledger, PRICES, 1.0)
        one = budget.try_reserve("half", BODY, stage="tasks", id="7", batch=True)
        two = budget.try_reserve("half", BODY, stage="tasks", id="8")
        assert one is not None
        assert two is not None
        assert one.reserved_usd == pytest.approx(WORST)
        assert two.reserved_usd == pytest.approx(2 * WORST)
        again = Budget(ledger, PRICES, 1.0)
        assert outcomes(ledger) == ["open", "unknown"]
        assert again.open_batch("tasks") == {"7": one}
        assert again.held_usd == one.reserved_usd
        assert again.settle(one, 10, 10) == 20 / 1e6


KILLED = """
import asyncio, os, random, signal, sys
from datagen.ledger import Ledger
from datagen.money.prices import Price, Prices
from datagen.money.budget import Budget
body = {"messages": [{"role": "user", "content": "Why rest?"}], "max_tokens": 100}
async def ask(budget, draw):
    one = await budget.reserve("m", body)
    await asyncio.sleep(0.001 * draw.random())
    draw.choice([lambda: budget.settle(one, 9, draw.randrange(100)), lambda: budget.release(one),
                 lambda: budget.forfeit(one)])()
async def run():
    draw = random.Random(sys.argv[2])
    budget = Budget(Ledger(sys.argv[1]), Prices({"m": Price(1.0, 1.0)}), 0.02)
    for number in range(100):
        if number == int(sys.argv[2]) * 3 + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.gather(*(ask(budget, draw) for _ in range(5)))
asyncio.run(run())
"""


def test_the_cap_holds_over_kills(path: Path) -> None:
    spent: list[float] = []
    for number in range(4):
        run = subprocess.run([sys.executable, "-c", KILLED, str(path), str(number)], check=False)
        assert run.returncode == -signal.SIGKILL or number > 2
        with Ledger(path, read_only=True) as ledger:
            sums = ledger.spending()[""]
            spent.append(sums.spent_usd + sums.unknown_usd + sums.held_usd)
    assert spent == sorted(spent)
    assert 0 < spent[-1] <= 0.02
    with Ledger(path) as ledger:
        assert Budget(ledger, PRICES, 0.02).spent_usd == pytest.approx(spent[-1])
        assert "open" not in outcomes(ledger)


@given(st.lists(st.text(), max_size=4), st.integers(1, 50))
def test_no_text_has_more_tokens_than_its_bound(texts: list[str], most: int) -> None:
    body = {"messages": [{"role": "user", "content": text} for text in texts], "max_tokens": most}
    assert most_prompt_tokens(body) >= sum(len(text.encode("utf-8", "replace")) for text in texts)


def test_listed_prices_are_whole_and_dated() -> None:
    listed = Prices.listed()
    price = listed.get("gpt-4")
    assert price == Price(30.0, 60.0, 0.5, "OpenAI", price.as_of if price else "")
    assert listed.cost("gpt-4", 1000, 1000) == pytest.approx(0.09)
    assert listed.cost("gpt-4", 1000, 1000, batch=True) == pytest.approx(0.045)
    assert listed.get("gpt-4-some-snapshot") is None
    assert all(each.source and each.as_of and each.output >= each.input > 0 for each in listed.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m: {input: -1, output: 2}", "m.input must be at least 0"),
        ("m: {input: 1, output: .nan}", "a number is not finite"),
        ("m: {input: true, output: 1}", "m.input must be a number"),
        ("m: {input: 1}", "m.output is missing"),
        (
            "m: {input: 1, output: 1, discount: 1}",
            "m.discount: unknown key; did you mean m.batch_discount?",
        ),
        ("m: {input: 1, output: 1, batch_discount: 2}", "m.batch_discount must be at least 0 and at most 1"),
        ("- 3", "must hold keys and values"),
        ("m: [", "not valid YAML"),
        ("models: 3", "must be a mapping of models"),
    ],
)
def test_impossible_prices_are_refused_with_the_file_s_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Prices.from_file(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_of_prices_lies_over_the_list(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models:\n  gpt-4: {input: 1, output: 2}\n  mine: {input: 0, output: 0}\n")
    prices = Prices.from_file(path).over(Prices.listed())
    assert prices.cost("gpt-4", 1_000_000, 1_000_000) == 3
    assert prices.cost("mine", 5, 5) == 0
    assert prices.cost("gpt-4o", 1_000_000, 0) == 2.5
    with pytest.raises(ConfigError, match="does not exist"):
        Prices.from_file(tmp_path / "missing.yaml")


def test_amounts_are_written_with_the_digits_that_matter() -> None:
    assert [usd(x) for x in (1234.5, 1.0, 0.999, 0.05, 3e-7)] == [
        "$1,234.50",
        "$1.00",
        "$0.999",
        "$0.05",
        "$0.0000003",
    ]
