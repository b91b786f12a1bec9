"""Judging a ledger anew: what a run has kept and published so far, also beside a running one."""

from collections.abc import Sequence

from datagen.client import read_reply
from datagen.ledger import Ledger
from datagen.questions import ANSWERS, TASKS
from datagen.records import SeedTask
from datagen.settings import Settings
from datagen.task_filter import FilteredAnswers, TaskFilter, filter_answers


def replay(
    ledger: Ledger, settings: Settings, seeds: Sequence[SeedTask]
) -> tuple[TaskFilter, FilteredAnswers]:
    """Judge every reply in the order of the requests, as the run itself does; change nothing.

    Args:
        ledger: The ledger, which may be written to meanwhile.
        settings: The run's settings.
        seeds: The run's seed tasks.

    Returns:
        The task filter with what was kept and rejected, and what became of the answers that are in.
    """
    task_filter = TaskFilter(seeds, settings)
    for number in range(settings.request_limit()):
        entry = ledger.get(TASKS, f"{number:06d}")
        if entry is None or entry.state == "sent" or task_filter.full:
            break
        task_filter.take(read_reply(entry))
    settled = {entry.id: read_reply(entry) for entry in ledger.entries(ANSWERS) if entry.state != "sent"}
    answered = [kept for kept in task_filter.kept if kept.id in settled]
    replies = [settled[kept.id] for kept in answered]
    return task_filter, filter_answers(answered, replies, settings)
