"""What ``alpacare synthesize`` prints: a plan, the counts of a run or status, and batches."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import jinja2

    from datagen.synthesize import Funnel, Status
    from datagen.work.derive import Derived
    from datagen.work.plan import SynthesisPlan


def print_funnel(funnel: "Funnel", work: Path) -> None:
    """Print the counts as a person reads them, from requests down to instructions, and the money."""
    _print("funnel.txt", funnel=funnel, work=work, ledger={}, batches=[], answers_unjudged=0)


def print_status(status: "Status", work: Path, as_json: bool = False) -> None:
    """Print the counts as far as they are known, what the ledger holds, and every batch."""
    if as_json:
        typer.echo(json.dumps(status.to_dict(), indent=2))
    else:
        _print("funnel.txt", work=work, **vars(status))


def print_shortfall(funnel: "Funnel") -> bool:
    """Print why a run has fewer tasks than its target, or why nothing was published; return whether it is so."""
    from datagen.money.dollars import usd

    kept, lines = f"{funnel.tasks_kept} of {funnel.target} tasks", []
    if funnel.budget_reached and funnel.money and funnel.money.budget_usd is not None:
        budget = usd(funnel.money.budget_usd)
        done = f"{kept} and {funnel.instructions} instructions"
        lines.append(f"Stopped at the budget of {budget} with {done}; raise --budget-usd to go on.")
    elif not funnel.target_reached:
        requests = f"{funnel.task_requests} task requests"
        lines.append(f"Stopped at {requests} with {kept}; raise --max-requests to go on.")
    lines += filter(None, [funnel.nothing_published])
    if lines:
        typer.echo("\n".join(lines), err=True)
    return bool(lines)


def print_batches(batches: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each cancelled batch: its id, state, counts and age."""
    _print("batches.txt", batches=batches)
    if not batches:
        typer.echo("No batch is under way; nothing was cancelled.")


def print_derived(derived: "Derived", work: Path, target: Path) -> None:
    """Print how many replies of a work folder a new one reuses."""
    answers = f"{derived.answers} of {derived.of_answers} answers"
    counts = f"{derived.tasks} of {derived.of_tasks} task requests and {answers}"
    typer.echo(f"{target} reuses {counts} from {work}.", err=True)


def print_plan(plan: "SynthesisPlan", work: Path) -> None:
    """Print what a run would do: services and prices, sample prompts, requests, tokens and cost."""
    keys = {name for name, value in os.environ.items() if value.strip()}
    _print("plan.txt", plan=plan, settings=plan.settings, work=work, keys=keys)


def aligned_usd(amounts: Sequence[float | None]) -> list[str]:
    """Write amounts of one line with one number of digits, so that they can be seen to add up.

    Example:
        >>> aligned_usd([0.0421, 0.03, 0.0121, None])
        ['$0.0421', '$0.0300', '$0.0121', 'unknown']
    """
    from datagen.money.dollars import usd

    digits = max((len(usd(each).partition(".")[2]) for each in amounts if each), default=2)
    return ["unknown" if each is None else f"${each:,.{digits}f}" for each in amounts]


def _print(template: str, **values: object) -> None:
    typer.echo(_templates().get_template(template).render(values), nl=False)


@functools.cache
def _templates() -> "jinja2.Environment":
    from datagen.money.dollars import usd
    from datagen.service.limits import in_words
    from datagen.templates import environment

    templates = environment(Path(__file__).parent / "templates")
    templates.filters |= {
        "aligned": aligned_usd,
        "failed": lambda counts: [(f"failed: {reason}", count) for reason, count in counts.items()],
        "in_words": in_words,
        "usd": lambda amount: "unknown" if amount is None else usd(amount),
    }
    return templates
