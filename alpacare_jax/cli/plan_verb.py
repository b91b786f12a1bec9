"""``alpacare plan``: a configuration and the name of devices -> what fits on them and how fast it would be."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alpacare_jax.plan import Program, Topology, Way


def _fetch(wanted: bool) -> None:
    """Fetch the compiler for GPUs and end."""
    if not wanted:
        return
    from alpacare_jax.plan import gpus

    typer.echo(f"the GPU compiler lies in {gpus.fetch()}")
    raise typer.Exit


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
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="List sensible meshes, microbatches, remat policies and rows through a layer at once for this batch, "
            "and choose the fastest that fits.",
        ),
    ] = False,
    this_mesh: Annotated[
        bool,
        typer.Option(
            "--this-mesh",
            help="With --compare: keep to the configuration's mesh, and compile slow ways on it too.",
        ),
    ] = False,
    host_gib: Annotated[
        float | None,
        typer.Option(
            "--host-gib",
            min=1.0,
            help="Memory of one host, GiB, where it is not what is published for the machines of the topology.",
        ),
    ] = None,
    most_compiles: Annotated[
        int,
        typer.Option(min=1, help="Most compilations of --search-batch or --compare, half a minute each."),
    ] = 10,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Let the compiler finish, machine code included: several times longer, the same figures.",
        ),
    ] = False,
    cached: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Remember what was compiled, for the same question again."),
    ] = True,
    fetch_gpu_compiler: Annotated[
        bool,
        typer.Option(
            "--fetch-gpu-compiler",
            callback=_fetch,
            is_eager=True,
            help="Fetch XLA's compiler for GPUs (200 MB, by pip, into this environment) and end.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in place of tables.")
    ] = False,
) -> None:
    """Compile a run's training step for devices that are not here: memory, fit and estimated speed.

    The real compiler of TPUs or GPUs runs on this machine's CPU; no weights and no data are read. Where the one for
    GPUs is not installed, the same figures come from formulas and are marked so.
    """
    from alpacare_jax import plan
    from alpacare_jax.plan import compilers, request, tables
    from alpacare_jax.train import load_config

    program, place = request.make_program(
        load_config(config, overrides or []),
        topology=topology,
        rows=rows,
        seq_len=seq_len,
        layers=layers,
    )

    if host_gib is not None:
        place = dataclasses.replace(place, host_bytes=int(host_gib * (1 << 30)))

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    if place.chip.platform == "gpu" and not compilers.is_installed("gpu"):
        _plan_by_model(
            program, place, compare=compare, this_mesh=this_mesh, search_batch=search_batch, as_json=as_json
        )
        return
    shards = request.batch_shards(program.config, place)
    with plan.Compiler(
        plan.plan_cache() if cached else None, tell=tell, whole=whole, host_bytes=place.host_bytes
    ) as compiler:
        if compare:
            ways = plan.compare(program, place, compiler, most=most_compiles, this_mesh=this_mesh)
            _show_ways(ways, place, as_json)
            return
        found = plan.search_rows(compiler, program, shards, most=most_compiles) if search_batch else None
        if found is not None and found.largest:
            program = program.replace(rows=found.largest * shards)
        outcome = compiler.compile(program)
    if as_json:
        typer.echo(json.dumps(tables.plan_values(program, place, outcome, found), indent=2))
    else:
        typer.echo(tables.plan_text(program, place, outcome, found))
    if not outcome.fits:
        raise typer.Exit(1)


def _plan_by_model(
    program: "Program",
    place: "Topology",
    *,
    compare: bool,
    this_mesh: bool,
    search_batch: bool,
    as_json: bool,
) -> None:
    """Plan for GPUs by formulas, where their compiler is not installed."""
    from alpacare_jax import plan
    from alpacare_jax.plan import model, request, tables

    if compare:
        _show_ways(plan.compare(program, place, None, most=0, this_mesh=this_mesh), place, as_json)
        return
    if search_batch:
        unit = request.batch_shards(program.config, place) * program.config.train.microbatches
        program = program.replace(rows=model.most_rows(program, place, unit))
    found = model.model_step(program, place)
    if as_json:
        values = found.to_dict(program.rows, program.seq_len, place.devices, place.chip.bf16_flops)
        head = {"topology": place.name, "rows": program.rows, "uneven": tables.uneven(program, place)}
        typer.echo(json.dumps(head | {"model": values}, indent=2))
    else:
        typer.echo(tables.modelled_text(program, place, found))
    if not found.fits:
        raise typer.Exit(1)


def _show_ways(ways: "list[Way]", place: "Topology", as_json: bool) -> None:
    from alpacare_jax import plan
    from alpacare_jax.plan import tables

    best = plan.choose(ways)
    if as_json:
        values = {
            "topology": place.name,
            "ways": [way.to_dict(place) for way in ways],
            "choice": best.to_dict(place) if best else None,
        }
        typer.echo(json.dumps(values, indent=2))
    else:
        typer.echo(tables.ways_text(ways, place))
    if best is None:
        raise typer.Exit(1)
