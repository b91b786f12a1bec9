"""``alpacare report``: a run's files to one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

_Run = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="Run folder of `alpacare train`, or work folder of `alpacare synthesize`."
    ),
]
_Out = Annotated[Path | None, typer.Option(help="HTML file to write.", show_default="FOLDER/report.html")]
_Synthesis = Annotated[
    Path | None, typer.Option(help="Work folder of `alpacare synthesize`, for the funnel.")
]
_Packed = Annotated[
    list[Path] | None,
    typer.Option(help="Packed data set; may be repeated. Default: those that the run's config names."),
]
_Before = Annotated[
    Path | None,
    typer.Option(
        help="Folder of `alpacare evaluate` for the model before fine-tuning, or its responses (JSON Lines)."
    ),
]
_After = Annotated[Path | None, typer.Option(help="The same for the fine-tuned model.")]
_References = Annotated[
    Path | None,
    typer.Option(help="Reference answers for ROUGE-L: rows with id and output (or response)."),
]
_Verdicts = Annotated[Path | None, typer.Option(help="Verdicts of `alpacare judge`.")]
_Figures = Annotated[
    Path | None,
    typer.Option(
        help="More figures for the before/after table (JSON Lines): name, before, after, better "
        '("lower" or "higher"), and optionally digits, unit, note.'
    ),
]
_Journal = Annotated[
    Path | None,
    typer.Option(help="Stages with their seconds and command lines (JSON), as the quickstart keeps them."),
]
_Shown = Annotated[int, typer.Option(min=0, help="Answers shown side by side.")]
_Title = Annotated[
    str | None, typer.Option(help="Heading of the page.", show_default="names what the folder holds")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def command(
    context: typer.Context,
    run: _Run,
    out: _Out = None,
    synthesis: _Synthesis = None,
    packed: _Packed = None,
    before: _Before = None,
    after: _After = None,
    references: _References = None,
    verdicts: _Verdicts = None,
    figures: _Figures = None,
    journal: _Journal = None,
    shown: _Shown = 20,
    title: _Title = None,
    overwrite: _Overwrite = False,
) -> None:
    """Write a run's curves, figures and answers as one HTML page.

    The page needs no network. What is not given is named as missing. Held-out
    loss before and after comes from the two evaluations, or else from the run's
    own validation at its first and last step.

    For a work folder of `alpacare synthesize`, also while a run writes to it: root
    verbs with their objects, types, views, topics, difficulty, lengths, nearest
    neighbours, funnel, tokens and cost. The other options do not apply to it.
    """
    from alpacare_jax.report.writing import report

    typer.echo(f"wrote {report(**context.params)}")
