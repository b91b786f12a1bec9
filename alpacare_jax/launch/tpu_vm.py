"""A verb on every worker of a Google Cloud TPU VM slice, through ``gcloud``'s own ssh."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from alpacare_jax.distributed import DISTRIBUTED


@dataclass(frozen=True)
class TpuVm:
    """Where the verb runs.

    Args:
        name: Name of the TPU VM.
        zone: Its zone, for example ``us-central2-b``.
        project: Its project; empty for gcloud's own default.
        folder: The project's folder on the workers, in the home folder, with its environment in ``.venv``.
    """

    name: str
    zone: str
    project: str = ""
    folder: str = "alpacare-jax"


def command(vm: TpuVm, arguments: Sequence[str]) -> list[str]:
    """Build the one command that runs the verb on all workers and waits for them.

    Args:
        vm: Where.
        arguments: The verb and its arguments.

    Returns:
        Program and arguments, ready for a process or, quoted, for a shell.

    Example:
        >>> command(TpuVm("pod", "us-central2-b"), ["doctor"])[-1]
        '--command=cd alpacare-jax && ALPACARE_DISTRIBUTED=1 .venv/bin/alpacare doctor'
    """
    remote = f"cd {shlex.quote(vm.folder)} && {DISTRIBUTED}=1 .venv/bin/alpacare {shlex.join(arguments)}"
    project = [f"--project={vm.project}"] if vm.project else []
    where = [vm.name, f"--zone={vm.zone}", *project]
    return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", *where, "--worker=all", f"--command={remote}"]
