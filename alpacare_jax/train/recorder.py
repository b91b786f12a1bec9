"""Metrics of a step once the device has finished it: checked, timed, and passed to the callbacks."""

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from alpacare_jax.data.loader import BatchStream, SequenceOrder
from alpacare_jax.errors import TrainingError
from alpacare_jax.hardware.chips import chip_of
from alpacare_jax.train.callbacks import Callback, Figures, tell
from alpacare_jax.train.settings import LoopConfig, Schedule

logger = logging.getLogger("alpacare.train")


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Measures the speed of steps.

    Args:
        flops_per_row: Operations of a row, forward and backward (:func:`alpacare_jax.model.flops.flops_per_row`).
        devices: Devices of the mesh.
        peak_flops: Published peak of one device, FLOP/s; None where it is not known.

    Example:
        >>> Throughput(flops_per_row=8e13, devices=4, peak_flops=2e14).figures(rows=8, seconds=2.0)
        {'tflops_per_device': 80.0, 'mfu': 0.4}
    """

    flops_per_row: float
    devices: int
    peak_flops: float | None = None

    @classmethod
    def on(cls, mesh: Mesh, flops_per_row: float, dtype: str) -> "Throughput":
        """Return the meter of a mesh; the peak that is published is one of bfloat16."""
        chip = chip_of(mesh.devices.flat[0].device_kind)
        peak = chip.bf16_flops if chip and dtype == "bfloat16" else None
        return cls(flops_per_row, mesh.size, peak)

    def figures(self, rows: int, seconds: float) -> dict[str, float]:
        """Return the rate of one device, in TFLOP/s, and its share of the peak (model FLOPs utilisation)."""
        rate = rows * self.flops_per_row / seconds / self.devices
        figures = {"tflops_per_device": rate / 1e12}
        return figures | ({"mfu": rate / self.peak_flops} if self.peak_flops else {})


class _Dispatched(NamedTuple):
    """A dispatched step whose metrics have not been read."""

    step: int
    metrics: dict[str, jax.Array]
    position: int
    wait_ms: float
    order: SequenceOrder


class Recorder:
    """Turns the device's figures of a step into a line for the callbacks, one step late.

    Args:
        config: Settings of the loop.
        schedule: Steps and batch size.
        callbacks: Told every line.
        meter: What the speed of a step is measured by; None leaves it out.
        start_step: The step the run went on from.
    """

    def __init__(
        self,
        config: LoopConfig,
        schedule: Schedule,
        callbacks: Sequence[Callback],
        meter: Throughput | None = None,
        start_step: int = 0,
    ) -> None:
        self.config, self.schedule, self.callbacks, self.meter = config, schedule, callbacks, meter
        self._open: _Dispatched | None = None
        self._finished_at = time.perf_counter()
        self._saving_s = 0.0
        self._first = start_step + 1

    def begin(self, step: int, metrics: dict[str, jax.Array], stream: BatchStream, position: int) -> None:
        """Note a step that has been dispatched."""
        self._open = _Dispatched(step, metrics, position, 1e3 * stream.wait_s, stream.order)

    def saved(self, seconds: float) -> None:
        """Note how long a checkpoint held up the loop; the figure belongs to the step that follows."""
        self._saving_s += seconds

    def finish(self) -> None:
        """Read the figures of the noted step, check them, and pass them on.

        Raises:
            TrainingError: The loss or the gradient is not finite, or the guard calls it a spike.
        """
        if self._open is None:
            return
        done, self._open = self._open, None
        values = {name: float(value) for name, value in jax.device_get(done.metrics).items()}
        now = time.perf_counter()
        elapsed, self._finished_at = now - self._finished_at, now
        saving, self._saving_s = self._saving_s, 0.0
        step, position, rows = done.step, done.position, self.schedule.batch_rows
        if skipped := self._check(values, done):
            tell(self.callbacks, "on_step", {"step": step, "position": position, **skipped})
            return
        line: dict[str, Any] = {
            "step": step,
            "loss": values["loss"],
            "lr": values["learning_rate"],
            "grad_norm": values["grad_norm"],
            "supervised_tokens": int(values["supervised_tokens"]),
            "tokens": int(values["tokens"]),
            "fill": values["fill"],
            "step_ms": 1e3 * elapsed,
            "compute_ms": 1e3 * max(0.0, elapsed - saving) - done.wait_ms,
            "checkpoint_ms": 1e3 * saving,
            "tokens_per_s": values["tokens"] / elapsed,
            "epoch": position / self.schedule.epoch_rows,
            "position": position,
            "data_wait_ms": done.wait_ms,
        }
        if self.meter is not None:
            line |= self.meter.figures(rows, elapsed)
        if peak := peak_memory():
            line["peak_memory_bytes"] = peak
        if step == self._first:
            line["compiled"] = True
        tell(self.callbacks, "on_step", line)
        if step % self.config.log_every == 0 or step == self._first:
            self._show(line)

    def _check(self, values: dict[str, float], done: _Dispatched) -> dict[str, Any]:
        """Stop the run at a step that is not sound, or return the figures of one that was skipped, else nothing.

        Raises:
            TrainingError: The step ends the run.
        """
        finite = math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])
        if finite and values.get("sound", 1):
            return {}
        window = (done.position - self.schedule.batch_rows, done.position)
        where = (
            f"step {done.step}, samples {window[0]} to {window[1] - 1} of the run's order, "
            f"rows {done.order.window(*window)[:16]}"
        )
        guard, in_a_row = self.config.guard, int(values.get("skipped_in_a_row", 0))
        found = f"loss {values['loss']:g}, gradient norm {values['grad_norm']:g}"
        if finite:
            found += f"; the median of the steps before is {values['norm_median']:g}"
        if guard.action == "skip" and in_a_row < guard.patience:
            if jax.process_index() == 0:
                logger.warning("skipped %s: %s; %d skipped so far", where, found, values["skipped"])
            return {"skipped": int(values["skipped"]), "skipped_in_a_row": in_a_row}
        more = f", {in_a_row} steps skipped in a row" if guard.action == "skip" else ""
        raise TrainingError(
            ("the gradient is a spike" if finite else "the loss is not finite") + more,
            where=where,
            found=found,
            remedy="look at these rows, lower the learning rate, or go on from an earlier checkpoint",
        )

    def validated(self, step: int, figures: Figures) -> None:
        """Pass the figures of a validation on; its time belongs to no step."""
        line = {"step": step, **figures}
        tell(self.callbacks, "on_validation", line)
        self._show(line)
        self._finished_at = time.perf_counter()
        self._saving_s = 0.0

    def _show(self, line: Figures) -> None:
        if jax.process_index() == 0:
            logger.info("%s", log_line(line, self.schedule.steps))


def peak_memory() -> int | None:
    """Return the most memory in use so far on any device of this process, in bytes; None where devices do not say."""
    known = [statistics for device in jax.local_devices() if (statistics := device.memory_stats())]
    return max((int(statistics["peak_bytes_in_use"]) for statistics in known), default=None)


def log_line(figures: Figures, steps: int) -> str:
    """Format a step or a validation as one line.

    Example:
        >>> log_line({"step": 7, "val_loss": 2.5, "val_tokens": 10}, 60)
        'step 00007/00060 | validation loss 2.5000'
    """
    head = f"step {figures['step']:05d}/{steps:05d}"
    if "val_loss" in figures:
        return f"{head} | validation loss {figures['val_loss']:.4f}"
    speed = f" | MFU {100 * float(figures['mfu']):.1f}%" if "mfu" in figures else ""
    memory = (
        f" | {float(figures['peak_memory_bytes']) / 2**30:.1f} GiB" if "peak_memory_bytes" in figures else ""
    )
    return (
        f"{head} | loss {figures['loss']:.4f} | lr {figures['lr']:.1e} | {figures['step_ms']:.0f} ms"
        f" | {short(float(figures['tokens_per_s']))} tok/s | pack {100 * float(figures['fill']):.0f}%{speed}{memory}"
    )


def short(number: float) -> str:
    """Shorten a number to three digits and a unit.

    Example:
        >>> short(159_400), short(87.2)
        ('159k', '87.2')
    """
    for unit in ("", "k", "M"):
        if abs(number) < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"
