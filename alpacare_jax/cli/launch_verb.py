"""``alpacare launch``: any verb on many devices, here or on a cluster."""

import shlex
import sys
from typing import Annotated

import typer
from typer import Option

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _launchable(verb: list[str]) -> list[str]:
    from alpacare_jax.cli.verbs import VERBS
    from alpacare_jax.launch import check_verb

    return check_verb(verb, [name for name in VERBS if name != "launch"])


Verb = Annotated[
    list[str],
    typer.Argument(
        metavar="-- VERB ARGS...",
        help="The verb and its own arguments, after two dashes.",
        callback=_launchable,
    ),
]
Submit = Annotated[bool, Option("--submit", help="Run it. Without this it is only printed.")]


def register(app: typer.Typer) -> None:
    """Add ``launch`` and its targets to the command."""
    launch = typer.Typer(
        help="Run any verb as several processes here, or print or submit it for a TPU VM slice or Slurm.",
        no_args_is_help=True,
    )
    launch.command("local", context_settings=PASS_THROUGH)(local)
    launch.command("tpu-vm", context_settings=PASS_THROUGH)(tpu_vm)
    launch.command("slurm", context_settings=PASS_THROUGH)(slurm)
    app.add_typer(launch, name="launch")


def local(
    verb: Verb,
    processes: Annotated[int, Option(help="Processes to start; jax treats each as a host.")] = 2,
    devices_per_process: Annotated[
        int, Option(help="Simulated CPU devices of each process; 0 uses the machine's own devices.")
    ] = 1,
) -> None:
    """Run a verb as several processes on this machine, joined over loopback; output lines show the process number."""
    from alpacare_jax.launch.local import run_processes

    command = [sys.executable, "-P", "-m", "alpacare_jax"]  # -P: no module is taken from the current folder
    devices = devices_per_process or None
    raise typer.Exit(run_processes([*command, *verb], processes=processes, devices_per_process=devices))


def tpu_vm(
    verb: Verb,
    name: Annotated[str, Option(help="Name of the TPU VM.")],
    zone: Annotated[str, Option(help="Its zone, for example us-central2-b.")],
    project: Annotated[str, Option(help="Its project; empty for gcloud's default.")] = "",
    folder: Annotated[
        str, Option(help="The project's folder on the workers, with its environment in .venv.")
    ] = "alpacare-jax",
    submit: Submit = False,
) -> None:
    """Run a verb on every worker of a TPU VM slice, through gcloud."""
    from alpacare_jax.launch.clusters import run_tool, tpu_vm_command

    command = tpu_vm_command(verb, name=name, zone=zone, project=project, folder=folder)
    if submit:
        raise typer.Exit(run_tool(command))
    typer.echo(shlex.join(command))


def slurm(
    verb: Verb,
    nodes: Annotated[int, Option(help="Nodes to ask for.")] = 1,
    gpus_per_node: Annotated[int, Option(help="GPUs of each node.")] = 8,
    time_limit: Annotated[str, Option(help="Longest run time, hours:minutes:seconds.")] = "24:00:00",
    partition: Annotated[str, Option(help="Partition; empty for the cluster's default.")] = "",
    job_name: Annotated[str, Option(help="Name of the job.")] = "alpacare",
    alpacare: Annotated[
        str, Option(help="The program on the nodes, for example /home/me/alpacare-jax/.venv/bin/alpacare.")
    ] = "alpacare",
    submit: Submit = False,
) -> None:
    """Run a verb on the GPU nodes of a Slurm cluster, one process per node."""
    from alpacare_jax.launch.clusters import run_tool, slurm_script

    script = slurm_script(
        verb,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        time_limit=time_limit,
        partition=partition,
        job_name=job_name,
        alpacare=alpacare,
    )
    if submit:
        raise typer.Exit(run_tool(["sbatch"], text=script))
    typer.echo(script, nl=False)
