"""The last look before a run takes a device's memory: its step is compiled first, and what does not fit is refused."""

import logging
from typing import Any, cast

import jax
import jax.numpy as jnp

from alpacare_jax import sharding
from alpacare_jax.adapters import bytes_a_device
from alpacare_jax.errors import ConfigError
from alpacare_jax.plan.chips import GIB
from alpacare_jax.plan.worker import is_too_large, too_large
from alpacare_jax.train import Step, Stepper

logger = logging.getLogger("alpacare.train")

REMEDY = (
    "more train.microbatches, a stronger compute.remat (full, offload), more devices along mesh.fsdp, or a smaller "
    "batch; `alpacare plan --config ... --search-batch` finds the largest"
)


def memory_limit(device: jax.Device) -> int | None:
    """Return the bytes a program may use on a device; None where it does not say, as a CPU."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return (statistics or {}).get("bytes_limit")


def check_state_fits(stepper: Stepper, rows: int, limit: int | None) -> None:
    """Check that a device has room for its part of a run's state, which no compiler is needed to know.

    Args:
        stepper: The run's step.
        rows: Rows of a batch over all devices, for the message.
        limit: Bytes that a program may use on one device; nothing is checked where that is not known.

    Raises:
        ConfigError: The state does not fit.
    """
    if limit is not None and (needed := bytes_a_device(stepper.abstract_state())) > limit:
        raise _refusal(needed, limit, rows)


def compile_fitting(stepper: Stepper, rows: int, seq_len: int, limit: int | None) -> Step:
    """Compile a run's step and compare what it needs with what a device has.

    Args:
        stepper: The run's step.
        rows: Rows of a batch over all devices.
        seq_len: Tokens of a row.
        limit: Bytes that a program may use on one device; nothing is compared where that is not known.

    Returns:
        The compiled step.

    Raises:
        ConfigError: The step does not fit: how much it needs, what there is, what to change.
    """
    mesh = stepper.mesh
    column = jax.ShapeDtypeStruct((rows, seq_len), jnp.int32, sharding=sharding.batch_sharding(mesh))
    batch = dict.fromkeys(("tokens", "segment_ids", "positions", "loss_mask"), column)
    step = cast(Any, stepper.compile_step())
    with sharding.use_mesh(mesh):
        lowered = step.lower(stepper.abstract_state(), batch)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if limit is None or not is_too_large(error):
            raise
        raise _refusal(too_large(str(error), limit, 0.0).needed, limit, rows) from None
    if limit is not None:
        _check_needed(compiled, limit, rows)
    return compiled


def _check_needed(compiled: jax.stages.Compiled, limit: int, rows: int) -> None:
    found = compiled.memory_analysis()
    if found is None:
        return
    needed = (
        found.argument_size_in_bytes
        + found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )
    if needed > limit:
        raise _refusal(needed, limit, rows)
    logger.info("memory    %.2f of %.2f GiB per device, by the compiler", needed / GIB, limit / GIB)


def _refusal(needed: int, limit: int, rows: int) -> ConfigError:
    found = f"{needed / GIB:.2f} GiB per device" if needed else "more than that"
    return ConfigError(
        "the step does not fit the devices' memory",
        where=f"a batch of {rows} rows",
        found=found,
        expected=f"at most {limit / GIB:.2f} GiB",
        remedy=REMEDY,
    )
