"""A work folder goes on under another configuration: a new one that takes over every reply that still applies.

A reply applies where the new configuration asks exactly the same: the same prompt, model and sampling, which the
ledger's prompt hash tells. So another filter or another answerer keeps all tasks that were paid for, and the old
folder stays as it is.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from datagen import prompts
from datagen.errors import DataError
from datagen.ledger import Entry, Ledger
from datagen.questions import ANSWERS, TASKS, answer_request, read_seeds, task_request
from datagen.records import SeedTask
from datagen.service.chat import ChatRequest, prompt_hash
from datagen.settings import Settings
from datagen.task_filter import TaskFilter
from datagen.work.folder import LEDGER, pin, refuse_foreign, refuse_lost
from datagen.work.replay import take_settled


@dataclasses.dataclass(frozen=True)
class Derived:
    """How many settled requests of each stage the new folder took over, and of how many."""

    tasks: int
    of_tasks: int
    answers: int
    of_answers: int


def derive(source: Path, target: Path, settings: Settings) -> Derived:
    """Make a work folder for other settings and copy into it what still applies.

    What the copied replies cost was paid by the old folder and does not count against the new one's budget.

    Args:
        source: The work folder of an earlier run; only read.
        target: The new folder; must not hold a run that has asked anything.
        settings: What the new folder is to do.

    Raises:
        DataError: The source is no work folder, or the target holds a run or other files.
    """
    if source.resolve() == target.resolve():
        raise DataError("a work folder cannot be derived from itself", where=target)
    refuse_foreign(target)
    refuse_lost(source)
    seeds = read_seeds(settings)
    with Ledger(source / LEDGER, read_only=True) as old, Ledger(target / LEDGER) as new:
        if new.began():
            raise DataError(
                "the new folder holds a run already",
                where=target,
                remedy=f"go on in {target} without `derive`, or choose another new folder",
            )
        pin(target, settings, seeds, prompts.PROMPT_VERSION, began=False, derived_from=str(source.absolute()))
        tasks = {entry.id: entry for entry in _applying_tasks(old, settings, seeds)}
        judged = TaskFilter(seeds, settings)
        take_settled(judged, settings, tasks.get)
        model = settings.answerer.model
        found = [(answer_request(settings, kept), old.settled(ANSWERS, kept.id)) for kept in judged.kept]
        answers = [answer for request, answer in found if answer and _applies(request, model, answer)]
        new.copy([*tasks.values(), *answers])
        counts = old.counts()
    settled = {stage: each["answered"] + each["failed"] for stage, each in counts.items()}
    return Derived(len(tasks), settled.get(TASKS, 0), len(answers), settled.get(ANSWERS, 0))


def _applying_tasks(old: Ledger, settings: Settings, seeds: Sequence[SeedTask]) -> Iterator[Entry]:
    """Yield the settled task requests that the new settings would ask in the same words."""
    for entry in old.entries(TASKS):
        if entry.state != "sent" and entry.id.isdigit() and int(entry.id) < settings.request_limit():
            request = task_request(settings, seeds, int(entry.id))
            if _applies(request, settings.teacher.model, entry):
                yield entry


def _applies(request: ChatRequest, model: str, entry: Entry) -> bool:
    return prompt_hash(request.body(model)) == entry.prompt_hash
