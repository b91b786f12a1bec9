"""``alpacare plan``: a configuration and the name of devices -> what fits on them and how fast it would be."""

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path, typer.Option(help="The run's configuration: a YAML file, see configs/train.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as mesh.tensor=2 mesh.fsdp=8."),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            help="Devices that need not be here: v5e:4x4, v5e-16, v5p-128, 'v5e:4x4 x2' (two slices), "
            "'h100-80gb x8'; the configuration's own by default."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of a batch over all devices; the configuration's by default."),
    ] = None,
    seq_len: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a row; the configuration's `seq_len` by default.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Plan a model cut to so many layers, for a quick look.")
    ] = None,
    search_batch: Annotated[
        bool,
        typer.Option("--search-batch", help="Find the most rows per device that fit, with few compilations."),
    ] = False,
    cached: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Remember what was compiled, for the same question again."),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in place of tables.")
    ] = False,
) -> None:
    """Compile a run's training step for devices that are not here: memory, fit and estimated speed.

    The real TPU compiler runs on this machine's CPU; no weights and no data are read. For GPUs the same figures come
    from a model of memory and are marked so.
    """
    from alpacare_jax import plan
    from alpacare_jax.config import load_config
    from alpacare_jax.plan import request, tables

    program, place = request.make_program(
        load_config(config, overrides or []), topology=topology, rows=rows, seq_len=seq_len, layers=layers
    )

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    with plan.Compiler(plan.plan_cache() if cached else None, tell=tell) as compiler:
        found = None
        if search_batch:
            found = plan.search_rows(compiler, program, request.batch_shards(program.config, place))
            if found.largest:
                program = program.replace(rows=found.largest * request.batch_shards(program.config, place))
        outcome = compiler.compile(program)
    if as_json:
        typer.echo(json.dumps(tables.plan_values(program, place, outcome, found), indent=2))
    else:
        typer.echo(tables.plan_text(program, place, outcome, found))
    if not outcome.fits:
        raise typer.Exit(1)
