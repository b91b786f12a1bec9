"""``alpacare train``: packed data and a model -> checkpoints."""

import contextlib
import gc
import importlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

SETTINGS = "alpacare_jax.train:RunConfig"

IMPORTED_LATER = ("orbax.checkpoint", "tensorflow_datasets", "grain")
"""Modules that every run imports on first use; :func:`collecting_nothing` makes that faster."""


def command(
    config: Annotated[Path, typer.Option(help="The run's configuration: a YAML file, see configs/train.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as optim.learning_rate=1e-5."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Resume although the configuration differs from the one the run was started with.",
        ),
    ] = False,
    profile_steps: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Write a trace of these steps into OUT/profile, such as 10:12; counted from 1.",
        ),
    ] = None,
) -> None:
    """Fine-tune a model on packed data, on a mesh of devices.

    The run folder (`out` in the configuration) receives the resolved configuration, metrics.jsonl, TensorBoard
    events and checkpoints. The same command resumes from the latest checkpoint.
    """
    from alpacare_jax import compilation, distributed, flags
    from alpacare_jax.startup import StartupTimer, process_began

    timer = StartupTimer(process_began())
    timer.add("python", time.monotonic() - timer.since)
    with timer.time("flags"):
        flags.set_flags()
    compilation.keep_programs()
    with timer.time("imports"), collecting_nothing():
        from alpacare_jax.train import Trainer, load_config

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alpacare").setLevel(logging.INFO)
    with timer.time("processes"):
        distributed.initialize_from_environment()
    run_config = load_config(config, overrides or [])
    with timer.time("imports"), collecting_nothing():
        for name in IMPORTED_LATER:
            importlib.import_module(name)

    try:
        Trainer.from_config(
            run_config, accept_changes=accept_changes, profile_steps=profile_steps, timer=timer
        ).train()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Import in the body without the garbage collector, and have it pass over what was imported from then on.

    Modules stay for as long as the process lives, but the collector would look at them again and again: a fifth of
    the time that importing takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
