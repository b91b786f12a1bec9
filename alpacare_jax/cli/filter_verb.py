"""``alpacare filter``: near-duplicates, evaluation overlap and personal identifiers out of any dataset."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

Evaluation = Annotated[
    list[str] | None,
    Option(
        metavar="FILE[:FIELD,...]",
        help="Evaluation set that must not leak into task or answer; may be repeated. Unusual field names "
        "follow the file, the question first.",
    ),
]
PrivacyModel = Annotated[
    str,
    Option(
        hidden=True,
        metavar="MODEL",
        help="spaCy model, such as en_core_web_lg, that looks for names and places beside the patterns; needs the "
        "extra 'privacy'.",
        show_default="patterns alone",
    ),
]


def command(
    rows: Annotated[
        Path, typer.Argument(metavar="IN", help="Rows with a field 'instruction': JSON Lines or a JSON list.")
    ],
    out: Annotated[Path, Option(metavar="KEPT", help="File for the kept rows.")],
    rejected: Annotated[
        Path, Option(metavar="REJ", help="File for the rejected rows, each with its reason in 'rejected'.")
    ],
    threshold: Annotated[
        float, Option(help="ROUGE-L F1, 0 to 1. A row above it is dropped; a row exactly at it is kept.")
    ] = 0.7,
    policy: Annotated[
        Literal["keep-first", "all-pairs"],
        Option(
            hidden=True,
            help="keep-first compares a row with those kept before it; all-pairs with all others, so that both "
            "members of a pair go, as in the published AlpaCare filter.",
        ),
    ] = "keep-first",
    against: Annotated[
        list[Path] | None,
        Option(help="File of rows that are kept already, such as an earlier KEPT; may be repeated."),
    ] = None,
    seeds: Annotated[
        bool,
        Option("--seeds", hidden=True, help="Also compare with the seed tasks that come with the package."),
    ] = False,
    evaluation: Evaluation = None,
    privacy: Annotated[
        Literal["off", "report", "drop", "mask"],
        Option(
            help="Personal identifiers: report lists them in --identifiers, drop rejects the row, mask puts "
            "[NAME], [DATE]... in their place."
        ),
    ] = "off",
    privacy_model: PrivacyModel = "",
    identifiers: Annotated[
        Path | None, Option(metavar="FILE", help="File for kind and place of every identifier found.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the output files if they exist.")] = False,
) -> None:
    """Drop near-duplicates: keep the first of each group, compare instructions by exact ROUGE-L F1.

    With --evaluation and --privacy, rows that overlap with evaluation sets or
    hold personal identifiers go first.
    """
    from datagen.errors import ConfigError
    from datagen.filtering import filter

    if privacy == "report" and identifiers is None:
        raise ConfigError("--privacy report has no file to write to", remedy="add --identifiers FILE")
    found = filter(
        rows, out, rejected, threshold=threshold, policy=policy, against=against or (), seeds=seeds,
        evaluation=evaluation or (), privacy=privacy, privacy_model=privacy_model, identifiers=identifiers,
        overwrite=overwrite,
    )  # fmt: skip
    typer.echo(found.summary())
    typer.echo(
        f"{out}: rows kept; {rejected}: rows rejected" + f"; {identifiers}: identifiers" * bool(identifiers)
    )
