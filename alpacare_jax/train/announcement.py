"""What a training run says of itself before it starts."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from alpacare_jax.adapters import bytes_a_device, count
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.uneven import describe_uneven
from alpacare_jax.train.config import RunConfig
from alpacare_jax.train.settings import Schedule
from alpacare_jax.train.step import Stepper

logger = logging.getLogger("alpacare.train")


def announce(
    config: RunConfig, model: LlamaConfig, schedule: Schedule, stepper: Stepper, row_length: int
) -> None:
    """Say in a few lines what is about to happen."""
    mesh = stepper.mesh
    sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    logger.info("model     %s parameters, %s", f"{model.parameter_count:,}", config.compute.dtype)
    logger.info("training  %s", describe_trained(stepper))
    logger.info("memory    %s", describe_memory(stepper))
    logger.info("mesh      %s (%d devices of %s)", sizes, mesh.size, mesh.devices.flat[0].device_kind)
    if stepper.microbatches != (asked := config.train.microbatches):
        kept = f"which keeps a batch near {config.train.batch_examples} examples"
        logger.info("batch     microbatches %d instead of %d, %s", stepper.microbatches, asked, kept)
    if uneven := describe_uneven(model, mesh, row_length):
        logger.info("uneven    %s", uneven)
    logger.info(
        "run       %d steps of %d rows, %.2f epochs, into %s",
        schedule.steps,
        schedule.batch_rows,
        schedule.steps * schedule.batch_rows / schedule.epoch_rows,
        config.out,
    )


def describe_trained(stepper: Stepper) -> str:
    """Say how much is trained, and by what method."""
    trained, total = (
        count(stepper.division.abstract_on(stepper.mesh)[0]),
        stepper.architecture.config.parameter_count,
    )
    adapter = stepper.adapter
    if not adapter.on:
        kept = f"; frozen: {', '.join(stepper.freeze)}" if stepper.freeze else ""
        return f"{trained:,} parameters, {100 * trained / total:.1f}% of the model{kept}"
    base = adapter.base if adapter.base != "auto" else stepper.architecture.compute.dtype
    return (
        f"{trained:,} parameters in adapters, {100 * trained / total:.2f}% of the model: {adapter.kind}, rank "
        f"{adapter.rank}, alpha {adapter.alpha:g}, on {', '.join(adapter.targets)}; base frozen in {base}"
    )


def describe_memory(stepper: Stepper) -> str:
    """Say what the state takes on each device; activations and gradients come on top."""
    state = stepper.abstract_state()
    parts = {"trained": "params", "optimiser": "optimizer", "frozen": "frozen"}
    sizes = [(name, bytes_a_device(state[key])) for name, key in parts.items() if key in state]
    whole = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes)
    kept = "; checkpoints keep the adapters and their optimiser alone" if stepper.adapter.on else ""
    return f"{whole} a device, before activations and gradients{kept}"


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show what a run says where nobody has set up logging, as in a notebook."""
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
