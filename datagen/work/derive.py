"""Deriving a work folder: a new folder with other settings reuses every reply of an old one that still applies.

A reply applies if the new configuration sends exactly the same request: the same prompt, model and sampling, compared
by the ledger's prompt hash. So a change of filter or answerer keeps all tasks that were paid for. The old folder stays
unchanged.
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
    """Make a work folder for other settings and copy every reply that still applies into it.

    The cost of copied replies counts in the old folder only, not against the new folder's budget.

    Args:
        source: The work folder of an earlier run; only read.
        target: The new folder; must not hold a run that has asked anything.
        settings: The settings of the new folder.

    Raises:
        DataError: The source is no work folder, or the target contains a run or other files.
    """
    if source.resolve() == target.resolve():
        raise DataError("a work folder cannot be derived from itself", where=target)
    refuse_foreign(target)
    refuse_lost(source)
    seeds = read_seeds(settings)
    with Ledger(source / LEDGER, read_only=True) as old, Ledger(target / LEDGER) as new:
        if new.began():
            raise DataError(
                "the new folder already contains a run",
                where=target,
                remedy=f"resume {target} without `derive`, or choose another new folder",
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
    """Yield the settled task requests that the new settings would send unchanged."""
    for entry in old.entries(TASKS):
        if entry.state != "sent" and entry.id.isdigit() and int(entry.id) < settings.request_limit():
            request = task_request(settings, seeds, int(entry.id))
            if _applies(request, settings.teacher.model, entry):
                yield entry


def _applies(request: ChatRequest, model: str, entry: Entry) -> bool:
    return prompt_hash(request.body(model)) == entry.prompt_hash
