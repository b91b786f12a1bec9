"""Interruptions and batches under way, for verbs that send requests and can be resumed."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

NoWait = Annotated[
    bool, typer.Option("--no-wait", help="In batch mode: collect finished batches, send new ones, and exit.")
]
CancelBatches = Annotated[
    bool,
    typer.Option("--cancel-batches", help="Cancel the batches under way and collect their finished replies."),
]


@contextlib.contextmanager
def resumable(work: Path) -> Iterator[None]:
    """Print how to resume if the body is interrupted (status 130) or leaves batches under way (status 3).

    Args:
        work: The folder with the ledger.
    """
    from datagen.batch.client import BatchesUnderWay, describe

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except BatchesUnderWay as under_way:
        typer.echo(
            f"{describe(under_way.records)}. They are processed within a day of being sent; run the same command "
            "again to collect the replies, or with --cancel-batches to cancel them.",
            err=True,
        )
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. All replies so far are in {work}; run the same command again to resume. Batches that "
            "were sent, if any, continue at the provider.",
            err=True,
        )
        raise typer.Exit(130) from None


def _interrupt(*_: object) -> None:
    """Treat SIGTERM like Ctrl-C, also in a job that ignores SIGINT (nohup, &)."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
