"""``alpacare quickstart``: the whole path on a laptop."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[
        Path, typer.Option(help="Folder for all output; an interrupted quickstart is resumed from it.")
    ] = Path("quickstart"),
    train: Annotated[int, typer.Option(min=1, help="Synthetic instructions to fine-tune on.")] = 24,
    held_out: Annotated[int, typer.Option(min=1, help="Further instructions, kept for evaluation.")] = 6,
    slots: Annotated[int, typer.Option(min=1, help="Requests the teacher answers at the same time.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed of prompts and training.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete an earlier quickstart in --out first.")
    ] = False,
) -> None:
    """Run the whole pipeline with a small real model; needs no accelerator, account or API key.

    SmolLM2-135M-Instruct is fetched, served, and writes medical instructions, which are filtered, answered, packed
    and used to fine-tune it on four simulated devices; the result is exported, evaluated and shown in report.html.
    About ten minutes on two cores.
    """
    from alpacare_jax.quickstart.path import QuickstartConfig, clean, run_quickstart

    if restart:
        clean(out)
    config = QuickstartConfig(train=train, held_out=held_out, slots=slots, seed=seed)
    try:
        run_quickstart(out, config, lambda line: typer.echo(line))
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; run the same command to resume.", err=True)
        raise typer.Exit(130) from None
