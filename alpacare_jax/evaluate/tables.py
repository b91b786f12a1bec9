"""A file of verdicts to a table of win rates with intervals: what the verb score calls."""

from collections.abc import Sequence
from pathlib import Path

from alpacare_jax.evaluate import answers, bootstrap
from alpacare_jax.evaluate.scores import Rate, ScoreTable, score_verdicts
from datagen.records import Verdict, read_records


def score(
    verdicts: str | Path | Sequence[Verdict],
    *,
    responses: answers.Source | None = None,
    references: Sequence[answers.Source] = (),
    reference_fields: Sequence[str] = (),
) -> ScoreTable:
    """Turn verdicts into win rates with intervals, consistency and counts.

    The judge's texts are read anew; a ``verdict`` field serves only where a record has no text.

    Args:
        verdicts: A verdict file, or the verdicts that ``alpacare_jax.judge`` returned.
        responses: The model's responses, to count the words of its answers.
        references: Files of reference answers, or lists of them, to count their words.
        reference_fields: Answer fields, where one source of references holds several answers a row.

    Returns:
        The scores of every model against every reference; ``format_table`` lays them out as text.

    Raises:
        DataError: A file is broken, there is no verdict, or one is a duplicate.

    Examples:
        >>> said = lambda order, raw: Verdict(id="7", reference="gpt-4", order=order, raw=raw)
        >>> table = score([said("model_first", "Output (a)"), said("reference_first", "Tie")])
        >>> table.scores[0].alpacare.percent
        75.0
    """
    records = read_records(verdicts, Verdict) if isinstance(verdicts, str | Path) else list(verdicts)
    if responses is not None or references:
        own = answers.Answers("", {}, {}, "")
        if responses is not None:
            own = answers.as_answers(answers.read_responses(responses), responses)
        others = answers.read_references(references, reference_fields)
        records = answers.with_words(records, own, others)
    return score_verdicts(records)


def format_table(table: ScoreTable) -> str:
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


def _notes(table: ScoreTable) -> list[str]:
    return [
        "AlpaCare: win 1, tie 0.5, loss 0, mean of both orders. The other rates: an item",
        "whose orders disagree, or of which either is a tie, is a tie. consistency: both",
        "orders say the same. complete: items with both orders readable, of all; rates",
        f"are over these, each with its 95% bootstrap interval by item ({bootstrap.RESAMPLES:,} draws).",
        "1st/2nd: AlpaCare's rate by the model's place. words: mean, model/reference.",
        f"Verdicts read anew from the judge's text: {table.parsed:,}; of these contradicting",
        f"their own verdict field: {table.differing:,}. Without text, taken as written: {table.as_written:,}.",
    ]


def _interval(rate: Rate) -> str:
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
