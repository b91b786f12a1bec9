"""Pairwise judging: each response is compared with each reference answer, in both orders, by one judge model.

The method is AlpaCare's (arXiv 2310.14558, free-form evaluation): temperature 0, and one of three answers,
"Output (a)", "Output (b)" or "Tie". The wording is this project's own.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from alpacare_jax.evaluate.answers import Answers, check_join, count_words
from alpacare_jax.evaluate.verdicts import MODEL_FIRST, ORDERS, outcome, parse_choice
from datagen.client import ChatRequest, Reply, Sampling, Service, prompt_hash
from datagen.finish import read_finish
from datagen.ledger import Entry, Ledger
from datagen.money.bounds import most_prompt_tokens
from datagen.money.budget import Budget
from datagen.records import Response, Verdict, normal_input
from datagen.replies.thinking import without_thoughts
from datagen.service.chat import LENGTH_FIELDS
from datagen.settings import BATCH, Terms
from datagen.work.asking import ask_all, take_up_batches

STAGE = "judge"
EXPECTED_VERDICT_TOKENS = 100

_SYSTEM = (
    "You compare two answers to the same request, fairly, whatever their order and whoever wrote them. "
    "In medicine you weigh correctness and safety first, then completeness, relevance and clarity."
)
_QUESTION = """\
Which of two outputs follows the instruction better?

# Instruction
{instruction}
{input}
# Output (a)
{first}

# Output (b)
{second}

# Your verdict
Judge by correctness, completeness, usefulness to the person who asks, and safety. Length alone is no merit,
and the order of the outputs means nothing. If they are equally good, say so.
Answer with exactly one of these and nothing else: Output (a), Output (b), Tie"""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One question to the judge: a response and a reference answer to it, in one order."""

    response: Response
    reference: str
    reference_text: str
    order: str

    @property
    def id(self) -> str:
        """The request's id, unique in the judge's stage."""
        return f"{self.reference}/{self.order}/{self.response.id}"


@dataclasses.dataclass(frozen=True)
class JudgePlan:
    """All comparisons, and for each reference the number of responses and answers without a counterpart."""

    model: str
    comparisons: list[Comparison]
    without_reference: dict[str, int]
    without_response: dict[str, int]


def judge_messages(instruction: str, input: str, first: str, second: str) -> tuple[dict[str, str], ...]:
    """Write the prompt for the judge. A text that looks like a placeholder of the prompt stays as it is.

    Args:
        instruction: The task both outputs answer.
        input: Its input; "" or ``<noinput>`` without an input.
        first: The text shown as Output (a).
        second: The text shown as Output (b).

    Returns:
        Chat messages: one from the system, one from the user.

    Examples:
        >>> question = judge_messages("Name a loop diuretic.", "", "Furosemide {second}", "Aspirin")[1]
        >>> print(question["content"][:130])
        Which of two outputs follows the instruction better?
        <BLANKLINE>
        # Instruction
        Name a loop diuretic.
        <BLANKLINE>
        # Output (a)
        Furosemide {second}
        <BLANKLINE>
        # Out
    """
    given = normal_input(input)
    question = _QUESTION.format(
        instruction=instruction.strip(),
        input=f"\n# Input\n{given}\n" if given else "",
        first=first.strip() or "(no answer)",
        second=second.strip() or "(no answer)",
    )
    return ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": question})


def plan_comparisons(
    responses: Sequence[Response],
    own: Answers,
    references: Sequence[Answers],
    *,
    allow_missing: bool = False,
) -> JudgePlan:
    """Join responses and references by id, and list every comparison in both orders.

    Args:
        responses: The model's responses, ids distinct.
        own: The same responses as a set, with the model's name.
        references: The sets to compare with.
        allow_missing: Leave out responses without a reference answer instead of refusing them.

    Raises:
        DataError: The sets do not belong to the same questions.
    """
    comparisons: list[Comparison] = []
    without_reference, without_response = {}, {}
    for reference in references:
        missing, unused = check_join(own, reference, allow_missing=allow_missing)
        without_reference[reference.name], without_response[reference.name] = missing, unused
        comparisons += [
            Comparison(response, reference.name, reference.texts[response.id], order)
            for response in responses
            if response.id in reference.texts
            for order in ORDERS
        ]
    return JudgePlan(own.name, comparisons, without_reference, without_response)


@dataclasses.dataclass(frozen=True)
class JudgeSettings(Terms):
    """The judge, its sampling parameters, and budget, prices and request mode (live or batch).

    Attributes:
        judge: The service and model.
        sampling: Sampling parameters; a field that is None is not sent, for models that refuse it.
    """

    judge: Service
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=512)

    def models(self) -> tuple[str, ...]:
        """Return the judge's model."""
        return (self.judge.model,)


def ask_judge(
    plan: JudgePlan,
    settings: JudgeSettings,
    ledger: Ledger,
    budget: Budget | None = None,
    *,
    wait: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """Send every comparison of the plan to the judge; those with a reply in the ledger are not sent again.

    Recorded replies stay valid if only ``max_tokens`` changes; see ``ask_again``.

    Args:
        plan: The comparisons.
        settings: Settings of the judge.
        ledger: Records every reply.
        budget: Enforces the budget; made from the settings when None.
        wait: In batch mode, wait for replies; otherwise return once everything that can be sent has been sent.
        progress: Called with (settled, total).

    Returns:
        One verdict a comparison, in the plan's order. A failed request is an "invalid" verdict without text,
        with its ``error``.

    Raises:
        BatchesUnderWay: Batches are under way, and ``wait`` is False.
        ServiceError: The judge refuses all requests or cannot be reached, or the budget is reached.
        DataError: The ledger has another judge, prompt or answer under the same id.
    """
    budget = budget or Budget(ledger, settings.all_prices(), settings.budget_usd)
    take_up_batches({STAGE: settings.judge}, ledger, settings, budget)
    requests = [_request(item, settings, ledger) for item in plan.comparisons]
    replies = ask_all(
        requests, settings.judge, ledger, settings, budget, stage=STAGE, wait=wait, progress=progress
    )
    return [
        _verdict(plan.model, settings.judge.model, comparison, reply)
        for comparison, reply in zip(plan.comparisons, replies, strict=True)
    ]


def ask_again(plan: JudgePlan, settings: JudgeSettings, ledger: Ledger) -> int:
    """Reopen failed requests, and those whose reply has no verdict because it is empty or incomplete.

    They are sent with the current settings, so a larger ``max_tokens`` applies to them only.

    Returns:
        How many comparisons will be sent again.
    """
    again = 0
    for item in plan.comparisons:
        entry = ledger.get(STAGE, item.id)
        if entry is None or not (
            entry.state == "failed" or (entry.state == "answered" and _lacks_verdict(entry))
        ):
            continue
        body = ChatRequest(item.id, comparison_messages(item), settings.sampling).body(settings.judge.model)
        if not _same_question(entry, body):
            continue  # ask_judge() reports the difference
        ledger.ask_anew(STAGE, item.id, prompt_hash=prompt_hash(body), request=body)
        again += 1
    return again


def _lacks_verdict(entry: Entry) -> bool:
    """Tell whether a reply has no verdict because it is empty or incomplete."""
    text = entry.reply or ""
    unfinished = not without_thoughts(text).strip() or read_finish(entry.finish_reason) != "whole"
    return unfinished and parse_choice(text) == "invalid"


def _same_question(entry: Entry, body: dict[str, Any]) -> bool:
    """Tell whether a row of the ledger is the same request, apart from the maximum length of the reply."""
    asked = json.loads(entry.request)
    return all(asked.get(key) == body.get(key) for key in {*asked, *body} if key not in LENGTH_FIELDS)


def _request(item: Comparison, settings: JudgeSettings, ledger: Ledger) -> ChatRequest:
    """Return the request for a comparison, with the recorded ``max_tokens`` if it has a reply or is in a batch."""
    request = ChatRequest(item.id, comparison_messages(item), settings.sampling)
    entry = ledger.get(STAGE, item.id)
    body = request.body(settings.judge.model)
    if entry is None or entry.prompt_hash == prompt_hash(body) or not _same_question(entry, body):
        return request
    if entry.state == "sent" and entry.batch_id is None:
        ledger.ask_anew(STAGE, item.id, prompt_hash=prompt_hash(body), request=body)
        return request
    field, length = next(
        (key, value) for key, value in json.loads(entry.request).items() if key in LENGTH_FIELDS
    )
    asked_with = dataclasses.replace(settings.sampling, max_tokens=length, max_tokens_field=field)
    return dataclasses.replace(request, sampling=asked_with)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Remaining requests and their cost in US dollars, expected and at most; None without a price."""

    asked: int
    settled: int
    prompt_tokens: int
    expected_usd: float | None
    worst_usd: float | None


def estimate(plan: JudgePlan, settings: JudgeSettings, ledger: Ledger | None) -> Estimate:
    """Estimate requests and cost, with four characters a token and 100 tokens a verdict, or fewer if limited.

    Args:
        plan: The comparisons.
        settings: Settings of the judge.
        ledger: Recorded replies; None without a work folder.
    """
    open_ = [
        item
        for item in plan.comparisons
        if ledger is None or (entry := ledger.get(STAGE, item.id)) is None or entry.state == "sent"
    ]
    model, batch, prices = settings.judge.model, settings.mode == BATCH, settings.all_prices()
    bodies = [
        ChatRequest(item.id, comparison_messages(item), settings.sampling).body(model) for item in open_
    ]
    tokens = sum(-(-len(message["content"]) // 4) + 4 for body in bodies for message in body["messages"])
    written = len(open_) * min(settings.sampling.max_tokens, EXPECTED_VERDICT_TOKENS)
    most = sum(map(most_prompt_tokens, bodies)), len(open_) * settings.sampling.max_tokens
    return Estimate(
        len(open_),
        len(plan.comparisons) - len(open_),
        tokens,
        prices.cost(model, tokens, written, batch=batch),
        prices.cost(model, *most, batch=batch),
    )


def comparison_messages(comparison: Comparison) -> tuple[dict[str, str], ...]:
    """Return the prompt of a comparison."""
    texts = (comparison.response.response, comparison.reference_text)
    first, second = texts if comparison.order == MODEL_FIRST else texts[::-1]
    return judge_messages(comparison.response.instruction, comparison.response.input, first, second)


def _verdict(model: str, judge_model: str, comparison: Comparison, reply: Reply) -> Verdict:
    extra = {
        "model_words": count_words(comparison.response.response),
        "reference_words": count_words(comparison.reference_text),
        "finish_reason": reply.finish_reason,
    }
    return Verdict(
        id=comparison.response.id,
        reference=comparison.reference,
        order=comparison.order,
        raw=reply.text,
        verdict=outcome(parse_choice(reply.text), comparison.order),
        model=model,
        judge=judge_model,
        extra=extra | ({"error": reply.error} if reply.error else {}),
    )
