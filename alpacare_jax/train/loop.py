"""The training loop, from top to bottom.

Where a run starts, in this order:

1. its own latest checkpoint, when the run folder has one (resume);
2. else the parameters that ``initial_params`` gives: an imported model, or random weights.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from alpacare_jax import sharding
from alpacare_jax.data.loader import BatchStream, RowSource
from alpacare_jax.errors import TrainingError
from alpacare_jax.model import Params
from alpacare_jax.train.interruption import StopRequest, between_steps
from alpacare_jax.train.settings import Schedule, TrainConfig
from alpacare_jax.train.sinks import Metrics, Sink, log_line
from alpacare_jax.train.step import Stepper, TrainState

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


def train(run: Run) -> TrainState:
    """Train to the last step and return the final state, which is also the last checkpoint.

    Raises:
        TrainingError: The loss is not finite; the message names the step and the rows of its batch.
    """
    with sharding.use_mesh(run.stepper.mesh):
        state, step, position = begin(run)
        recorder = Recorder(run, start_step=step)
        if step == 0:
            recorder.validate(0, state)
        stream = BatchStream(
            run.data,
            run.schedule.batch_rows,
            run.config.seed,
            position,
            sharding=sharding.batch_sharding(run.stepper.mesh),
        )
        try:
            return _steps(run, state, step, stream, recorder)
        finally:
            stream.close()


def _steps(run: Run, state: TrainState, step: int, stream: BatchStream, recorder: "Recorder") -> TrainState:
    config, last, position = run.config, run.schedule.steps, stream.position
    take_step = run.stepper.compile_step()
    # Of several processes none can know at which step the others are told to stop.
    alone = jax.process_count() == 1
    with between_steps() if alone else contextlib.nullcontext(StopRequest()) as stop:
        while step < last:
            batch, position = next(stream)
            state, metrics = take_step(state, batch)
            step += 1
            # The figures of the step before are read while this one runs, so that the device never waits.
            recorder.finish()
            recorder.begin(step, metrics, stream, position)
            save = stop.asked or is_due(step, last, config.checkpoint_every)
            validate = not stop.asked and is_due(step, last, config.validate_every)
            if save or validate:
                recorder.finish()
            if save:
                run.checkpoints.save(step, run.stepper.saved(state), run.metadata | {"position": position})
            if validate:
                recorder.validate(step, state)
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
        return run.stepper.start(run.initial_params()), 0, 0
    saved = run.checkpoints.restore(latest, run.stepper.abstract_saved())
    state = run.stepper.resume(saved, run.initial_params)
    position = int(run.checkpoints.metadata(latest)["position"])
    if run.speak:
        logger.info("resuming after step %d, %s rows into the data", latest, f"{position:,}")
    return state, latest, position


def is_due(step: int, last: int, every: int) -> bool:
    """Say whether something that happens every so many steps, and at the last one, happens now."""
    return step == last or (every > 0 and step % every == 0)


class Recorder:
    """Turns the device's figures of a step into a line for the sinks, one step late.

    Args:
        run: The run.
        start_step: The step the run went on from.
    """

    def __init__(self, run: Run, start_step: int) -> None:
        self.run = run
        self._open: tuple[int, dict[str, jax.Array], dict[str, Any]] | None = None
        self._finished_at = time.perf_counter()
        self._first = start_step + 1

    def begin(self, step: int, metrics: dict[str, jax.Array], stream: BatchStream, position: int) -> None:
        """Note a step that has been dispatched."""
        rows = self.run.schedule.batch_rows
        window = (position - rows, position)
        known = {
            "epoch": position / self.run.schedule.epoch_rows,
            "position": position,
            "data_wait_ms": 1e3 * stream.wait_s,
        }
        self._open = (step, metrics, known | {"_window": window, "_rows": stream.order})

    def finish(self) -> None:
        """Read the figures of the noted step, check them, and pass them on.

        Raises:
            TrainingError: The loss or the gradient is not finite.
        """
        if self._open is None:
            return
        (step, device_metrics, known), self._open = self._open, None
        values = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
        now = time.perf_counter()
        elapsed, self._finished_at = now - self._finished_at, now
        window, order = known.pop("_window"), known.pop("_rows")
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            raise TrainingError(
                "the loss is not finite",
                where=f"step {step}, samples {window[0]} to {window[1] - 1} of the run's order, "
                f"rows {order.window(*window)[:16]}",
                found=f"loss {values['loss']}, gradient norm {values['grad_norm']}",
                remedy="look at these rows, lower the learning rate, or go on from an earlier checkpoint",
            )
        line: dict[str, Any] = {
            "step": step,
            "loss": values["loss"],
            "lr": values["learning_rate"],
            "grad_norm": values["grad_norm"],
            "supervised_tokens": int(values["supervised_tokens"]),
            "tokens": int(values["tokens"]),
            "fill": values["fill"],
            "step_ms": 1e3 * elapsed,
            "tokens_per_s": values["tokens"] / elapsed,
            **known,
        }
        if step == self._first:
            line["compiled"] = True
        self.emit(line, show=step % self.run.config.log_every == 0 or step == self._first)

    def validate(self, step: int, state: TrainState) -> None:
        """Run the evaluator and pass its figures on."""
        if self.run.evaluate is None:
            return
        figures = self.run.evaluate(self.run.stepper.model_params(state))
        self.emit({"step": step, **figures}, show=True)
        self._finished_at = time.perf_counter()

    def emit(self, line: Metrics, *, show: bool) -> None:
        """Hand a line to the sinks, and to the log where it is to be shown."""
        for sink in self.run.sinks:
            sink(line)
        if show and self.run.speak:
            logger.info("%s", log_line(line, self.run.schedule.steps))
