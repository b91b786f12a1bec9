"""A verb on a cluster: on every worker of a TPU VM slice through ``gcloud``, or on the GPU nodes of a Slurm job."""

import shlex
import subprocess
from collections.abc import Sequence

from alpacare_jax.distributed import DISTRIBUTED
from alpacare_jax.errors import ConfigError, ServiceError

SLURM_SCRIPT = """#!/usr/bin/env bash
{directives}
#SBATCH --exclusive
set -euo pipefail

# The processes find each other through Slurm's own variables.
export {switch}=1
# One failed task ends the job; the others would wait for it in a collective.
srun --kill-on-bad-exit=1 --label {command}
"""


def tpu_vm_command(
    arguments: Sequence[str], *, name: str, zone: str, project: str = "", folder: str = "alpacare-jax"
) -> list[str]:
    """Return the one command that runs a verb on all workers of a TPU VM slice and waits for them.

    Args:
        arguments: The verb and its arguments.
        name: Name of the TPU VM.
        zone: Its zone, for example ``us-central2-b``.
        project: Its project; empty for gcloud's own default.
        folder: The project's folder on the workers, in the home folder, with its environment in ``.venv``.

    Returns:
        Program and arguments, ready for a process or, quoted, for a shell.

    Example:
        >>> tpu_vm_command(["doctor"], name="pod", zone="us-central2-b")[-1]
        '--command=cd alpacare-jax && ALPACARE_DISTRIBUTED=1 .venv/bin/alpacare doctor'
    """
    remote = f"cd {shlex.quote(folder)} && {DISTRIBUTED}=1 .venv/bin/alpacare {shlex.join(arguments)}"
    where = [name, f"--zone={zone}", *([f"--project={project}"] if project else [])]
    return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", *where, "--worker=all", f"--command={remote}"]


def slurm_script(
    arguments: Sequence[str],
    *,
    nodes: int = 1,
    gpus_per_node: int = 8,
    time_limit: str = "24:00:00",
    partition: str = "",
    job_name: str = "alpacare",
    alpacare: str = "alpacare",
) -> str:
    """Return a batch script that runs a verb on GPU nodes: one task per node, each with all of its node's GPUs.

    Args:
        arguments: The verb and its arguments.
        nodes: Nodes.
        gpus_per_node: GPUs of each node.
        time_limit: Longest run time in Slurm's form, ``hours:minutes:seconds``.
        partition: Partition; empty for the cluster's default.
        job_name: Name of the job.
        alpacare: Program to run on the nodes, for example the path of one inside an environment.

    Raises:
        ConfigError: A count below one.
    """
    for key, count in (("--nodes", nodes), ("--gpus-per-node", gpus_per_node)):
        if count < 1:
            raise ConfigError(
                "a Slurm job needs at least one node and one GPU per node", where=key, found=count
            )
    options = [f"job-name={job_name}", f"nodes={nodes}", "ntasks-per-node=1"]
    options += [f"gpus-per-node={gpus_per_node}", f"time={time_limit}"]
    options += [f"partition={partition}"] if partition else []
    return SLURM_SCRIPT.format(
        directives="\n".join(f"#SBATCH --{option}" for option in options),
        switch=DISTRIBUTED,
        command=shlex.join([alpacare, *arguments]),
    )


def run_tool(command: Sequence[str], *, text: str | None = None) -> int:
    """Run a cluster's own program in the foreground.

    Args:
        command: Program and arguments.
        text: What it reads from its standard input; None leaves it the terminal's.

    Returns:
        Its exit status.

    Raises:
        ServiceError: The program is not installed.
    """
    try:
        return subprocess.run(command, input=text, text=True, check=False).returncode
    except FileNotFoundError:
        raise ServiceError(
            f"{command[0]} is not installed",
            where="PATH",
            remedy=f"install it, or run without --submit and use the printed command where {command[0]} is installed",
        ) from None
