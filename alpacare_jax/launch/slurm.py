"""A verb on the GPU nodes of a Slurm cluster: one task a node, each with all of its node's GPUs."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from alpacare_jax.distributed import DISTRIBUTED
from alpacare_jax.errors import ConfigError


@dataclass(frozen=True)
class SlurmJob:
    """What the job asks the cluster for.

    Args:
        nodes: Nodes.
        gpus_per_node: GPUs of each node.
        time_limit: Longest run time in Slurm's form, ``hours:minutes:seconds``.
        partition: Partition; empty for the cluster's default.
        name: Name of the job.
        alpacare: Program to run on the nodes, for example the path of one inside an environment.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    time_limit: str = "24:00:00"
    partition: str = ""
    name: str = "alpacare"
    alpacare: str = "alpacare"

    def __post_init__(self) -> None:
        for key, value in (("nodes", self.nodes), ("gpus-per-node", self.gpus_per_node)):
            if value < 1:
                raise ConfigError(
                    "a Slurm job needs at least one", where=f"--{key}", found=value, expected="1 or more"
                )


def options(job: SlurmJob) -> list[str]:
    """List the job's options for ``sbatch``.

    Args:
        job: What to ask for.

    Returns:
        Long options, each one word.
    """
    partition = [f"--partition={job.partition}"] if job.partition else []
    return [
        f"--job-name={job.name}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        f"--gpus-per-node={job.gpus_per_node}",
        f"--time={job.time_limit}",
        *partition,
    ]


def script(job: SlurmJob, arguments: Sequence[str]) -> str:
    """Write the batch script.

    Args:
        job: What to ask for.
        arguments: The verb and its arguments.

    Returns:
        The whole script, for ``sbatch`` to read from its standard input or from a file.
    """
    directives = "\n".join(f"#SBATCH {option}" for option in options(job))
    return f"""#!/usr/bin/env bash
{directives}
#SBATCH --exclusive
set -euo pipefail

# The processes find each other through Slurm's own variables.
export {DISTRIBUTED}=1
# One failed task ends the job; the others would wait for it in a collective.
srun --kill-on-bad-exit=1 --label {shlex.quote(job.alpacare)} {shlex.join(arguments)}
"""
