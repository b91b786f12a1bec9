"""Joining the processes of one run: started from the environment, once, before any device is touched.

Three ways to say that this process is one of several, tried in this order:

1. ``ALPACARE_COORDINATOR`` (``host:port`` of process 0), ``ALPACARE_NUM_PROCESSES`` and
   ``ALPACARE_PROCESS_ID``, all three: what ``alpacare launch local`` sets, and any other starter can set.
2. ``ALPACARE_DISTRIBUTED=1``: jax reads the cluster itself (TPU pod slices, Slurm, Open MPI, Kubernetes).
   The scripts in ``launch/`` set it.
3. Neither: the run has only this process.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from alpacare_jax import flags
from alpacare_jax.errors import ConfigError, ServiceError

logger = logging.getLogger(__name__)

COORDINATOR = "ALPACARE_COORDINATOR"
NUM_PROCESSES = "ALPACARE_NUM_PROCESSES"
PROCESS_ID = "ALPACARE_PROCESS_ID"
DISTRIBUTED = "ALPACARE_DISTRIBUTED"

WAIT = "ALPACARE_WAIT_S"
WAIT_S = 300
"""Seconds a process waits for the others to appear, unless ``ALPACARE_WAIT_S`` says otherwise."""


@dataclass(frozen=True)
class Membership:
    """How this process belongs to a run.

    Args:
        coordinator: ``host:port`` of process 0; None leaves it to jax's own cluster detection.
        num_processes: Processes in the run; None with cluster detection.
        process_id: This process's number, 0 to ``num_processes - 1``; None with cluster detection.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def membership(environment: Mapping[str, str]) -> Membership | None:
    """Read from the environment whether this process is one of several.

    Args:
        environment: Variables, as in ``os.environ``.

    Returns:
        The membership, or None where the run has only this process.

    Raises:
        ConfigError: Only some of the three variables are set, or one of them cannot be right.

    Example:
        >>> membership({"ALPACARE_COORDINATOR": "10.0.0.1:8476", "ALPACARE_NUM_PROCESSES": "4",
        ...             "ALPACARE_PROCESS_ID": "3"})
        Membership(coordinator='10.0.0.1:8476', num_processes=4, process_id=3)
        >>> membership({}) is None
        True
    """
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    given = [name for name in names if environment.get(name)]
    if given and len(given) < len(names):
        raise ConfigError(
            "a run of several processes is only half described",
            where="the environment",
            found=", ".join(given),
            expected=", ".join(names),
            remedy="set all three, or none of them",
        )
    if given:
        count, index = (_whole_number(environment, name) for name in names[1:])
        if count < 1 or not 0 <= index < count:
            raise ConfigError(
                "the process number does not lie within the number of processes",
                where="the environment",
                found=f"{PROCESS_ID}={index}, {NUM_PROCESSES}={count}",
                expected="a process number from 0 to one less than the number of processes",
            )
        host, colon, port = environment[COORDINATOR].rpartition(":")
        if not (host and colon and port.isdigit()):
            raise ConfigError(
                "the coordinator has no usable address",
                where=COORDINATOR,
                found=environment[COORDINATOR],
                expected="host:port of process 0, for example 10.0.0.1:8476",
            )
        return Membership(environment[COORDINATOR], count, index)
    switch = environment.get(DISTRIBUTED, "")
    if switch not in ("", "0", "1"):
        raise ConfigError(
            "a switch has an unknown value", where=DISTRIBUTED, found=switch, expected="1, 0 or unset"
        )
    return Membership() if switch == "1" else None


def initialize_from_environment(*, distributed: bool = False) -> bool:
    """Join the other processes of this run, if the environment names any.

    To be called before anything in this process uses a device. Every call after the first does nothing. Several
    CPU devices, also of one process, get the flags and threads without which they may wait for one another forever.

    Args:
        distributed: Ask for cluster detection as ``ALPACARE_DISTRIBUTED=1`` does.

    Returns:
        True where this process is now one of several.

    Raises:
        ConfigError: The environment describes no possible run.
        ServiceError: The other processes did not appear in time, or no cluster was found.
    """
    import jax

    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    if flags.expected_platform() == "cpu":  # flags for GPUs are chosen for training, where they are set
        flags.set_flags()
    member = membership(os.environ)
    if member is None and distributed:
        member = Membership()
    if member is None:
        return False
    # The default of today's jax, said here because a run of several CPU processes cannot do without it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    wait_s = _whole_number(os.environ, WAIT) if os.environ.get(WAIT) else WAIT_S
    if member.coordinator and member.process_id:
        _await_coordinator(member.coordinator, wait_s)
    try:
        jax.distributed.initialize(
            member.coordinator,
            member.num_processes,
            member.process_id,
            local_device_ids=None if member.coordinator else slurm_devices(os.environ),
            # A run that names its coordinator may run inside a cluster's job that was not started for it.
            cluster_detection_method="deactivate" if member.coordinator else None,
            initialization_timeout=wait_s,
        )
    except (RuntimeError, ValueError) as error:
        raise _not_together(
            member.coordinator or "cluster detection", str(error).splitlines()[0], wait_s
        ) from error
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # A program from the cache may run its collectives in another order than the same program just compiled. With
        # one process on either, both wait for ever (seen with jax 0.12.0).
        jax.config.update("jax_enable_compilation_cache", False)
    logger.info("process %d of %d joined the run", jax.process_index(), jax.process_count())
    return jax.process_count() > 1


def leaves_to_first(environment: Mapping[str, str]) -> bool:
    """Tell whether this process leaves a verb that needs one process to the first of a run.

    Converting a model writes one folder, from one process. Launched as several, the first does it and the others end.

    Args:
        environment: Variables, as in ``os.environ``.

    Example:
        >>> leaves_to_first({}), leaves_to_first({"ALPACARE_DISTRIBUTED": "1", "SLURM_PROCID": "2"})
        (False, True)
    """
    member = membership(environment)
    if member is None:
        return False
    if member.process_id is not None:
        return member.process_id != 0
    return (
        next((environment[name] for name in ("SLURM_PROCID", "TPU_WORKER_ID") if name in environment), "0")
        != "0"
    )


def _await_coordinator(address: str, wait_s: float) -> None:
    """Wait until process 0 listens; jax would end this process without a readable error."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise _not_together(address, f"process 0 cannot be reached: {error}", wait_s) from error
        time.sleep(0.1)


def _not_together(where: str, found: str, wait_s: float) -> ServiceError:
    return ServiceError(
        "the processes of this run did not come together",
        where=where,
        found=found,
        expected=f"all processes within {wait_s:.0f} s",
        remedy=f"see that every process was started, with the same {COORDINATOR}, and that its port is free "
        f"and can be reached; {WAIT} gives them more seconds; unset {COORDINATOR} and {DISTRIBUTED} to run "
        "alone",
    )


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Say which GPUs belong to this process where Slurm runs one task a node.

    Left to itself, jax gives the first task of a node the first GPU and leaves the node's others idle.

    Args:
        environment: Variables, as in ``os.environ``.

    Returns:
        The numbers of all GPUs of this node; None where jax's own rule (one GPU a task) is right.

    Example:
        >>> slurm_devices({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_GPUS_ON_NODE": "8"})
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0]
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if tasks != "1" or not gpus.isdigit() or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    return list(range(int(gpus)))


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ConfigError(
            "a whole number was expected", where=name, found=environment[name], expected="for example 2"
        ) from None
