"""``alpacare judge``: pairwise verdicts in both orders by an OpenAI-compatible judge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from alpacare_jax.cli.flags import JUDGE as FLAGS  # noqa: F401  # the command gives the verb these
from alpacare_jax.cli.flags import split_list
from alpacare_jax.cli.resuming import CancelBatches, NoWait, resumable

if TYPE_CHECKING:
    from datagen.records import Verdict

SETTINGS = "alpacare_jax.evaluate.judge:JudgeSettings"


def command(
    responses: Annotated[Path, Option(help="The model's responses, JSON Lines or a JSON list.")],
    references: Annotated[
        list[str],
        Option(
            help="Files of reference answers, comma-separated or repeated; joined by id, else by question."
        ),
    ],
    work: Annotated[Path, Option(help="Folder of the ledger; the same command resumes an interrupted run.")],
    out: Annotated[Path, Option(help="Verdict file to write (JSON Lines).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as sampling.top_p=0.9."),
    ] = None,
    config: Annotated[Path | None, Option(help="YAML file of settings.")] = None,
    name: Annotated[str, Option(help="Name of the judged model in the verdicts.")] = "",
    reference_fields: Annotated[
        str, Option(help="Answer fields, comma-separated, where a file holds several answers a row.")
    ] = "",
    allow_missing: Annotated[
        bool, Option("--allow-missing", help="Skip responses without a reference answer, and count them.")
    ] = False,
    limit: Annotated[int | None, Option(min=1, help="Judge only the first N responses.")] = None,
    no_wait: NoWait = False,
    cancel_batches: CancelBatches = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print a sample question and the cost; send and write nothing.")
    ] = False,
    retry_failed: Annotated[
        bool,
        Option("--retry-failed", help="Send requests again whose reply failed, was empty, or was cut off."),
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing verdict file.")] = False,
) -> None:
    """Compare responses with reference answers by a judge model.

    Each response is compared with each reference answer in both orders. Every reply is
    recorded in the ledger of the work folder, so an interrupted run can be resumed.
    Then: `alpacare score`.

    Exit status: 0 every comparison judged, 1 some requests failed or no reply
    states a verdict, 2 error, 3 batches are under way (--no-wait), 130 interrupted.
    """
    from alpacare_jax.evaluate import judging
    from datagen.configuration import parse_overrides
    from datagen.files import refuse_existing

    given = parse_overrides(judging.JudgeSettings, overrides or [])
    settings = judging.read_settings(config, given)
    paths, fields = [path for text in references for path in split_list(text)], split_list(reference_fields)
    if cancel_batches and not dry_run:
        refuse_existing(out, overwrite)
    if dry_run or cancel_batches:
        plan, heading = judging.plan_files(responses, paths, name, fields, allow_missing, limit)
        done = judging.describe_cost(plan, settings, work) if dry_run else judging.cancel(settings, work)
        return typer.echo(f"{heading}\n{done}")
    with resumable(work):
        verdicts = judging.judge(
            responses, paths, settings, out, work=work, name=name, reference_fields=fields,
            allow_missing=allow_missing, limit=limit, retry_failed=retry_failed, wait=not no_wait,
            lift_budget="budget_usd" in given and given["budget_usd"] is None, overwrite=overwrite, say=typer.echo,
        )  # fmt: skip
    _print_verdicts(verdicts, out)


def _print_verdicts(verdicts: "list[Verdict]", out: Path) -> None:
    from alpacare_jax.evaluate import judging

    outcomes, problems = judging.describe_verdicts(verdicts)
    typer.echo(f"wrote {len(verdicts)} verdicts to {out}: {outcomes}")
    typer.echo("\n".join([*problems, f"next: alpacare score {out}"]))
    none = bool(verdicts) and all(verdict.verdict == "invalid" for verdict in verdicts)
    if none or any("error" in verdict.extra for verdict in verdicts):
        raise typer.Exit(1)
