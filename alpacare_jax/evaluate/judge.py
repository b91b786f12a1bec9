"""Pairwise judging: each response beside each reference answer, in both orders, by one judge model.

The method is AlpaCare's (arXiv 2310.14558, free-form evaluation): temperature 0, and one of three answers,
"Output (a)", "Output (b)" or "Tie". The wording is this project's own.
"""

import dataclasses
from collections.abc import Callable, Sequence

from alpacare_jax.evaluate.answers import Answers, check_join, count_words
from alpacare_jax.evaluate.verdicts import MODEL_FIRST, ORDERS, outcome, parse_choice
from datagen.client import ChatRequest, Reply, Sampling, Service, complete
from datagen.ledger import Ledger
from datagen.records import Response, Verdict, normal_input

STAGE = "judge"

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
class Plan:
    """All comparisons to ask, and what has no partner, counted for each reference."""

    model: str
    comparisons: list[Comparison]
    without_reference: dict[str, int]
    without_response: dict[str, int]


def judge_messages(instruction: str, input: str, first: str, second: str) -> tuple[dict[str, str], ...]:
    """Write the question to the judge. All texts go in at once, so one that looks like a placeholder stays.

    Args:
        instruction: The task both outputs answer.
        input: Its input; "" or ``<noinput>`` where there is none.
        first: The text shown as Output (a).
        second: The text shown as Output (b).

    Returns:
        Chat messages: one from the system, one from the user.

    Example:
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
) -> Plan:
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
    return Plan(own.name, comparisons, without_reference, without_response)


def judge(
    plan: Plan,
    service: Service,
    ledger: Ledger,
    *,
    max_tokens: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """Ask the judge every comparison of the plan; what the ledger holds is not asked again.

    Args:
        plan: What to ask.
        service: The judge.
        ledger: Remembers every reply.
        max_tokens: Longest reply, in tokens.
        progress: Called with (settled, total).

    Returns:
        One verdict a comparison, in the plan's order. A request that failed for good is a verdict "invalid"
        without text, its ``error`` beside it.

    Raises:
        ServiceError: The judge as a whole refuses or is not there.
        DataError: The ledger was made with another judge, prompt or answer under the same id.
    """
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    requests = [ChatRequest(item.id, _messages(item), sampling) for item in plan.comparisons]
    replies = complete(requests, service, ledger, stage=STAGE, progress=progress)
    return [
        _verdict(plan.model, service.model, comparison, reply)
        for comparison, reply in zip(plan.comparisons, replies, strict=True)
    ]


def _messages(comparison: Comparison) -> tuple[dict[str, str], ...]:
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
