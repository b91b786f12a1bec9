"""The settings of a synthesis run, read from YAML and flags; later sources override earlier ones."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from datagen import configuration
from datagen.batch.files import BatchLimits
from datagen.client import Service
from datagen.configuration import Range, check
from datagen.contamination.evaluation_files import absolute, split_fields
from datagen.coverage import EVEN, SAMPLINGS
from datagen.errors import ConfigError
from datagen.files import refuse_remote
from datagen.language import ANY, LANGUAGES
from datagen.money.prices import Prices
from datagen.privacy import POLICIES
from datagen.service.chat import TEXT, Sampling

LIVE, BATCH = "live", "batch"

_TASK_SAMPLING = Sampling(presence_penalty=1.5, max_tokens=3072)
_ANSWER_SAMPLING = Sampling(presence_penalty=1.5, max_tokens=1024)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """Budget, prices and request mode (live or batch) of a run; shared by synthesis and judging.

    Attributes:
        budget_usd: The most that the work folder may ever spend, in US dollars; None for no cap.
        prices: Prices of models, which override the built-in price list: a YAML file, or a mapping of models.
        mode: "live" sends single requests; "batch" uses the service's batch API, at lower prices and within a day.
        batch: Size limits, rounds and polling of batches.
    """

    budget_usd: Annotated[float | None, Range(0, 10**9)] = None
    prices: Path | dict | None = None
    mode: Annotated[str, (LIVE, BATCH)] = LIVE
    batch: BatchLimits = BatchLimits()

    def __post_init__(self) -> None:
        check(self)
        for key in ("seeds", "prices"):
            if isinstance(path := getattr(self, key, None), Path):
                refuse_remote(path, key)

    def models(self) -> tuple[str, ...]:
        """Return the models that requests go to; a budget needs a price for each."""
        return ()

    def all_prices(self) -> Prices:
        """Return the built-in prices, overridden by the user's own.

        Raises:
            ConfigError: The user's prices are not valid, or there is a budget and a model without a price.
        """
        prices = Prices.listed()
        if isinstance(self.prices, dict):
            prices = Prices.from_mapping(self.prices, "prices in the configuration").over(prices)
        elif self.prices is not None:
            prices = Prices.from_file(self.prices).over(prices)
        if self.budget_usd is not None:
            prices.require(*self.models())
        return prices


@dataclasses.dataclass(frozen=True)
class Settings(Terms):
    """What a synthesis run does, with the budget and request mode of ``Terms``.

    Attributes:
        teacher: Writes the tasks.
        answerer: Answers them.
        seeds: Seed file; the seed tasks of this package when None.
        target: Accepted tasks at which the run stops asking for more.
        tasks_per_request: New tasks asked for in one request.
        examples: Seed tasks shown in one request.
        sampling: How they are drawn: "even" balances types, views, topics and difficulties; "uniform" draws every seed
            task with the same probability, as in the paper.
        seed: Random seed of all prompts.
        max_requests: Task requests after which the run gives up; None allows ten times what the target needs.
        similarity: ROUGE-L F1 with an earlier instruction above which a task is a near-duplicate.
        language: Required language of instructions and answers, such as "en"; "any" disables the check.
        eager: Always keep ``concurrency`` task requests in flight, though the last may not be needed: faster where
            requests cost nothing. Otherwise only as many as the target is estimated to need.
        send_seed: Send a sampling seed with each request, for services that honour it.
        privacy: What to do with personal identifiers in tasks and answers: "off" skips the search, "report" lists
            them, "drop" rejects every task or answer with one, "mask" replaces each by its kind.
        privacy_model: spaCy model that finds names and places in addition to the patterns (extra ``privacy``); ""
            uses the patterns only.
        evaluation_files: Evaluation sets that must not leak into the tasks and answers.
        contamination_ngram: Tokens in a row shared with an evaluation item that count as a leak.
        contamination_rouge_l: ROUGE-L F1 with an evaluation text above which a text counts as a leak.
        task_sampling: Sampling parameters of task requests.
        answer_sampling: Sampling parameters of answer requests.
    """

    teacher: Service
    answerer: Service
    seeds: Path | None = None
    target: Annotated[int, Range(1, 10**9)] = 100
    tasks_per_request: Annotated[int, Range(1, 1000)] = 12
    examples: Annotated[int, Range(1, 1000)] = 3
    sampling: Annotated[str, SAMPLINGS] = EVEN
    seed: int = 0
    max_requests: Annotated[int | None, Range(1, 10**9)] = None
    similarity: Annotated[float, Range(0, 1)] = 0.7
    language: Annotated[str, (ANY, *LANGUAGES)] = "en"
    eager: bool = False
    send_seed: bool = False
    privacy: Annotated[str, POLICIES] = "report"
    privacy_model: str = ""
    evaluation_files: tuple[str, ...] = ()
    contamination_ngram: Annotated[int, Range(5, 1000)] = 13
    contamination_rouge_l: Annotated[float, Range(0, 1)] = 0.7
    task_sampling: Sampling = _TASK_SAMPLING
    answer_sampling: Sampling = _ANSWER_SAMPLING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_sampling.format != TEXT:
            raise ConfigError(
                "answers are always text", where="answer_sampling.format", remedy="leave it out"
            )

    def models(self) -> tuple[str, ...]:
        """Return teacher and answerer."""
        return self.teacher.model, self.answerer.model

    def request_limit(self) -> int:
        """Return how many task requests the run may make."""
        if self.max_requests is not None:
            return self.max_requests
        return 10 * -(-self.target // self.tasks_per_request) + 10


def read_settings(sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Build the settings from nested mappings; later ones override earlier ones.

    Args:
        sources: Pairs of a name for messages (a file, "the command line") and its mapping. The
            answerer takes every field that it does not set from the teacher.

    Raises:
        ConfigError: Unknown keys, wrong types or impossible values; all bad keys are named at once.

    Examples:
        >>> flags = {"teacher": {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}, "target": 5}
        >>> read_settings([("flags", flags)]).answerer.model
        'm'
    """
    merged = configuration.merge(Settings, *sources)
    where = " and ".join(name for name, mapping in sources if mapping)
    teacher = merged.get("teacher", {})
    absent = [f"teacher.{key} is missing" for key in ("base_url", "model") if not teacher.get(key)]
    configuration.refuse(absent, where)
    merged["answerer"] = _inherit(teacher, merged.get("answerer", {}))
    return configuration.build(Settings, (where, merged))


def beside(path: Path, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, with relative paths resolved from the folder of that file.

    Args:
        path: The file of settings.
        mapping: Its content.

    Examples:
        >>> beside(Path("/runs/one.yaml"), {"seeds": "seeds.jsonl", "target": 5})
        {'seeds': '/runs/seeds.jsonl', 'target': 5}
    """
    folder = path.absolute().parent
    result = dict(mapping)
    for key in ("seeds", "prices"):
        if isinstance(result.get(key), str | Path):
            result[key] = os.path.normpath(folder / result[key])
    if isinstance(result.get("evaluation_files"), list):
        result["evaluation_files"] = [
            os.path.normpath(absolute(folder / spec)) if isinstance(spec, str) else spec
            for spec in result["evaluation_files"]
        ]
    return result


def missing_files(mapping: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files that settings name and that do not exist, by their keys."""
    named = [(key, mapping[key]) for key in ("seeds", "prices") if isinstance(mapping.get(key), str | Path)]
    files = [(key, Path(value)) for key, value in named]
    files += [("evaluation_files", split_fields(spec)[0]) for spec in mapping.get("evaluation_files") or ()]
    return {key: path for key, path in files if not path.exists()}


def to_mapping(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values for JSON, which ``read_settings`` reads."""
    mapping: dict[str, Any] = configuration.to_plain(settings)
    for name in ("seeds", "prices"):
        if isinstance(mapping[name], str):
            mapping[name] = str(Path(mapping[name]).absolute())
    mapping["evaluation_files"] = [absolute(spec) for spec in settings.evaluation_files]
    # Fields that the answerer shares with the teacher follow the teacher's when that is changed later.
    teacher, answerer = mapping["teacher"], mapping["answerer"]
    mapping["answerer"] = {key: value for key, value in answerer.items() if value != teacher[key]}
    return mapping


def _inherit(teacher: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Give the answerer the fields that it does not set, but never send the teacher's key to another host."""
    hosts = [urlsplit(str(service.get("base_url", ""))).netloc for service in (teacher, own)]
    if hosts[1] and hosts[0] != hosts[1] and "api_key_env" not in own:
        if not Service(str(own["base_url"]), "any").is_loopback():
            raise ConfigError(
                "answerer.api_key_env is missing",
                where="answerer.api_key_env",
                found=f"the answerer at {hosts[1]}, the teacher at {hosts[0]}",
                remedy="name the environment variable with the answerer's key: the teacher's is not sent elsewhere",
            )
        own = {**own, "api_key_env": ""}
    return configuration.lay_over(teacher, own)
