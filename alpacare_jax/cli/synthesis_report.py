"""What ``alpacare synthesize`` prints at its end, for a status, and before it starts: counts, money, plan."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from datagen.money.dollars import usd

if TYPE_CHECKING:
    from datagen.client import ChatRequest, Service
    from datagen.money.prices import Prices
    from datagen.work.estimate import Estimate, Step
    from datagen.work.plan import SynthesisPlan

_SHOWN_CHARACTERS = 700


def print_funnel(funnel: Mapping[str, Any], work: Path) -> None:
    """Print the counts as a person reads them, from requests down to instructions."""

    def line(label: str, number: int, lost: Mapping[str, int]) -> None:
        typer.echo(f"{label:<28}{number:>8}")
        for reason, many in sorted(lost.items(), key=lambda pair: -pair[1]):
            typer.echo(f"    {reason:<24}{many:>8}")

    line("task requests", funnel["task_requests"], _renamed("failed", funnel["task_requests_failed"]))
    line("pieces found in the replies", funnel["tasks_found"], funnel["tasks_rejected"])
    line(f"tasks kept (target {funnel['target']})", funnel["tasks_kept"], {})
    failed = _renamed("failed", funnel["answer_requests_failed"])
    line("answers", funnel["answer_replies"], failed | funnel["answers_rejected"])
    line("instructions", funnel["instructions"], {})
    if funnel.get("answers_unjudged"):
        typer.echo(
            f"    {funnel['answers_unjudged']:,} answers are not judged yet: that is done once all are in"
        )
    _print_unjudged({**funnel.get("money", {}), **funnel})
    typer.echo(f"tokens: {funnel['prompt_tokens']} in, {funnel['completion_tokens']} out; results in {work}")
    for stage, counts in funnel.get("ledger", {}).items():
        typer.echo(
            f"ledger, {stage}: {counts['answered']} answered, {counts['failed']} failed, "
            f"{counts['sent']} without an outcome, {counts['tries']} tries"
        )
    _print_safety(funnel)
    print_batches(funnel.get("batches", []))
    if "money" in funnel:
        print_money(funnel["money"])


def _print_unjudged(counts: Mapping[str, Any]) -> None:
    """Print what is answered and paid, but in none of the counts above."""
    for key, words in (
        ("beyond_target", "asked beyond the target, not judged"),
        ("waiting", "answered, waiting for an earlier one"),
    ):
        if key in counts:
            each = counts[key]
            tokens = f"{each['prompt_tokens']} tokens in, {each['completion_tokens']} out"
            typer.echo(f"{words}: {each['requests']} task requests; {tokens}")
    if "taken_over_usd" in counts:
        amount = usd(counts["taken_over_usd"])
        typer.echo(f"{amount} of these replies was paid in the folder that this one was derived from")


def _print_safety(funnel: Mapping[str, Any]) -> None:
    """Print how many identifiers were found, and how many rows each evaluation file cost."""
    if "identifiers" in funnel:
        kinds = ", ".join(f"{kind} {many:,}" for kind, many in funnel["identifiers"].items()) or "none"
        typer.echo(f"personal identifiers: {kinds}; places in privacy.jsonl")
    for name, many in funnel.get("evaluation_overlaps", {}).items():
        typer.echo(f"overlap with {name}: {many:,} tasks and answers rejected; see contamination.json")


def print_batches(batches: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each batch: its id, state, counts and age."""
    from datagen.service.limits import in_words

    for batch in batches:
        state = batch["status"] or ("not sent yet" if batch["state"] == "planned" else "sent")
        counts = f"{batch['completed']} completed, {batch['failed']} failed of {batch['requests']}"
        words = f"batch {batch['number']}, {batch['stage']}: {batch['batch_id'] or '-'} {state}, {counts}"
        age = in_words(batch["age_s"])
        typer.echo(f"{words}, took {age} ({batch['words']})" if batch["ended_at"] else f"{words}, for {age}")


def print_money(money: Mapping[str, Any]) -> None:
    """Print what was spent and what it will probably be in all; nothing where no try was made."""
    if money["unpriced_tries"]:
        typer.echo(
            f"cost: not known for {money['unpriced_tries']} tries, whose model has no price (--prices FILE)"
        )
        if not money["spent_usd"]:
            return
    amounts = [money["spent_usd"], money["tasks_usd"], money["answers_usd"], money["unknown_usd"]]
    spent, tasks, answers, unknown = aligned_usd(amounts)
    parts = [f"tasks {tasks}", f"answers {answers}"]
    if money["unknown_usd"]:
        parts.append(f"{unknown} of it for tries whose bill is unknown, at their worst case")
    words = f"cost: {spent} spent ({', '.join(parts)})"
    if money["budget_usd"] is not None:
        words += f" of a budget of {usd(money['budget_usd'])}"
    if money["projected_usd"] is not None and money["projected_usd"] > money["spent_usd"] * (1 + 1e-9):
        words += f"; about {usd(money['projected_usd'])} when the target is reached"
    typer.echo(words)


def aligned_usd(amounts: Sequence[float | None]) -> list[str]:
    """Write amounts of one line with one number of digits, so that they can be seen to add up.

    Example:
        >>> aligned_usd([0.0421, 0.03, 0.0121, None])
        ['$0.0421', '$0.0300', '$0.0121', 'unknown']
    """
    digits = max((len(usd(each).partition(".")[2]) for each in amounts if each), default=2)
    return ["unknown" if each is None else f"${each:,.{digits}f}" for each in amounts]


def print_plan(plan: "SynthesisPlan", work: Path) -> None:
    """Print what a run would do: services and prices, sample prompts, requests, tokens and cost."""
    settings = plan.settings
    typer.echo(
        f"target      {settings.target:,} tasks, {settings.tasks_per_request} asked for in a request that shows "
        f"{settings.examples} of {plan.seeds} seed tasks ({settings.sampling} draws)"
    )
    for each in plan.odd_labels:
        typer.echo(f"seeds       {each}")
    typer.echo(
        f"{'seeds':<12}{settings.seeds.absolute() if settings.seeds else 'the ones that come with the package'}"
    )
    model = f", with {settings.privacy_model}" if settings.privacy_model else ""
    typer.echo(f"identifiers {settings.privacy}{model}")
    for file in plan.evaluation:
        others = f"; not compared: {', '.join(file.others)}" if file.others else ""
        words = f"{file.path}, {len(file.items):,} items; compared: {', '.join(file.fields)}{others}"
        typer.echo(f"{'evaluation':<12}{words}")
    if not plan.evaluation:
        typer.echo("evaluation  none (--evaluation FILE)")
    for role, service in (("teacher", settings.teacher), ("answerer", settings.answerer)):
        typer.echo(f"{role:<12}{_service_words(service)}")
        typer.echo(f"{'':<12}{_price_words(plan.prices, service.model, settings.mode)}")
    typer.echo(f"mode        {settings.mode}")
    budget = "none" if settings.budget_usd is None else usd(settings.budget_usd)
    typer.echo(f"budget      {budget}")
    typer.echo(f"work        {work} ({'in use' if work.exists() else 'new'})")
    if plan.differences:
        typer.echo("            made by another configuration; it needs --derive NEW_FOLDER:")
        for each in plan.differences:
            typer.echo(f"              {each}")
    _print_sample("first task request", plan.task_sample)
    _print_sample("answer request, for a seed task", plan.answer_sample)
    _print_estimate(plan.estimate)
    expected = plan.estimate.expected_usd
    if settings.budget_usd is not None and expected is not None:
        verb = "fits" if expected <= settings.budget_usd else "exceeds"
        typer.echo(f"Expected cost {usd(expected)} {verb} the budget of {usd(settings.budget_usd)}.")
    if settings.budget_usd is not None and expected and settings.budget_usd < expected:
        reached = round(settings.target * settings.budget_usd / expected)
        typer.echo(
            f"The budget of {usd(settings.budget_usd)} is expected to end the run at about {reached:,} tasks."
        )


def _service_words(service: "Service") -> str:
    import os

    words = f"{service.model} at {service.base_url}, {service.concurrency} in flight"
    for name, what in (("requests_per_minute", "requests"), ("tokens_per_minute", "tokens")):
        if getattr(service, name, None) is not None:
            words += f", {getattr(service, name):,} {what} a minute"
    if not service.is_loopback():
        is_set = "set" if os.environ.get(service.api_key_env, "").strip() else "not set"
        words += f", key from {service.api_key_env} ({is_set})" if service.api_key_env else ", no key named"
    return words


def _price_words(prices: "Prices", model: str, mode: str) -> str:
    price = prices.get(model)
    if price is None:
        return "no price known, so no cost either (--prices FILE)"
    source = ", ".join(filter(None, (price.source, price.as_of)))
    return (
        f"{usd(price.input)} in, {usd(price.output)} out per million tokens"
        f" ({'list price: ' + source if source else 'your price'})"
        + (
            f", less {price.batch_discount:.0%} in batches"
            if mode == "batch" and price.batch_discount
            else ""
        )
    )


def _print_sample(title: str, request: "ChatRequest") -> None:
    typer.echo(f"\n--- {title}")
    for message in request.messages:
        text = message["content"]
        if len(text) > _SHOWN_CHARACTERS:
            text = f"{text[:_SHOWN_CHARACTERS]} [... {len(text) - _SHOWN_CHARACTERS} more characters]"
        typer.echo(f"[{message['role']}] {text}")


def _print_estimate(estimate: "Estimate") -> None:
    typer.echo(f"\n{'--- estimate':<20}{'requests':>10}{'tokens in':>14}{'tokens out':>14}{'cost':>14}")

    def row(label: str, step: "Step") -> None:
        cost = "unknown" if step.usd is None else usd(step.usd)
        typer.echo(
            f"{label:<20}{step.requests:>10,}{step.prompt_tokens:>14,}{step.completion_tokens:>14,}{cost:>14}"
        )

    def total(label: str, amount: float | None) -> None:
        typer.echo(f"{label:<58}{'unknown' if amount is None else usd(amount):>14}")

    row("tasks, expected", estimate.tasks)
    row("answers, expected", estimate.answers)
    total("expected", estimate.expected_usd)
    row("tasks, at worst", estimate.worst_tasks)
    row("answers, at worst", estimate.worst_answers)
    total("at worst", estimate.worst_usd)
    typer.echo(
        "Expected: four characters a token, four of five tasks kept, answers of 260 tokens. At worst: every request\n"
        "that is allowed, as long as it may be, each billed once. --budget-usd caps what is really spent."
    )


def _renamed(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{prefix}: {reason}": many for reason, many in counts.items()}
