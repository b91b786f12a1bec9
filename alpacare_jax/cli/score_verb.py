"""``alpacare score``: a verdict file to a table of win rates with intervals."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option


def command(
    verdicts: Annotated[
        Path, typer.Argument(help="Verdict file (JSON Lines), as `alpacare judge` writes it.")
    ],
    as_json: Annotated[bool, Option("--json", help="Print JSON (all figures) instead of a table.")] = False,
    responses: Annotated[
        Path | None, Option(help="The model's response file, to count the words of its answers.")
    ] = None,
    references: Annotated[
        list[Path] | None, Option(help="Reference answers, to count their words; may be repeated.")
    ] = None,
    reference_fields: Annotated[
        str | None,
        Option(help="Comma-separated answer fields, where one reference file holds several answers a row."),
    ] = None,
) -> None:
    """Turn verdicts into win rates with intervals, consistency and counts.

    The judge's texts are read anew; a `verdict` field serves only where a
    record has no text. Percentages are over items with both orders readable.
    """
    from alpacare_jax.cli.flags import split_list
    from alpacare_jax.evaluate.tables import format_table, score

    fields = split_list(reference_fields)
    table = score(verdicts, responses=responses, references=references or (), reference_fields=fields)
    typer.echo(json.dumps(table.to_dict(), indent=2) if as_json else format_table(table))
