"""Estimates of a run before anything is sent: requests, tokens and cost, expected and at worst.

The expectations are rough and stated: four characters a token, four of five tasks kept (AlpaCare: 52,002 of 64,350),
an answer of 260 tokens (a strong model's mean on medical tasks, about 200 words). What a run measures replaces them.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from itertools import islice

from datagen import prompts
from datagen.client import ChatRequest
from datagen.money.bounds import most_completion_tokens, most_prompt_tokens
from datagen.money.prices import Prices
from datagen.records import SeedTask
from datagen.settings import BATCH, Settings

CHARACTERS_PER_TOKEN = 4
KEPT_OF_ASKED = 0.8
ANSWER_TOKENS = 260
_SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Step:
    """The requests of one stage: how many, and tokens and US dollars (None without a price) of all of them."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Expected and worst case of a run.

    The worst case makes every task request that is allowed, as long as may be, answers as many tasks as are wanted,
    and bills every request once.
    """

    tasks: Step
    answers: Step
    worst_tasks: Step
    worst_answers: Step

    @property
    def expected_usd(self) -> float | None:
        """What the run is expected to cost, in US dollars; None where a price is missing."""
        return _sum(self.tasks, self.answers)

    @property
    def worst_usd(self) -> float | None:
        """What the run could cost, in US dollars; None where a price is missing."""
        return _sum(self.worst_tasks, self.worst_answers)


def estimate(
    settings: Settings, seeds: Sequence[SeedTask], requests: Iterable[ChatRequest], prices: Prices
) -> Estimate:
    """Estimate a whole run from its first task requests.

    Args:
        settings: What the run is to do.
        seeds: Its seed tasks; new tasks are expected to be as long.
        requests: The task requests; only the first few are looked at.
        prices: Prices of the models.
    """
    sample = list(islice(requests, _SAMPLES))
    asked = settings.tasks_per_request
    wanted = min(settings.request_limit(), math.ceil(settings.target / (asked * KEPT_OF_ASKED)))
    block = _mean([_tokens(prompts.render_task(seed, 4)) for seed in seeds])
    written = min(settings.task_sampling.max_tokens, round(block * asked))
    shown = _mean([_tokens_of(request) for request in sample])
    teacher, answerer = settings.teacher.model, settings.answerer.model
    batch = settings.mode == BATCH

    def step(model: str, requests: int, prompt: float, completion: float) -> Step:
        tokens = round(requests * prompt), round(requests * completion)
        return Step(model, requests, *tokens, prices.cost(model, *tokens, batch=batch))

    bodies = [request.body(teacher) for request in sample]
    longest = max(map(most_prompt_tokens, bodies))
    most_written = max(most_completion_tokens(body) or 0 for body in bodies)
    # A task is asked back in no more tokens than it was written in.
    answers = _answer_requests(settings, seeds)
    longest_answer = most_written + max(most_prompt_tokens(each.body(answerer)) for each in answers)
    answer_prompt = _mean([_tokens_of(each) for each in answers])
    most_answered = settings.answer_sampling.max_tokens
    return Estimate(
        tasks=step(teacher, wanted, shown, written),
        answers=step(answerer, settings.target, answer_prompt, min(most_answered, ANSWER_TOKENS)),
        worst_tasks=step(teacher, settings.request_limit(), longest, most_written),
        worst_answers=step(answerer, settings.target, longest_answer, most_answered),
    )


def expected_answer_usd(settings: Settings, seeds: Sequence[SeedTask], prices: Prices) -> float | None:
    """Return the expected cost of one answer, in US dollars, while none is in."""
    prompt = round(_mean([_tokens_of(request) for request in _answer_requests(settings, seeds)]))
    completion = min(settings.answer_sampling.max_tokens, ANSWER_TOKENS)
    return prices.cost(settings.answerer.model, prompt, completion, batch=settings.mode == BATCH)


def _answer_requests(settings: Settings, seeds: Sequence[SeedTask]) -> list[ChatRequest]:
    messages = map(prompts.answer_request_messages, seeds)
    return [ChatRequest("", each, settings.answer_sampling) for each in messages]


def _tokens_of(request: ChatRequest) -> int:
    return sum(_tokens(message["content"]) for message in request.messages)


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN) + 4


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers)


def _sum(one: Step, other: Step) -> float | None:
    return None if one.usd is None or other.usd is None else one.usd + other.usd
