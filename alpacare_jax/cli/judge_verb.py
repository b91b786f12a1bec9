"""``alpacare judge``: pairwise verdicts in both orders by an OpenAI-compatible judge."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datagen.finish import read_finish

if TYPE_CHECKING:
    from alpacare_jax.evaluate.judge import Plan
    from datagen.records import Verdict


def command(
    responses: Annotated[Path, typer.Option(help="The model's response file (JSON Lines).")],
    references: Annotated[
        list[str],
        typer.Option(help="Response files of the reference models; comma-separated, and may be repeated."),
    ],
    base_url: Annotated[
        str,
        typer.Option(help="Address of the judge's OpenAI-compatible API, such as http://127.0.0.1:8000/v1."),
    ],
    model: Annotated[str, typer.Option(help="The judge's model name at that API.")],
    work: Annotated[Path, typer.Option(help="Folder of the ledger; an interrupted run resumes from it.")],
    out: Annotated[Path, typer.Option(help="Verdict file to write (JSON Lines).")],
    reference_fields: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated answer fields, where one reference file holds several answers a row: "
            "gpt-4-answer,claude-2."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Leave out and count responses without a reference answer."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge only the first N responses.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at the same time.")] = 8,
    timeout_s: Annotated[float, typer.Option(help="Longest wait for one reply, in seconds.")] = 120.0,
    max_tries: Annotated[int, typer.Option(min=1, help="Tries per request, the first included.")] = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply of the judge, in tokens.")] = 512,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the judge's key; not needed on loopback.")
    ] = "OPENAI_API_KEY",
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask again what an earlier run of this work folder gave up on."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing verdict file.")] = False,
) -> None:
    """Compare responses with reference answers by a judge model.

    Each response meets each reference answer in both orders, joined by id, at
    temperature 0. The judge answers "Output (a)", "Output (b)" or "Tie". Every reply is kept
    in the ledger of the work folder before it counts, so an interrupted run
    goes on where it stopped. Then: `alpacare score`.

    Exit status: 0 all asked, 1 some requests failed for good, 2 error, 130
    interrupted.
    """
    from alpacare_jax.evaluate import answers
    from alpacare_jax.evaluate.judge import STAGE, judge, plan_comparisons
    from datagen.client import Service
    from datagen.ledger import Ledger
    from datagen.records import write_records

    refuse_existing(out, overwrite)
    asked = answers.read_responses(responses)[:limit]
    own = answers.as_answers(asked, responses)
    paths = [name for text in references for name in split_fields(text)]
    sets = answers.read_references(paths, split_fields(reference_fields))
    plan = plan_comparisons(asked, own, sets, allow_missing=allow_missing)
    typer.echo(describe_plan(plan, len(asked)))
    service = Service(
        base_url,
        model,
        api_key_env=api_key_env,
        timeout_s=timeout_s,
        max_tries=max_tries,
        concurrency=concurrency,
    )
    with Ledger(work / "ledger.sqlite") as ledger:
        if retry_failed:
            typer.echo(f"{ledger.reopen(STAGE)} failed requests are asked again")
        try:
            with show_progress("judging") as progress:
                verdicts = judge(plan, service, ledger, max_tokens=max_tokens, progress=progress)
        except KeyboardInterrupt:
            typer.echo(
                f"\nInterrupted. {work} keeps every reply; the same command goes on from there.", err=True
            )
            raise typer.Exit(130) from None
    write_records(out, verdicts)
    typer.echo(describe_verdicts(verdicts, out))
    if any("error" in verdict.extra for verdict in verdicts):
        raise typer.Exit(1)


def split_fields(text: str | None) -> list[str]:
    """Split a comma-separated list and drop the blanks.

    Example:
        >>> split_fields("gpt-4-answer, claude-2,")
        ['gpt-4-answer', 'claude-2']
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that holds something, unless told to.

    Raises:
        DataError: The file exists, is not empty, and ``overwrite`` is false.
    """
    from datagen.errors import DataError

    if not overwrite and path.exists() and (path.is_dir() or path.stat().st_size):
        raise DataError(
            "the output exists already",
            where=path,
            expected="a new file",
            remedy="choose another name, or replace it with --overwrite",
        )


def describe_plan(plan: "Plan", responses: int) -> str:
    """Say what will be asked, and what has no partner."""
    lines = [
        f"{responses} responses of {plan.model} against {', '.join(plan.without_reference)}, both orders: "
        f"{len(plan.comparisons)} comparisons"
    ]
    for name, count in plan.without_reference.items():
        if count:
            lines.append(f"! {count} responses have no answer of {name} and are left out")
    for name, count in plan.without_response.items():
        if count:
            lines.append(f"{count} answers of {name} have no response and are not used")
    return "\n".join(lines)


def describe_verdicts(verdicts: "list[Verdict]", out: Path) -> str:
    """Say what came back: outcomes, failures, unreadable replies and those cut off."""
    counts = {name: sum(v.verdict == name for v in verdicts) for name in ("win", "tie", "loss", "invalid")}
    failed = sum("error" in verdict.extra for verdict in verdicts)
    cut = sum(v.verdict == "invalid" and read_finish(v.extra.get("finish_reason")) == "cut" for v in verdicts)
    outcomes = ", ".join(f"{number} {name}" for name, number in counts.items())
    lines = [f"wrote {len(verdicts)} verdicts to {out}: {outcomes}"]
    if failed:
        lines.append(f"! {failed} requests failed and count as invalid; --retry-failed asks them again")
    if counts["invalid"] > failed:
        lines.append(f"! {counts['invalid'] - failed} replies hold no clear verdict and count as invalid")
    if cut:
        lines.append(f"! {cut} of them were cut off at --max-tokens")
    return "\n".join([*lines, f"next: alpacare score {out}"])


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show (done, total) as a bar on a terminal, and as a plain line every tenth elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = -1

        def line(done: int, total: int) -> None:
            nonlocal last
            tenth = 10 * done // max(total, 1)
            if tenth != last:
                last = tenth
                typer.echo(f"{what} {done}/{total}", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what)
        yield lambda done, total: bars.update(task, completed=done, total=total)
