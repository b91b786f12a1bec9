"""A dry run: sample prompts, prices and the estimated cost, without sending anything."""

import dataclasses
from itertools import islice
from pathlib import Path

from datagen import prompts
from datagen.contamination.evaluation_files import EvaluationFile, read_evaluation
from datagen.money.prices import Prices
from datagen.questions import answer_request, read_seeds, task_requests
from datagen.safety import leaking_seeds
from datagen.seeds import odd_labels
from datagen.service.chat import ChatRequest
from datagen.settings import Settings
from datagen.task_filter import KeptTask
from datagen.work.estimate import Estimate, estimate
from datagen.work.folder import differences, refuse_foreign


@dataclasses.dataclass(frozen=True)
class SynthesisPlan:
    """The plan of a run.

    Attributes:
        settings: Its settings.
        seeds: Number of seed tasks.
        odd_labels: Missing or unknown labels of seed tasks, and seed tasks that overlap with an evaluation file.
        task_sample: Its first task request.
        answer_sample: The answer request for a seed task, as an example.
        prices: The prices used.
        estimate: Requests, tokens and cost, expected and at worst.
        differences: Differences from the settings that the work folder is pinned to.
        evaluation: The evaluation files as they were read.
    """

    settings: Settings
    seeds: int
    odd_labels: list[str]
    task_sample: ChatRequest
    answer_sample: ChatRequest
    prices: Prices
    estimate: Estimate
    differences: list[str]
    evaluation: list[EvaluationFile]


def plan(settings: Settings, work: Path) -> SynthesisPlan:
    """Plan a run. Nothing is sent or written, and no key is needed.

    Raises:
        ConfigError: The settings are not valid, or a budget is set and a model has no price.
        DataError: The seed file is invalid, or the work folder contains other files.
    """
    seeds = read_seeds(settings)
    prices = settings.all_prices()
    refuse_foreign(work)
    first = next(islice(task_requests(settings, seeds), 1))
    sample = KeptTask("t000000-00", seeds[0], "000000", settings.teacher.model)
    return SynthesisPlan(
        settings=settings,
        seeds=len(seeds),
        odd_labels=[*odd_labels(settings.seeds), *leaking_seeds(settings, seeds)],
        task_sample=first,
        answer_sample=answer_request(settings, sample),
        prices=prices,
        estimate=estimate(settings, seeds, task_requests(settings, seeds), prices),
        differences=differences(work, settings, seeds, prompts.PROMPT_VERSION),
        evaluation=[read_evaluation(spec) for spec in settings.evaluation_files],
    )
