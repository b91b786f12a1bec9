"""``alpacare plan``: a configuration and the name of devices -> what fits on them and how fast it would be."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

SETTINGS = "alpacare_jax.train:RunConfig"


def _fetch(wanted: bool) -> None:
    """Fetch the compiler for GPUs and end."""
    if wanted:
        from alpacare_jax.plan import gpus

        typer.echo(f"the GPU compiler is installed in {gpus.fetch()}")
        raise typer.Exit


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as mesh.tensor=2 mesh.fsdp=8."),
]
Fetch = Annotated[
    bool,
    Option("--fetch-gpu-compiler", callback=_fetch, is_eager=True, help="Fetch XLA's GPU compiler (200 MB)."),
]


def command(
    config: Annotated[Path, Option(help="The run's configuration: a YAML file, see configs/train.")],
    overrides: Overrides = None,
    topology: Annotated[
        str | None,
        Option(help="Devices: v5e:4x4, v5e-16, 'v5e:4x4 x2', 'h100-80gb x8'. Default: the configuration's."),
    ] = None,
    rows: Annotated[int | None, Option(min=1, help="Rows of a batch over all devices.")] = None,
    seq_len: Annotated[int | None, Option(min=2, help="Tokens of a row.")] = None,
    layers: Annotated[
        int | None, Option(min=1, help="Plan a model with only this many layers, for a quick look.")
    ] = None,
    search_batch: Annotated[
        bool, Option("--search-batch", help="Find the most rows per device that fit.")
    ] = False,
    compare: Annotated[
        bool,
        Option(
            "--compare", help="Compare meshes, microbatches, remat policies and layer_rows for this batch."
        ),
    ] = False,
    this_mesh: Annotated[
        bool, Option("--this-mesh", help="With --compare: the configuration's mesh only, slow ways too.")
    ] = False,
    most_compiles: Annotated[int, Option(min=1, help="Limit for --search-batch and --compare.")] = 10,
    host_gib: Annotated[
        float | None,
        Option(
            "--host-gib", min=1.0, help="Memory of one host in GiB, if it differs from the published figure."
        ),
    ] = None,
    whole: Annotated[
        bool, Option("--whole", help="Generate machine code too: several times longer, the same figures.")
    ] = False,
    cached: Annotated[bool, Option("--cache/--no-cache", help="Cache compilation results.")] = True,
    fetch_gpu_compiler: Fetch = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compile a run's training step for TPUs or GPUs you do not have: memory, fit and estimated speed.

    The real compiler of TPUs or GPUs runs on this machine's CPU; no weights and no data are read. If the one for
    GPUs is not installed, the same figures come from formulas and are marked so.
    """
    from alpacare_jax.plan import planning

    options: dict[str, Any] = {
        "topology": topology,
        "rows": rows,
        "seq_len": seq_len,
        "layers": layers,
        "host_gib": host_gib,
        "max_compiles": most_compiles,
        "whole": whole,
        "cache": cached,
        "say": lambda line: typer.echo(line, err=True),
    }
    found = (
        planning.compare_plans(config, overrides or [], this_mesh=this_mesh, **options)
        if compare
        else planning.plan(config, overrides or [], search_batch=search_batch, **options)
    )
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else found)
    if not found.fits:
        raise typer.Exit(1)
