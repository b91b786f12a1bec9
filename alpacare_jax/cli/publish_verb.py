"""``alpacare publish``: a finished work folder to a data set with a card."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    work: Annotated[
        Path, typer.Argument(metavar="WORK", help="Work folder of a finished `alpacare synthesize`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; it appears whole or not at all.")],
    license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the data, yours to name, such as cc-by-nc-4.0.",
            show_default="stated as not named",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the data set on its card.")] = "Medical instructions",
    validation_share: Annotated[
        float,
        typer.Option(help="Share of the rows, 0 to below 1, for a validation split; a row's id decides."),
    ] = 0.0,
    shards: Annotated[
        int | None,
        typer.Option(help="ArrayRecord shards of each split.", show_default="one for each 64 MiB"),
    ] = None,
    beam_runner: Annotated[
        str | None,
        typer.Option(
            help="Write the shards through Apache Beam with this runner, such as DirectRunner; needs the "
            "'beam' extra.",
            show_default="without Beam",
        ),
    ] = None,
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="Flag for the runner, such as --direct_num_workers=4; may be repeated."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a data set that this verb wrote.")
    ] = False,
) -> None:
    """Publish a run's instructions: JSON Lines, ArrayRecord shards (TFDS), card and manifest.

    OUT holds instructions.jsonl (MedInstruct-52k's format), tfds/, README.md (the
    data set card), provenance.json, and manifest.json, which is written last. The
    same work folder gives the same bytes. Nothing is uploaded.
    """
    from datagen.publish import publish

    manifest = publish(
        work, out, license=license, name=name, validation_share=validation_share, shards=shards,
        beam_runner=beam_runner, beam_options=beam_option or (), overwrite=overwrite,
    )  # fmt: skip
    for split, rows in manifest["rows"].items():
        typer.echo(f"{split:<12}{rows:>9,} rows")
    size = sum(file["bytes"] for file in manifest["files"])
    typer.echo(f"{len(manifest['files'])} files, {size / 2**20:.1f} MiB in {out}")
    if not (license or "").strip():
        typer.echo("The card states no licence; name one with --license before you share the data.")
