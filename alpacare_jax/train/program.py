"""Compiles the step of a run in the background, and refuses a run that does not fit the devices' memory."""

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future

import jax

from alpacare_jax import compilation, sharding
from alpacare_jax.adapters import bytes_a_device
from alpacare_jax.errors import ConfigError
from alpacare_jax.hardware.chips import GIB
from alpacare_jax.startup import StartupTimer
from alpacare_jax.train.settings import Schedule
from alpacare_jax.train.step import StepFunction, StepProgram, TrainStep

logger = logging.getLogger("alpacare.train")

REMEDY = (
    "more train.microbatches, a stronger compute.remat (full, offload), more devices along mesh.fsdp, or a smaller "
    "batch; `alpacare plan --config ... --search-batch` finds the largest"
)


def begin_to_compile(
    train_step: TrainStep, schedule: Schedule, row_length: int, timer: StartupTimer, *, resuming: bool
) -> Callable[[], StepFunction]:
    """Begin to compile a run's step, or to read it from the cache, beside what else a start does.

    Nothing goes on beside it where that could do harm: several processes must ask their devices for the same things
    in the same order; on a GPU the compiler times its choices; and where devices say what they hold, a step that does
    not fit is refused before a checkpoint is read onto them.

    Args:
        train_step: The run's step.
        schedule: The run's size.
        row_length: Tokens of a row.
        timer: Takes the time it took.
        resuming: Whether the run goes on from a checkpoint.

    Returns:
        Waits for the step and gives it; raises what the compiler or the check of its memory raised.

    Raises:
        ConfigError: The state, or the step where it was not left to go on beside, does not fit the devices.
    """
    device = train_step.mesh.local_devices[0]
    limit, rows = memory_limit(device), schedule.batch_rows
    check_state_fits(train_step, rows, limit)
    beside = jax.process_count() == 1 and device.platform != "gpu" and not (resuming and limit is not None)

    def compiled() -> StepFunction:
        with timer.time("program", beside=beside) as phase, compilation.watch() as programs:
            step = compile_fitting(train_step, rows, row_length, limit)
        phase.note = "from the cache" if programs == ["kept"] else "compiled"
        return step

    if not beside:
        step = compiled()
        return lambda: step
    future: Future[StepFunction] = Future()

    def compile_beside() -> None:
        try:
            future.set_result(compiled())
        except BaseException as error:  # noqa: BLE001  # raised where the step is waited for
            future.set_exception(error)

    # A compiler cannot be stopped: a process that ends early does not wait for it (alpacare_jax/cli/ending.py).
    threading.Thread(target=compile_beside, name=compilation.THREAD, daemon=True).start()
    return future.result


def memory_limit(device: jax.Device) -> int | None:
    """Return the bytes a program may use on a device; None where the device does not report it, as a CPU."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return (statistics or {}).get("bytes_limit")


def check_state_fits(train_step: TrainStep, rows: int, limit: int | None) -> None:
    """Check that a device has room for its part of a run's state, which no compiler is needed to know.

    Args:
        train_step: The run's step.
        rows: Rows of a batch over all devices, for the message.
        limit: Bytes that a program may use on one device; nothing is checked where that is not known.

    Raises:
        ConfigError: The state does not fit.
    """
    if limit is not None and (needed := bytes_a_device(train_step.abstract_state())) > limit:
        raise _refusal(needed, limit, rows)


def compile_fitting(train_step: TrainStep, rows: int, seq_len: int, limit: int | None) -> StepFunction:
    """Compile a run's step and compare what it needs with what a device has.

    Args:
        train_step: The run's step.
        rows: Rows of a batch over all devices.
        seq_len: Tokens of a row.
        limit: Bytes that a program may use on one device; nothing is compared where that is not known.

    Returns:
        The compiled step.

    Raises:
        ConfigError: The step does not fit: how much it needs, what there is, what to change.
    """
    with sharding.use_mesh(train_step.mesh):
        lowered = train_step.trace(rows, seq_len).lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if limit is None or not is_too_large(error):
            raise
        raise _refusal(needed_memory(str(error))[0], limit, rows) from None
    found = None if limit is None else compiled.memory_analysis()
    if limit is not None and found is not None:
        needed = found.argument_size_in_bytes + found.temp_size_in_bytes
        needed += found.output_size_in_bytes - found.alias_size_in_bytes
        if needed > limit:
            raise _refusal(needed, limit, rows)
        logger.info("memory    %.2f of %.2f GiB per device, by the compiler", needed / GIB, limit / GIB)
    return StepProgram(compiled)


def _refusal(needed: int, limit: int, rows: int) -> ConfigError:
    found = f"{needed / GIB:.2f} GiB per device" if needed else "more than that"
    return ConfigError(
        "the step does not fit the devices' memory",
        where=f"a batch of {rows} rows",
        found=found,
        expected=f"at most {limit / GIB:.2f} GiB",
        remedy=REMEDY,
    )


def is_too_large(error: Exception) -> bool:
    """Return whether the compiler failed for lack of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


SIZE = r"([\d.]+)\s*([KMGT]?)i?B?"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}
NEEDED = (
    rf"total memory required for HLO temporaries \({SIZE}\) exceeds available HBM \({SIZE}\)",
    rf"Used {SIZE} of {SIZE} hbm",
)
"""Patterns of the compiler's out-of-memory messages, by version."""


def needed_memory(message: str) -> tuple[int, int]:
    """Read from the compiler's message how much a program needs and may have, in bytes; zeros where it does not say.

    Example:
        >>> needed_memory("... Used 33.5G of 31.0G hbm ...") == (int(33.5 * GIB), 31 * GIB)
        True
    """
    for pattern in NEEDED:
        match = re.search(pattern, message)
        if match:
            needed, most = (int(float(match[i]) * UNITS[match[i + 1]]) for i in (1, 3))
            return needed, most
    return 0, 0
