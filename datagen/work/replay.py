"""Judging a ledger anew: what a run has kept and published so far, also beside a running one."""

from collections.abc import Sequence

from datagen import prompts, publish
from datagen.client import read_reply
from datagen.ledger import Ledger
from datagen.questions import ANSWERS, TASKS
from datagen.records import SeedTask
from datagen.settings import Settings
from datagen.sieve import Sieve, answer_checks


def replay(ledger: Ledger, settings: Settings, seeds: Sequence[SeedTask]) -> tuple[Sieve, publish.Outcome]:
    """Judge every reply in the order of the requests, as the run itself does; change nothing.

    Args:
        ledger: The ledger, which may be written to meanwhile.
        settings: The run's settings.
        seeds: The run's seed tasks.

    Returns:
        The sieve with what was kept and rejected, and what became of the answers that are in.
    """
    sieve = Sieve(seeds, settings)
    for number in range(settings.request_limit()):
        entry = ledger.get(TASKS, f"{number:06d}")
        if entry is None or entry.state == "sent" or sieve.full:
            break
        sieve.take(read_reply(entry))
    settled = {entry.id: read_reply(entry) for entry in ledger.entries(ANSWERS) if entry.state != "sent"}
    answered = [kept for kept in sieve.kept if kept.id in settled]
    replies = [settled[kept.id] for kept in answered]
    return sieve, publish.settle(answered, replies, prompts.PROMPT_VERSION, answer_checks(settings))
