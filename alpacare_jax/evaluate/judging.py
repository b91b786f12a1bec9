"""From files of answers to a file of verdicts, for ``alpacare judge``."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from alpacare_jax.evaluate import answers
from alpacare_jax.evaluate.judge import (
    STAGE,
    JudgePlan,
    JudgeSettings,
    ask_again,
    ask_judge,
    comparison_messages,
    estimate,
    plan_comparisons,
)
from datagen.batch.client import cancel_batches, describe
from datagen.configuration import build
from datagen.decoding import read_yaml_mapping
from datagen.files import refuse_existing
from datagen.finish import read_finish
from datagen.ledger import Ledger
from datagen.money.budget import Budget
from datagen.money.dollars import usd
from datagen.progress import ProgressDisplay
from datagen.records import Response, Verdict, write_records
from datagen.settings import beside

LEDGER = "ledger.sqlite"
_BUDGET = "budget_usd"  # key of the budget in the ledger


def judge(
    responses: answers.Source,
    references: answers.Source | Sequence[answers.Source],
    settings: JudgeSettings,
    out: str | Path | None = None,
    *,
    work: str | Path,
    name: str = "",
    reference_fields: Sequence[str] = (),
    allow_missing: bool = False,
    limit: int | None = None,
    retry_failed: bool = False,
    lift_budget: bool = False,
    wait: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Verdict]:
    """Compare responses with reference answers by a judge model, each pair in both orders.

    Every reply is recorded in the ledger of the work folder, so an interrupted call can be resumed.

    Args:
        responses: A response file, or the responses themselves.
        references: Files of reference answers, or lists of them; one or several.
        settings: Settings of the judge.
        out: Verdict file to write.
        work: Folder of the ledger.
        name: Name of the judged model; from the responses, or the file's name, when empty.
        reference_fields: Answer fields, where one source of references holds several answers a row.
        allow_missing: Skip responses without a reference answer instead of raising an error.
        limit: Judge only the first responses.
        retry_failed: Send requests again whose reply failed, was empty, or was cut off before its verdict.
        lift_budget: Remove the budget that an earlier call set for this work folder.
        wait: In batch mode, wait for replies; otherwise return once everything that can be sent has been sent.
        overwrite: Replace an existing verdict file.
        say: Called with lines about requests and cost; progress is shown too. None prints nothing.

    Returns:
        One verdict a comparison; a failed request is "invalid", with its ``error``.

    Raises:
        BatchesUnderWay: Batches are under way, and ``wait`` is False.
        DataError: Answers are invalid or do not match, the file exists, or the ledger is of another judge.
        ServiceError: The judge refuses all requests or cannot be reached, or the budget is reached.

    Examples:
        >>> settings = JudgeSettings(Service("http://127.0.0.1:8000/v1", "judge-model"))
        >>> verdicts = judge("responses.jsonl", "gpt-4.jsonl", settings, work="judging")
        >>> score(verdicts).scores[0].win_rate
    """
    if out is not None:
        refuse_existing(Path(out), overwrite)
    plan, heading = plan_files(responses, references, name, reference_fields, allow_missing, limit)
    tell = say or (lambda _: None)
    tell(heading)
    with Ledger(Path(work) / LEDGER) as ledger:
        settings = dataclasses.replace(settings, budget_usd=_budget(settings, ledger, lift_budget))
        budget = Budget(ledger, settings.all_prices(), settings.budget_usd)
        if retry_failed:
            tell(f"{ask_again(plan, settings, ledger)} failed, empty or cut replies are requested again")
        with ProgressDisplay(enabled=say is not None) as display:
            progress = partial(display.update, "judging")
            verdicts = ask_judge(plan, settings, ledger, budget, wait=wait, progress=progress)
        budget.close()
        if budget.spent_usd:
            tell(f"spent so far in {work}: {usd(budget.spent_usd)}")
    if out is not None:
        write_records(Path(out), verdicts)
    return verdicts


def read_settings(config: str | Path | None = None, given: Mapping[str, Any] | None = None) -> JudgeSettings:
    """Read the settings of a judge from a YAML file; those in ``given`` override it.

    Raises:
        ConfigError: Unknown keys, wrong types or impossible values; all bad keys are named at once.
    """
    sources = [] if config is None else [(str(config), beside(Path(config), read_yaml_mapping(Path(config))))]
    return build(JudgeSettings, *sources, ("the command line", given or {}))


def plan_files(
    responses: answers.Source,
    references: answers.Source | Sequence[answers.Source],
    name: str = "",
    reference_fields: Sequence[str] = (),
    allow_missing: bool = False,
    limit: int | None = None,
) -> tuple[JudgePlan, str]:
    """Read and join answers; return the comparisons, and a summary with counts of unmatched answers."""
    asked = answers.read_responses(responses)[:limit]
    own = answers.as_answers(asked, responses, name)
    alone = isinstance(references, str | Path) or isinstance(references[0], Mapping | Response)
    sources: Any = [references] if alone else references
    sets = answers.read_references(sources, reference_fields, asked)
    plan = plan_comparisons(asked, own, sets, allow_missing=allow_missing)
    lines = [
        f"{len(asked)} responses of {plan.model} against {', '.join(plan.without_reference)}, both orders: "
        f"{len(plan.comparisons)} comparisons"
    ]
    for reference, count in plan.without_reference.items():
        if count:
            lines.append(f"! {count} responses have no answer of {reference} and are left out")
    for reference, count in plan.without_response.items():
        if count:
            lines.append(f"{count} answers of {reference} have no response and are not used")
    return plan, "\n".join(lines)


def cancel(settings: JudgeSettings, work: str | Path) -> str:
    """Cancel the batches of a work folder that are under way; return a description of them."""
    with Ledger(Path(work) / LEDGER) as ledger:
        budget = Budget(ledger, settings.all_prices(), _budget(settings, ledger, False))
        ended = cancel_batches({STAGE: settings.judge}, ledger, budget, settings.batch)
    return describe(ended) if ended else "No batch is under way; nothing was cancelled."


def describe_cost(plan: JudgePlan, settings: JudgeSettings, work: str | Path) -> str:
    """Describe the requests and cost of a run, with the first prompt."""
    file = Path(work) / LEDGER
    with Ledger(file, read_only=True) if file.exists() else nullcontext() as ledger:
        found = estimate(plan, settings, ledger)
    unknown = f"unknown: no price for {settings.judge.model} (--prices FILE)"
    lines = [f"judge {settings.judge.model} at {settings.judge.base_url}, {settings.mode}"]
    if plan.comparisons:
        lines += ["", *(message["content"] for message in comparison_messages(plan.comparisons[0])), ""]
    lines += [
        f"{found.asked:,} requests to send, {found.settled:,} answered already",
        f"about {found.prompt_tokens:,} tokens in",
        f"expected cost {unknown if found.expected_usd is None else usd(found.expected_usd)}",
        f"at most {unknown if found.worst_usd is None else usd(found.worst_usd)} if every request is sent once",
    ]
    return "\n".join(lines)


def describe_verdicts(verdicts: Sequence[Verdict]) -> tuple[str, list[str]]:
    """Summarise verdicts: the outcomes, and lines that explain invalid ones."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    outcomes = ", ".join(f"{counts[name]} {name}" for name in ("win", "tie", "loss", "invalid"))
    invalid = [verdict for verdict in verdicts if verdict.verdict == "invalid"]
    failed = [verdict.extra["error"] for verdict in invalid if "error" in verdict.extra]
    cut = sum(read_finish(verdict.extra.get("finish_reason")) == "cut" for verdict in invalid)
    empty = sum(not verdict.raw.strip() for verdict in invalid) - len(failed)
    lines = []
    if verdicts and len(invalid) == len(verdicts):
        lines.append("! no reply states a verdict: nothing was judged")
    if failed:
        lines.append(f"! {len(failed)} requests failed and count as invalid; --retry-failed asks them again")
        lines.append(f"  {Counter(failed).most_common(1)[0][0]}")
    if len(invalid) > len(failed):
        lines.append(f"! {len(invalid) - len(failed)} replies have no clear verdict and count as invalid")
    if empty:
        lines.append(f"! {empty} of them are empty; --retry-failed asks them again")
    if cut:
        lines.append(
            f"! {cut} of them were cut off; --retry-failed with a larger --max-tokens asks them again"
        )
    return outcomes, lines


def _budget(settings: JudgeSettings, ledger: Ledger, lift: bool) -> float | None:
    """Return the budget: the given one, or else the one recorded in the ledger, unless it is lifted."""
    if lift or settings.budget_usd is not None:
        ledger.note(_BUDGET, "" if lift else str(settings.budget_usd))
    noted = ledger.noted(_BUDGET)
    return float(noted) if noted else None
