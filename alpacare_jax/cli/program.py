"""The compiled step of a run: begun as soon as it is known, waited for when it is needed."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import jax

from alpacare_jax import compilation
from alpacare_jax.cli.ending import COMPILER
from alpacare_jax.plan.fitting import check_state_fits, compile_fitting, memory_limit
from alpacare_jax.stages import Stages
from alpacare_jax.train import Schedule, Step, Stepper


def begin_to_compile(
    stepper: Stepper, schedule: Schedule, row_length: int, stages: Stages, *, resuming: bool
) -> Callable[[], Step]:
    """Begin to compile a run's step, or to read it from the cache, beside what else a start does.

    Nothing goes on beside it where that could do harm: several processes must ask their devices for the same things
    in the same order; on a GPU the compiler times its choices; and where devices say what they hold, a step that does
    not fit is refused before a checkpoint is read onto them.

    Args:
        stepper: The run's step.
        schedule: The run's size.
        row_length: Tokens of a row.
        stages: Takes the time it took.
        resuming: Whether the run goes on from a checkpoint.

    Returns:
        Waits for the step and gives it; raises what the compiler or the check of its memory raised.

    Raises:
        ConfigError: The state, or the step where it was not left to go on beside, does not fit the devices.
    """
    device = stepper.mesh.local_devices[0]
    limit, rows = memory_limit(device), schedule.batch_rows
    check_state_fits(stepper, rows, limit)
    beside = jax.process_count() == 1 and device.platform != "gpu" and not (resuming and limit is not None)

    def compiled() -> Step:
        with stages.time("program", beside=beside) as stage, compilation.watch() as programs:
            step = compile_fitting(stepper, rows, row_length, limit)
        stage.note = "from the cache" if programs == ["kept"] else "compiled"
        return step

    if not beside:
        step = compiled()
        return lambda: step
    future: Future[Step] = Future()

    def compile_beside() -> None:
        try:
            future.set_result(compiled())
        except BaseException as error:  # noqa: BLE001  # raised where the step is waited for
            future.set_exception(error)

    # A compiler cannot be stopped: a process that ends early does not wait for it (alpacare_jax/cli/ending.py).
    threading.Thread(target=compile_beside, name=COMPILER, daemon=True).start()
    return future.result
