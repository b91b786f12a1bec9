"""Reading from the environment whether a process is one of several."""

import pytest

from alpacare_jax.distributed import (
    Membership,
    initialize_from_environment,
    leaves_to_first,
    membership,
    slurm_devices,
)
from alpacare_jax.errors import ConfigError
from alpacare_jax.launch.local import environment_of

FULL = {"ALPACARE_COORDINATOR": "10.0.0.1:8476", "ALPACARE_NUM_PROCESSES": "4", "ALPACARE_PROCESS_ID": "3"}


def test_three_variables_name_the_run() -> None:
    assert membership(FULL) == Membership("10.0.0.1:8476", 4, 3)
    assert membership({**FULL, "ALPACARE_DISTRIBUTED": "1"}) == Membership("10.0.0.1:8476", 4, 3)


def test_the_switch_leaves_it_to_the_cluster() -> None:
    assert membership({"ALPACARE_DISTRIBUTED": "1"}) == Membership()
    assert membership({"ALPACARE_DISTRIBUTED": "0"}) is None
    assert membership({}) is None


@pytest.mark.parametrize("missing", list(FULL))
def test_half_a_description_is_refused_with_what_is_missing(missing: str) -> None:
    with pytest.raises(ConfigError) as failure:
        membership({name: value for name, value in FULL.items() if name != missing})
    assert missing in str(failure.value.expected)
    assert missing not in str(failure.value.found)


@pytest.mark.parametrize(
    "change",
    [
        {"ALPACARE_PROCESS_ID": "4"},
        {"ALPACARE_PROCESS_ID": "-1"},
        {"ALPACARE_PROCESS_ID": "one"},
        {"ALPACARE_NUM_PROCESSES": "0"},
        {"ALPACARE_COORDINATOR": "10.0.0.1"},
        {"ALPACARE_COORDINATOR": ":8476"},
        {"ALPACARE_COORDINATOR": "host:http"},
    ],
)
def test_values_that_cannot_be_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        membership({**FULL, **change})


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown value"):
        membership({"ALPACARE_DISTRIBUTED": "yes"})


def test_one_slurm_task_a_node_owns_all_gpus_of_its_node() -> None:
    node = {"SLURM_GPUS_ON_NODE": "4"}
    assert slurm_devices({**node, "SLURM_STEP_TASKS_PER_NODE": "1"}) == [0, 1, 2, 3]
    assert slurm_devices({**node, "SLURM_STEP_TASKS_PER_NODE": "1(x16)"}) == [0, 1, 2, 3]
    assert slurm_devices({**node, "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}) is None
    assert slurm_devices({**node, "SLURM_STEP_TASKS_PER_NODE": "1", "JAX_LOCAL_DEVICE_IDS": "2"}) is None
    assert slurm_devices({"SLURM_STEP_TASKS_PER_NODE": "1"}) is None
    assert slurm_devices({}) is None


def test_alone_nothing_is_joined() -> None:
    assert initialize_from_environment() is False


@pytest.mark.parametrize(
    ("environment", "leaves"),
    [
        ({}, False),
        ({"SLURM_PROCID": "1"}, False),  # one of several jobs, each a run of its own
        ({"ALPACARE_DISTRIBUTED": "1"}, False),
        ({"ALPACARE_DISTRIBUTED": "1", "SLURM_PROCID": "0"}, False),
        ({"ALPACARE_DISTRIBUTED": "1", "SLURM_PROCID": "3"}, True),
        ({"ALPACARE_DISTRIBUTED": "1", "TPU_WORKER_ID": "1"}, True),
        (environment_of(0, processes=2, devices_per_process=1, port=1, base={}), False),
        (environment_of(1, processes=2, devices_per_process=1, port=1, base={}), True),
    ],
)
def test_what_needs_one_process_is_left_to_the_first(environment: dict[str, str], leaves: bool) -> None:
    assert leaves_to_first(environment) == leaves
