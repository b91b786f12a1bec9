"""Replaying a ledger: what a run has kept and published so far, also while it is running."""

from collections.abc import Callable, Sequence

from datagen.client import read_reply
from datagen.ledger import Entry, Ledger
from datagen.questions import ANSWERS, TASKS
from datagen.records import SeedTask
from datagen.settings import Settings
from datagen.task_filter import FilteredAnswers, TaskFilter, filter_answers


def replay(
    ledger: Ledger, settings: Settings, seeds: Sequence[SeedTask]
) -> tuple[TaskFilter, FilteredAnswers]:
    """Filter every reply in the order of the requests, as the run itself does; changes nothing.

    Args:
        ledger: The ledger, which may be written to meanwhile.
        settings: The run's settings.
        seeds: The run's seed tasks.

    Returns:
        The task filter with the kept and rejected tasks, and the filtered answers received so far.
    """
    tasks = TaskFilter(seeds, settings)
    take_settled(tasks, settings, lambda id: ledger.settled(TASKS, id))
    settled = {entry.id: entry for entry in ledger.entries(ANSWERS) if entry.state != "sent"}
    answered = [kept for kept in tasks.kept if kept.id in settled]
    replies = [read_reply(settled[kept.id]) for kept in answered]
    return tasks, filter_answers(answered, replies, settings)


def take_settled(tasks: TaskFilter, settings: Settings, find: Callable[[str], Entry | None]) -> None:
    """Filter further replies in the order of the requests, up to the target or the first missing reply.

    Args:
        tasks: The filter, which continues after the replies that it has already taken.
        settings: The run's settings.
        find: Returns the settled task request of an id, or None.
    """
    while not tasks.full and tasks.requests < settings.request_limit():
        entry = find(f"{tasks.requests:06d}")
        if entry is None:
            return
        tasks.take(read_reply(entry))
