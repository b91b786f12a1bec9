"""The requests of a run: task request i is a pure function of the settings and i, an answer request of its task."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from datagen import prompts
from datagen.coverage import draw_examples
from datagen.errors import ConfigError
from datagen.records import SeedTask
from datagen.seeds import load_seeds
from datagen.service.chat import TEXT, ChatRequest
from datagen.settings import Settings
from datagen.task_filter import KeptTask

#: The ledger's stages.
TASKS = "tasks"
ANSWERS = "answers"


def read_seeds(settings: Settings) -> list[SeedTask]:
    """Read the settings' seed tasks.

    Raises:
        ConfigError: There are fewer of them than a request is to show.
        DataError: The file is broken.
    """
    seeds = load_seeds(settings.seeds)
    if settings.examples > len(seeds):
        raise ConfigError(
            "`examples` exceeds the number of seed tasks",
            where=settings.seeds,
            found=f"{len(seeds)} tasks",
            expected=f"at least {settings.examples}",
            remedy="lower `examples` or add seed tasks",
        )
    return seeds


def task_requests(settings: Settings, seeds: Sequence[SeedTask]) -> Iterator[ChatRequest]:
    """Yield the task requests 0, 1, 2... up to the limit."""
    return (task_request(settings, seeds, number) for number in range(settings.request_limit()))


def task_request(settings: Settings, seeds: Sequence[SeedTask], number: int) -> ChatRequest:
    """Return task request ``number``, a pure function of the settings' seed and the number."""
    examples = draw_examples(seeds, settings.examples, settings.seed, number, settings.sampling)
    sampling = settings.task_sampling
    messages = prompts.task_request_messages(examples, count=settings.tasks_per_request, form=sampling.format)
    form = None if sampling.format == TEXT else prompts.response_format()
    if settings.send_seed:
        sampling = dataclasses.replace(sampling, seed=_number_of(f"{settings.seed}:{number}"))
    return ChatRequest(f"{number:06d}", messages, sampling, form)


def answer_request(settings: Settings, kept: KeptTask) -> ChatRequest:
    """Return the request that has one kept task answered; its id is the task's."""
    sampling = settings.answer_sampling
    if settings.send_seed:
        sampling = dataclasses.replace(sampling, seed=_number_of(f"{settings.seed}:{kept.id}"))
    return ChatRequest(kept.id, prompts.answer_request_messages(kept.task), sampling)


def _number_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
