"""``alpacare report``: a run's files to one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Run folder of `alpacare train`, or work folder of `alpacare synthesize`."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write.", show_default="FOLDER/report.html")
    ] = None,
    synthesis: Annotated[
        Path | None, typer.Option(help="Work folder of `alpacare synthesize`, for the funnel.")
    ] = None,
    packed: Annotated[
        list[Path] | None,
        typer.Option(help="Packed data set; may be repeated. Default: those that the run's config names."),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `alpacare evaluate` for the model before fine-tuning, or its responses (JSON Lines)."
        ),
    ] = None,
    after: Annotated[Path | None, typer.Option(help="The same for the fine-tuned model.")] = None,
    references: Annotated[
        Path | None,
        typer.Option(help="Reference answers for ROUGE-L: rows with id and output (or response)."),
    ] = None,
    verdicts: Annotated[Path | None, typer.Option(help="Verdicts of `alpacare judge`.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="More figures for the before/after table (JSON Lines): name, before, after, better "
            '("lower" or "higher"), and optionally digits, unit, note.'
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Stages with their seconds and command lines (JSON), as the quickstart keeps them."
        ),
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="Answers shown side by side.")] = 20,
    title: Annotated[
        str | None, typer.Option(help="Heading of the page.", show_default="names what the folder holds")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a run's curves, figures and answers as one HTML page.

    The page needs no network. What is not given is named as missing. Held-out
    loss before and after comes from the two evaluations, or else from the run's
    own validation at its first and last step.

    For a work folder of `alpacare synthesize`, also while a run writes to it: root
    verbs with their objects, types, views, topics, difficulty, lengths, nearest
    neighbours, funnel, tokens and cost. The other options do not apply to it.
    """
    from alpacare_jax.cli import reporting
    from alpacare_jax.cli.judge_verb import refuse_existing
    from alpacare_jax.report import ReportInputs, write_report

    out = out or run / "report.html"
    refuse_existing(out, overwrite)
    if reporting.is_work_folder(run):
        given = (synthesis, packed, before, after, references, verdicts, figures, journal)
        reporting.report_synthesis(run, out, title, only_folder=not any(given))
        typer.echo(f"wrote {out}")
        return
    config = reporting.read_run(run)
    metrics = reporting.read_rows(run / "metrics.jsonl")
    sides = (reporting.read_side(before), reporting.read_side(after))
    rouge, answers = reporting.compare_answers(*sides, references)
    losses = reporting.figure_rows(*sides) or reporting.validation_rows(metrics)
    data = packed or reporting.config_data(config)
    times, commands = (
        reporting.read_journal(journal) if journal else (reporting.training_time(run, metrics), [])
    )
    inputs = ReportInputs(
        title=title or ReportInputs.title,
        subtitle=str(run),
        funnel=reporting.read_object(synthesis / "funnel.json") if synthesis else None,
        rejected=reporting.read_rows(synthesis / "rejected.jsonl") if synthesis else (),
        packing=reporting.read_manifests(data),
        metrics=metrics,
        comparison=[*losses, *rouge, *(reporting.read_figures(figures) if figures else [])],
        answers=answers[:shown],
        scores=reporting.score(verdicts) if verdicts else None,
        provenance=reporting.gather_provenance(run, data),
        config=config,
        commands=commands,
        wall_times_s=times,
    )
    write_report(inputs, out)
    typer.echo(f"wrote {out}")
