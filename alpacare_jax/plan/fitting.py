"""The last look before a run takes a device's memory: its step is compiled first, and what does not fit is refused."""

import logging

import jax
import jax.numpy as jnp

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.plan.chips import GIB
from alpacare_jax.plan.worker import is_too_large, too_large
from alpacare_jax.train import Stepper

logger = logging.getLogger("alpacare.train")

REMEDY = (
    "more train.microbatches, a stronger compute.remat (full, offload), more devices along mesh.fsdp, or a smaller "
    "batch; `alpacare plan --config ... --search-batch` finds the largest"
)


def memory_limit(device: jax.Device) -> int | None:
    """Return the bytes a program may use on a device; None where it does not say, as a CPU."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return (statistics or {}).get("bytes_limit")


def check_fits(stepper: Stepper, rows: int, seq_len: int, limit: int | None) -> None:
    """Compile a run's step and compare what it needs with what a device has; where the limit is not known, do nothing.

    The program is kept by jax's cache, so that the run's own compilation right after takes no time.

    Args:
        stepper: The run's step.
        rows: Rows of a batch over all devices.
        seq_len: Tokens of a row.
        limit: Bytes that a program may use on one device.

    Raises:
        ConfigError: The step does not fit: how much it needs, what there is, what to change.
    """
    if limit is None:
        return
    mesh = stepper.mesh
    column = jax.ShapeDtypeStruct((rows, seq_len), jnp.int32, sharding=sharding.batch_sharding(mesh))
    batch = dict.fromkeys(("tokens", "segment_ids", "positions", "loss_mask"), column)
    step = stepper.compile_step()
    with sharding.use_mesh(mesh):
        lowered = step.lower(stepper.abstract_state(), batch)  # type: ignore[attr-defined]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_too_large(error):
            raise
        raise _refusal(too_large(str(error), limit, 0.0).needed, limit, rows) from None
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
