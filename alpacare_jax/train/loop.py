"""The training loop, from top to bottom.

Where a run starts, in this order:

1. its own latest checkpoint, when the run folder has one (resume);
2. else the parameters that ``initial_params`` gives: an imported model, or random weights.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax

from alpacare_jax import sharding
from alpacare_jax.data.dataset import RowSource
from alpacare_jax.data.loader import BatchStream
from alpacare_jax.loss import Batch
from alpacare_jax.model import Params
from alpacare_jax.stages import Stages
from alpacare_jax.train.guard import GuardConfig
from alpacare_jax.train.interruption import StopRequest, between_steps
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.recorder import Recorder, Yardstick
from alpacare_jax.train.settings import Schedule, TrainConfig
from alpacare_jax.train.sinks import Metrics, Sink
from alpacare_jax.train.step import Step, Stepper, TrainState

logger = logging.getLogger("alpacare.train")


class Checkpoints(Protocol):
    """What the loop needs of a store of checkpoints."""

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint."""

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Read the state of a step onto the shardings of ``abstract``."""

    def metadata(self, step: int) -> dict[str, Any]:
        """Read what was saved beside the state."""

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Begin to write a checkpoint."""

    def wait(self) -> None:
        """Wait until everything is written."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything the loop works with.

    Args:
        config: Settings of the loop.
        schedule: Steps and batch size.
        stepper: The step and its surroundings.
        data: The training rows.
        initial_params: Makes or loads the first parameters; called where there is nothing to resume, or where the
            checkpoints hold adapters alone.
        checkpoints: Where states are kept.
        metadata: Goes into every checkpoint, with the data position added.
        evaluate: Gives validation figures, keyed ``val_...``; None for no validation.
        sinks: Take every line of figures; none on processes other than the first.
        speak: Whether this process logs.
        yardstick: What the speed of a step is measured by.
        profile: The steps to write a trace of; None for none.
        program: Gives the compiled step, waiting for it where it is being compiled, and refuses one that does not fit
            the devices; the step is compiled when it is first taken where this is None.
        stages: Takes the times of the start.
    """

    config: TrainConfig
    schedule: Schedule
    stepper: Stepper
    data: RowSource
    initial_params: Callable[[], Params]
    checkpoints: Checkpoints
    metadata: dict[str, Any]
    evaluate: Callable[[Params], Metrics] | None = None
    sinks: Sequence[Sink] = ()
    speak: bool = True
    yardstick: Yardstick | None = None
    profile: Profile | None = None
    program: Callable[[], Step] | None = None
    stages: Stages = dataclasses.field(default_factory=Stages)


def train(run: Run) -> TrainState:
    """Train to the last step and return the final state, which is also the last checkpoint.

    Raises:
        TrainingError: The loss is not finite; the message names the step and the rows of its batch.
    """
    with sharding.use_mesh(run.stepper.mesh):
        state, step, position = begin(run)
        if step >= run.schedule.steps:
            return state
        with run.stages.time("rows"):
            stream = BatchStream(
                run.data,
                run.schedule.batch_rows,
                run.config.seed,
                position,
                sharding=sharding.batch_sharding(run.stepper.mesh),
            )
        try:
            with run.stages.time("waiting"):
                take_step = (run.program or run.stepper.compile_step)()
                jax.block_until_ready(state)
            if run.speak:
                logger.info("%s", run.stages)
            recorder = Recorder(
                run.config, run.schedule, run.sinks, run.yardstick, start_step=step, speak=run.speak
            )
            if step == 0:
                validate(run, recorder, 0, state)
            return _steps(run, take_step, state, step, stream, recorder)
        finally:
            stream.close()


def _steps(
    run: Run, take_step: Step, state: TrainState, step: int, stream: BatchStream, recorder: "Recorder"
) -> TrainState:
    config, last, position = run.config, run.schedule.steps, stream.position
    # Of several processes none can know at which step the others are told to stop.
    alone = jax.process_count() == 1
    tracing = run.profile.tracing() if run.profile else contextlib.nullcontext()
    with tracing, between_steps() if alone else contextlib.nullcontext(StopRequest()) as stop:
        while step < last:
            if run.profile:
                run.profile.before(step + 1)
            batch, position = next(stream)
            state, metrics = take_step(state, batch)
            step += 1
            if run.profile:
                run.profile.after(step, metrics)
            # The figures of the step before are read while this one runs, so that the device never waits.
            recorder.finish()
            recorder.begin(step, metrics, stream, position)
            save = stop.asked or is_due(step, last, config.checkpoint_every)
            due = not stop.asked and is_due(step, last, config.validate_every)
            if save or due:
                recorder.finish()
            if save:
                started = time.perf_counter()
                run.checkpoints.save(step, run.stepper.saved(state), run.metadata | {"position": position})
                recorder.saved(time.perf_counter() - started)
            if due:
                validate(run, recorder, step, state)
            if stop.asked and step < last:
                run.checkpoints.wait()
                logger.info("stopped after step %d; the same command goes on from there", step)
                raise KeyboardInterrupt
    run.checkpoints.wait()
    return state


def begin(run: Run) -> tuple[TrainState, int, int]:
    """Return the first state, its step, and the position in the data."""
    latest = run.checkpoints.latest_step()
    if latest is None:
        with run.stages.time("weights"):
            params = run.initial_params()
        if run.program is not None:
            with run.stages.time("waiting"):
                run.program()  # what does not fit is refused before the optimiser takes memory
        with run.stages.time("state"):
            return run.stepper.start(params, first_batches(run)), 0, 0
    metadata = run.checkpoints.metadata(latest)
    with run.stages.time("checkpoint"):
        saved = run.checkpoints.restore(latest, run.stepper.abstract_saved(_guard_of(metadata)))
    with run.stages.time("state"):
        state = run.stepper.resume(saved, run.initial_params)
    position = int(metadata["position"])
    if run.speak:
        logger.info("resuming after step %d, %s rows into the data", latest, f"{position:,}")
    return state, latest, position


def first_batches(run: Run) -> Iterator[Batch]:
    """Yield the first training rows that the adapters' start is fitted to, never more at once than a step takes.

    These are ``start_rows`` rows, rounded up to what the devices divide.
    """
    mesh = run.stepper.mesh
    shards = sharding.batch_shards(mesh)
    wanted = -(-run.stepper.adapter.start_rows // shards)
    most = run.schedule.batch_rows // run.stepper.microbatches // shards
    each = max(rows for rows in range(1, most + 1) if wanted % rows == 0)
    places = sharding.batch_sharding(mesh)
    stream = BatchStream(run.data, shards * each, run.config.seed, 0, sharding=places)
    try:
        for _ in range(wanted // each):
            yield next(stream)[0]
    finally:
        stream.close()


def _guard_of(metadata: dict[str, Any]) -> GuardConfig | None:
    """Return the guard of the run that wrote a checkpoint, or None where that is not known."""
    settings = metadata.get("config", {}).get("train", {}).get("guard")
    return None if settings is None else GuardConfig(**settings)


def validate(run: Run, recorder: Recorder, step: int, state: TrainState) -> None:
    """Run the evaluator, where there is one, and pass its figures on."""
    if run.evaluate is not None:
        recorder.validated(step, run.evaluate(run.stepper.model_params(state)))


def is_due(step: int, last: int, every: int) -> bool:
    """Say whether something that happens every so many steps, and at the last one, happens now."""
    return step == last or (every > 0 and step % every == 0)
