"""``alpacare doctor``: what this machine offers a run."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path, typer.Option(help="Folder where runs would be written; its free disk is shown.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Show versions, devices, memory, optional parts, checked attention kernels and free disk, with advice."""
    from alpacare_jax import distributed, doctor, flags
    from alpacare_jax.errors import DataError

    if not folder.is_dir():
        raise DataError(
            "there is no such folder", where=folder, remedy="name an existing folder with --folder"
        )
    flags.set_flags()
    distributed.initialize_from_environment()
    checkup = doctor.examine(folder)
    typer.echo(json.dumps(dataclasses.asdict(checkup), indent=2) if as_json else checkup)
