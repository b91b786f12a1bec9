"""The log lines that describe a training run before it starts."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from alpacare_jax.adapters import bytes_a_device, count
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.uneven import describe_uneven
from alpacare_jax.train.config import RunConfig
from alpacare_jax.train.settings import Schedule
from alpacare_jax.train.step import TrainStep

logger = logging.getLogger("alpacare.train")


def announce(
    config: RunConfig, model: LlamaConfig, schedule: Schedule, train_step: TrainStep, row_length: int
) -> None:
    """Log the model, what is trained, its memory, the mesh and the size of the run."""
    mesh = train_step.mesh
    sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    logger.info("model     %s parameters, %s", f"{model.parameter_count:,}", config.compute.dtype)
    logger.info("training  %s", describe_trained(train_step))
    logger.info("memory    %s", describe_memory(train_step))
    logger.info("mesh      %s (%d devices of %s)", sizes, mesh.size, mesh.devices.flat[0].device_kind)
    if train_step.microbatches != (asked := config.train.microbatches):
        kept = f"which keeps a batch near {config.train.batch_examples} examples"
        logger.info("batch     microbatches %d instead of %d, %s", train_step.microbatches, asked, kept)
    if uneven := describe_uneven(model, mesh, row_length):
        logger.info("uneven    %s", uneven)
    logger.info(
        "run       %d steps of %d rows, %.2f epochs, into %s",
        schedule.steps,
        schedule.batch_rows,
        schedule.steps * schedule.batch_rows / schedule.epoch_rows,
        config.out,
    )


def describe_trained(train_step: TrainStep) -> str:
    """Describe how many parameters are trained, and by what method."""
    trained, total = (
        count(train_step.partition.abstract_on(train_step.mesh)[0]),
        train_step.architecture.config.parameter_count,
    )
    adapter = train_step.adapter
    if not adapter.on:
        kept = f"; frozen: {', '.join(train_step.freeze)}" if train_step.freeze else ""
        return f"{trained:,} parameters, {100 * trained / total:.1f}% of the model{kept}"
    base = adapter.base if adapter.base != "auto" else train_step.architecture.compute.dtype
    return (
        f"{trained:,} parameters in adapters, {100 * trained / total:.2f}% of the model: {adapter.kind}, rank "
        f"{adapter.rank}, alpha {adapter.alpha:g}, on {', '.join(adapter.targets)}; base frozen in {base}"
    )


def describe_memory(train_step: TrainStep) -> str:
    """Describe the memory of the state on each device; activations and gradients come on top."""
    state = train_step.abstract_state()
    parts = {"trained": state.params, "optimiser": state.optimizer, "frozen": state.frozen}
    sizes = [(name, bytes_a_device(part)) for name, part in parts.items() if part]
    whole = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes)
    kept = "; checkpoints keep the adapters and their optimiser alone" if train_step.adapter.on else ""
    return f"{whole} a device, before activations and gradients{kept}"


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show a run's log lines where logging is not configured, as in a notebook."""
    if logger.hasHandlers():
        yield
        return
    handler, root = logging.StreamHandler(sys.stderr), logging.getLogger("alpacare")
    level, propagate = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = (
        False  # a library may give the root logger a handler meanwhile, and every line would be doubled
    )
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        root.propagate = propagate
