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
    from alpacare_jax.evaluate import bootstrap

    names = {id(s): f"{s.model} vs {s.reference}" if s.model else s.reference for s in table.scores}
    rates = [["reference", "win rate (AlpaCare)", "win rate", "non-tied", "ties as half", "consistency"]]
    counts = [
        [
            "reference",
            "items",
            "complete",
            "won",
            "tied",
            "lost",
            "unreadable",
            "missing",
            "first/second",
            "words",
        ]
    ]
    for score in table.scores:
        five = (
            score.alpacare,
            score.win_rate,
            score.win_rate_non_tied,
            score.ties_as_half,
            score.consistency,
        )
        rates.append([names[id(score)], _rate(five[0], 2), *(_rate(rate, 1) for rate in five[1:])])
        one_way = " / ".join(_number(rate.percent) for rate in (score.model_first, score.reference_first))
        words = " / ".join(_number(count, 0) for count in (score.model_words, score.reference_words))
        whole = (
            score.items,
            score.complete,
            score.wins,
            score.ties,
            score.losses,
            score.invalid,
            score.missing,
        )
        counts.append([names[id(score)], *map(str, whole), one_way, words])
    notes = [
        f"Percent [95% bootstrap interval by item, {bootstrap.RESAMPLES} draws, seed {bootstrap.SEED}].",
        "Win rate (AlpaCare): win 1, tie 0.5, loss 0, mean of both orders. The other rates: an item whose",
        "orders disagree, or of which either is a tie, is a tie. Consistency: both orders say the same.",
        "first/second: AlpaCare's win rate by the model's place. words: mean length, model / reference.",
        f"{table.parsed} verdicts read anew from the judge's text, {table.as_written} without text taken as "
        f"written; {table.differing} contradicted their verdict field.",
    ]
    for score in table.scores:
        if score.complete < score.items:
            notes.append(
                f"! {names[id(score)]}: only {score.complete} of {score.items} items are complete "
                f"({score.invalid} unreadable and {score.missing} missing verdicts). With all of these lost, "
                f"AlpaCare's win rate would be {_number(score.at_worst, 2)}; with all won, "
                f"{_number(score.at_best, 2)}."
            )
    return "\n".join([*_columns(rates), "", *_columns(counts), "", *notes])


def _rate(rate: "Rate", digits: int) -> str:
    if rate.percent is None or rate.low is None:
        return _number(rate.percent, digits)
    return f"{rate.percent:.{digits}f} [{rate.low:.1f}, {rate.high:.1f}]"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
