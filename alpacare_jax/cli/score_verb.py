"""``alpacare score``: a verdict file to a table of win rates with intervals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alpacare_jax.evaluate.scores import Rate, ScoreTable


def command(
    verdicts: Annotated[
        Path, typer.Argument(help="Verdict file (JSON Lines), as `alpacare judge` writes it.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON (all figures) instead of a table.")
    ] = False,
    responses: Annotated[
        Path | None, typer.Option(help="The model's response file, to count the words of its answers.")
    ] = None,
    references: Annotated[
        list[Path] | None, typer.Option(help="Reference answers, to count their words; may be repeated.")
    ] = None,
    reference_fields: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated answer fields, where one reference file holds several answers a row."
        ),
    ] = None,
) -> None:
    """Turn verdicts into win rates with intervals, consistency and counts.

    The judge's texts are read anew; a `verdict` field serves only where a
    record has no text. Percentages are over items with both orders readable.
    """
    from alpacare_jax.cli.judge_verb import split_fields
    from alpacare_jax.evaluate import answers
    from alpacare_jax.evaluate.scores import score_verdicts
    from datagen.records import Verdict, read_records

    records = read_records(verdicts, Verdict)
    if responses is not None or references:
        own = (
            answers.as_answers(answers.read_responses(responses), responses)
            if responses
            else answers.Answers("", {}, {}, "")
        )
        others = answers.read_references(references or [], split_fields(reference_fields))
        records = answers.with_words(records, own, others)
    table = score_verdicts(records)
    typer.echo(json.dumps(table.to_dict(), indent=2) if as_json else format_table(table))


def format_table(table: "ScoreTable") -> str:
    """Lay the scores out as plain text: rates, then counts and lengths, then what the reader must know."""
    models = {score.model for score in table.scores}
    rates = [["percent", "AlpaCare", "win rate", "non-tied", "ties as half", "consistency"]]
    counts = [["", "complete", "won/tied/lost", "unread", "missing", "1st/2nd", "words"]]
    warnings = []
    for score in table.scores:
        name = f"{score.model} vs {score.reference}" if len(models) > 1 else score.reference
        rest = (score.win_rate, score.win_rate_non_tied, score.ties_as_half, score.consistency)
        rates.append([name, _number(score.alpacare.percent, 2), *(_number(rate.percent) for rate in rest)])
        rates.append(["", *(_interval(rate) for rate in (score.alpacare, *rest))])
        cells = [
            f"{score.complete}/{score.items}",
            f"{score.wins}/{score.ties}/{score.losses}",
            str(score.invalid),
            str(score.missing),
            "/".join(_number(rate.percent) for rate in (score.model_first, score.reference_first)),
            "/".join(_number(count, 0) for count in (score.model_words, score.reference_words)),
        ]
        counts.append([name, *cells])
        if score.complete < score.items:
            warnings += [
                f"! {name}: only {score.complete} of {score.items} items are complete ({score.invalid}"
                f" unreadable and {score.missing} missing verdicts).",
                f"  AlpaCare's win rate with all of these lost {_number(score.at_worst, 2)}, with all won"
                f" {_number(score.at_best, 2)}.",
            ]
    heading = [f"model: {model}\n" for model in models if model and len(models) == 1]
    return "\n".join([*heading, *_columns(rates), "", *_columns(counts), "", *_notes(table), *warnings])


def _notes(table: "ScoreTable") -> list[str]:
    from alpacare_jax.evaluate.bootstrap import RESAMPLES

    return [
        "AlpaCare: win 1, tie 0.5, loss 0, mean of both orders. The other rates: an item",
        "whose orders disagree, or of which either is a tie, is a tie. consistency: both",
        "orders say the same. complete: items with both orders readable, of all; rates",
        f"are over these, each with its 95% bootstrap interval by item ({RESAMPLES:,} draws).",
        "1st/2nd: AlpaCare's rate by the model's place. words: mean, model/reference.",
        f"Verdicts read anew from the judge's text: {table.parsed:,}; of these contradicting",
        f"their own verdict field: {table.differing:,}. Without text, taken as written: {table.as_written:,}.",
    ]


def _interval(rate: "Rate") -> str:
    return "" if rate.low is None else f"{rate.low:.1f}-{rate.high:.1f}"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
