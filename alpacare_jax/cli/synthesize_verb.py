"""``alpacare synthesize``: seed tasks to instructions, through a resumable work folder."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from alpacare_jax.cli.flags import SYNTHESIZE as FLAGS  # noqa: F401  # the command gives the verb these
from alpacare_jax.cli.resuming import CancelBatches, NoWait, resumable

SETTINGS = "datagen.settings:Settings"


def command(
    work: Annotated[
        Path, Option(help="Work folder with ledger and results; created if missing, else resumed.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as task_sampling.top_p=0.9."),
    ] = None,
    config: Annotated[
        Path | None, Option(help="YAML file of settings; default: the settings of the work folder.")
    ] = None,
    no_wait: NoWait = False,
    cancel_batches: CancelBatches = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print sample prompts and the estimated cost; send and write nothing.")
    ] = False,
    status: Annotated[
        bool, Option("--status", help="Print the progress of the work folder; send nothing.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="With --status: print JSON.")] = False,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Send failed requests again.")] = False,
    derive: Annotated[
        Path | None,
        Option(
            "--derive",
            "--fork",
            help="Continue in this new folder with changed settings, reusing replies that still apply.",
        ),
    ] = None,
) -> None:
    """Write new medical tasks with a model, filter them, and have them answered.

    Every request and reply is kept in WORK/ledger.sqlite: the same command
    resumes an interrupted run and sends no request twice. Results: instructions.jsonl,
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
        report.print_status(datagen.status(work), work, as_json)
        return
    settings = {"config": config, **parse_overrides(datagen.Settings, overrides or [])}
    if dry_run:
        report.print_plan(datagen.plan_synthesis(work, **settings), work)
        return
    if derive is not None:
        report.print_derived(datagen.derive(work, derive, **settings), work, derive)
        work = derive
    if cancel_batches:
        report.print_batches(datagen.cancel_batches(work, **settings))
        return
    with resumable(work):
        funnel = datagen.synthesize(work, retry_failed=retry_failed, wait=not no_wait, **settings)
    report.print_funnel(funnel, work)
    if report.print_shortfall(funnel):
        raise typer.Exit(1)
