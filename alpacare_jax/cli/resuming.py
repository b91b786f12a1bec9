"""How a verb ends that asks a service and can be resumed: when interrupted, and when batches are under way."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import typer


@contextlib.contextmanager
def resumable(work: Path) -> Iterator[None]:
    """Say how to go on where the body is interrupted (status 130) or leaves batches under way (status 3).

    Args:
        work: The folder that keeps every reply.
    """
    from datagen.batch.client import BatchesUnderWay, describe

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except BatchesUnderWay as under_way:
        typer.echo(
            f"{describe(under_way.records)}. They go on at the provider, within a day of being sent; run the same "
            "command again to bring them in.",
            err=True,
        )
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. Everything answered so far is in {work}; run the same command again to go on. Batches "
            "that were sent, if any, go on at the provider.",
            err=True,
        )
        raise typer.Exit(130) from None


def _interrupt(*_: object) -> None:
    """Take SIGTERM like Ctrl-C, also in a job that was started with Ctrl-C turned off (nohup, &)."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
