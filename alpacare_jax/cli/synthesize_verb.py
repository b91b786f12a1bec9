"""``alpacare synthesize``: seed tasks to instructions, through a resumable work folder."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from alpacare_jax.cli.flags import SYNTHESIZE as FLAGS  # noqa: F401  # the command gives the verb these
from alpacare_jax.cli.resuming import resumable

SETTINGS = "datagen.settings:Settings"


def command(
    work: Annotated[Path, Option(help="Work folder: ledger and results; made if missing, resumed if not.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as task_sampling.top_p=0.9."),
    ] = None,
    config: Annotated[
        Path | None, Option(help="YAML file of settings; without it a work folder's own settings hold.")
    ] = None,
    no_wait: Annotated[
        bool,
        Option("--no-wait", help="In batch mode: bring in what has ended, send what can be sent, leave."),
    ] = False,
    cancel_batches: Annotated[
        bool, Option("--cancel-batches", help="End the batches under way and bring in what they have done.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print sample prompts and the estimated cost; send and write nothing.")
    ] = False,
    status: Annotated[
        bool, Option("--status", help="Print how far the work folder is; send nothing.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="With --status: print JSON.")] = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Ask again what a run gave up on.")] = False,
    derive: Annotated[
        Path | None,
        Option(
            "--derive", "--fork", help="Go on in this new folder, changed, with replies that still apply."
        ),
    ] = None,
) -> None:
    """Write new medical tasks with a model, filter them, and have them answered.

    Every request and reply is kept in WORK/ledger.sqlite: an interrupted run goes
    on with the same command and asks nothing twice. Results: instructions.jsonl,
    tasks.jsonl, rejected.jsonl (with reasons), funnel.json.

    Exit status: 0 target reached, 1 fewer tasks than that or no answer that can be
    published, 2 error, 3 batches are under way (--no-wait), 130 interrupted.
    """
    import datagen
    from alpacare_jax.cli import synthesis_report as report
    from datagen.configuration import parse_overrides

    if as_json and not status:
        raise typer.BadParameter("it goes with --status", param_hint="--json")
    if status:
        found = datagen.status(work)
        typer.echo(json.dumps(found.to_dict(), indent=2)) if as_json else report.print_status(found, work)
        return
    settings = {"config": config, **parse_overrides(datagen.Settings, overrides or [])}
    if dry_run:
        report.print_plan(datagen.plan_synthesis(work, **settings), work)
        return
    if derive is not None:
        taken = datagen.derive(work, derive, **settings)
        counts = f"{taken.tasks} of {taken.of_tasks} task requests and {taken.answers} of {taken.of_answers} answers"
        typer.echo(f"{derive} takes over {counts} from {work}.", err=True)
        work = derive
    if cancel_batches:
        ended = datagen.cancel_batches(work, **settings)
        report.print_batches(ended)
        if not ended:
            typer.echo("No batch is under way; nothing was ended.")
        return
    with resumable(work):
        funnel = datagen.synthesize(work, retry_failed=retry_failed, wait=not no_wait, **settings)
    report.print_funnel(funnel, work)
    if problems := report.describe_shortfall(funnel):
        typer.echo("\n".join(problems), err=True)
        raise typer.Exit(1)
