"""``alpacare launch``: any verb on many devices, here or on a cluster."""

import shlex
import subprocess
import sys
from typing import Annotated

import typer

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}

Verb = Annotated[
    list[str],
    typer.Argument(metavar="-- VERB ARGS...", help="The verb and its own arguments, after two dashes."),
]
Submit = Annotated[bool, typer.Option("--submit", help="Run it. Without this it is only printed.")]


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
    processes: Annotated[int, typer.Option(help="Processes to start, each a host of its own to jax.")] = 2,
    devices_per_process: Annotated[
        int,
        typer.Option(
            help="Simulated CPU devices of each process; 0 leaves the machine's devices as they are."
        ),
    ] = 1,
) -> None:
    """Start several real processes of one verb here, joined over loopback; lines show which process spoke."""
    from alpacare_jax.launch.local import run_processes

    command = [sys.executable, "-P", "-m", "alpacare_jax"]  # -P: no module is taken from the current folder
    status = run_processes(
        [*command, *check_verb(verb)],
        processes=processes,
        devices_per_process=devices_per_process or None,
    )
    raise typer.Exit(status)


def tpu_vm(
    verb: Verb,
    name: Annotated[str, typer.Option(help="Name of the TPU VM.")],
    zone: Annotated[str, typer.Option(help="Its zone, for example us-central2-b.")],
    project: Annotated[str, typer.Option(help="Its project; empty for gcloud's default.")] = "",
    folder: Annotated[
        str, typer.Option(help="The project's folder on the workers, with its environment in .venv.")
    ] = "alpacare-jax",
    submit: Submit = False,
) -> None:
    """Run a verb on every worker of a TPU VM slice, through gcloud."""
    from alpacare_jax.launch import tpu_vm as target

    command = target.command(target.TpuVm(name, zone, project, folder), check_verb(verb))
    if not submit:
        typer.echo(shlex.join(command))
        return
    raise typer.Exit(run_tool(command))


def slurm(
    verb: Verb,
    nodes: Annotated[int, typer.Option(help="Nodes to ask for.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs of each node.")] = 8,
    time_limit: Annotated[str, typer.Option(help="Longest run time, hours:minutes:seconds.")] = "24:00:00",
    partition: Annotated[str, typer.Option(help="Partition; empty for the cluster's default.")] = "",
    job_name: Annotated[str, typer.Option(help="Name of the job.")] = "alpacare",
    alpacare: Annotated[
        str,
        typer.Option(help="The program on the nodes, for example /home/me/alpacare-jax/.venv/bin/alpacare."),
    ] = "alpacare",
    submit: Submit = False,
) -> None:
    """Run a verb on the GPU nodes of a Slurm cluster, one process a node."""
    from alpacare_jax.launch import slurm as target

    job = target.SlurmJob(nodes, gpus_per_node, time_limit, partition, job_name, alpacare)
    script = target.script(job, check_verb(verb))
    if not submit:
        typer.echo(script, nl=False)
        return
    raise typer.Exit(run_tool(["sbatch"], text=script))


def check_verb(arguments: list[str]) -> list[str]:
    """See that the words after the dashes begin with a verb that can run elsewhere.

    Args:
        arguments: Verb and arguments.

    Returns:
        The same, unchanged.

    Raises:
        ConfigError: No such verb, or ``launch`` itself.
    """
    from alpacare_jax.cli.verbs import VERBS
    from alpacare_jax.errors import ConfigError, did_you_mean

    verbs = [verb for verb in VERBS if verb != "launch"]
    if arguments[0] not in verbs:
        raise ConfigError(
            "there is no such verb to launch",
            where="the words after --",
            found=arguments[0],
            expected=", ".join(verbs),
            remedy=did_you_mean(arguments[0], verbs),
        )
    return arguments


def run_tool(command: list[str], *, text: str | None = None) -> int:
    """Run a cluster's own program in the foreground.

    Args:
        command: Program and arguments.
        text: What it reads from its standard input; None leaves it the terminal's.

    Returns:
        Its exit status.

    Raises:
        ServiceError: The program is not installed.
    """
    from alpacare_jax.errors import ServiceError

    try:
        return subprocess.run(command, input=text, text=True, check=False).returncode
    except FileNotFoundError:
        raise ServiceError(
            f"the program {command[0]} is not here",
            where="PATH",
            remedy=f"install it, or run without --submit and take what is printed to where {command[0]} is",
        ) from None
