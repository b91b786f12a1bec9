"""The checks for personal identifiers and for overlap with evaluation sets."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from datagen.client import Reply
from datagen.contamination import Benchmarks, Leak
from datagen.contamination.evaluation_files import content_hash
from datagen.privacy import Detector, Hit, find, mask
from datagen.records import SeedTask, normal_input, shorten
from datagen.settings import Settings

IDENTIFIER = "personal-identifier"
OVERLAP = "evaluation-overlap"
_LISTED = 10


class Objection(Exception):
    """Why a task or an answer is rejected; ``details`` go into its row of ``rejected.jsonl`` under their own keys."""

    def __init__(self, reason: str, details: Mapping[str, Any] | None = None) -> None:
        self.reason, self.details = reason, dict(details or {})
        super().__init__(reason)


@dataclasses.dataclass(frozen=True)
class SafetyCheck:
    """Objects to overlap with evaluation sets; drops, masks or lists personal identifiers.

    Attributes:
        benchmarks: Evaluation sets that must not leak, or None.
        privacy: How to handle identifiers: "off", "report", "drop" or "mask".
        detector: Finds identifiers beside the patterns, or None.

    Example:
        >>> SafetyCheck(privacy="mask").check({"instruction": "Write to Mrs. Lind."})[0]
        {'instruction': 'Write to Mrs. [NAME].'}
    """

    benchmarks: Benchmarks | None = None
    privacy: str = "off"
    detector: Detector | None = None

    def check(self, texts: dict[str, str]) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Check any of the fields instruction, input, output and response: overlap first, on the text as written.

        Returns:
            The texts, masked where that is the policy, and kind and place of the identifiers found in them.

        Raises:
            Objection: They overlap with an evaluation item, or hold identifiers and the policy is "drop".
        """
        if leak := self._leak(texts):
            raise Objection(OVERLAP, leak.details())
        if self.privacy == "off":
            return texts, []
        hits = {field: find(text, self.detector) for field, text in texts.items()}
        found = [_place(field, hit) for field in hits for hit in hits[field]]
        if found and self.privacy == "drop":
            raise Objection(IDENTIFIER, {"identifiers": found})
        if found and self.privacy == "mask":
            texts = {field: mask(text, hits[field]) for field, text in texts.items()}
        return texts, found

    def check_task(self, task: SeedTask) -> SeedTask:
        """Return a new task, masked where that is the policy, or raise an :class:`Objection`."""
        texts, _ = self.check({"instruction": task.instruction, "input": task.input})
        return dataclasses.replace(task, instruction=texts["instruction"], input=texts["input"])

    def check_answer(self, reply: Reply) -> Reply:
        """Return an answer, masked where that is the policy, or raise an :class:`Objection`."""
        texts, _ = self.check({"output": reply.text})
        return dataclasses.replace(reply, text=texts["output"])

    def _leak(self, texts: Mapping[str, str]) -> Leak | None:
        if self.benchmarks is None:
            return None
        answer = texts.get("output") or texts.get("response") or ""
        task = self.benchmarks.check_task(texts.get("instruction", ""), normal_input(texts.get("input", "")))
        return task or self.benchmarks.check_answer(answer)


def safety_check(settings: Settings) -> SafetyCheck:
    """Return the check that the settings ask for of every new task and answer.

    Identifiers that are only reported are looked for in the results. Their model is loaded here in any case, so that
    a missing model is reported before any request is paid for.
    """
    model = detector(settings.privacy_model) if settings.privacy != "off" else None
    changing = settings.privacy if settings.privacy in ("drop", "mask") else "off"
    return SafetyCheck(benchmarks(settings) if settings.evaluation_files else None, changing, model)


def benchmarks(settings: Settings) -> Benchmarks:
    """Return the indexed evaluation files of the settings; they are read again only when one has changed."""
    hashes = tuple(content_hash(spec) for spec in settings.evaluation_files)
    return _benchmarks(
        settings.evaluation_files, hashes, settings.contamination_ngram, settings.contamination_rouge_l
    )


@lru_cache(maxsize=1)
def _benchmarks(files: tuple[str, ...], hashes: tuple[str, ...], ngram: int, rouge_l: float) -> Benchmarks:
    return Benchmarks(files, ngram, rouge_l)


def detector(model: str) -> Detector | None:
    """Return the detector that runs a spaCy model beside the patterns, or None for the patterns alone.

    Raises:
        ConfigError: The extra ``privacy`` or the model is not installed.
    """
    if not model:
        return None
    from datagen.privacy.detector import model_detector

    return model_detector(model)


def identifiers(fields: Mapping[str, str], detector: Detector | None = None) -> Iterator[dict[str, Any]]:
    """Yield kind and place, but not the text, of every identifier in some named fields.

    Example:
        >>> list(identifiers({"instruction": "Write to Mrs. Lind."}))
        [{'kind': 'NAME', 'field': 'instruction', 'start': 14, 'end': 18}]
    """
    for field, text in fields.items():
        yield from (_place(field, hit) for hit in find(text, detector))


def _place(field: str, hit: Hit) -> dict[str, Any]:
    return {"kind": hit.kind, "field": field, "start": hit.start, "end": hit.end}


def leaking_seeds(settings: Settings, seeds: Sequence[SeedTask]) -> list[str]:
    """Say which seed tasks overlap with an evaluation file: the teacher sees them and may write similar tasks.

    Returns:
        One sentence each for the first ten, and one for the rest.
    """
    if not settings.evaluation_files:
        return []
    indexed = benchmarks(settings)
    found = ((seed, indexed.check_task(seed.instruction, seed.normal_input())) for seed in seeds)
    leaks = [(seed, leak) for seed, leak in found if leak is not None]
    sentences = [
        f"{shorten(seed.instruction, 60)!r} overlaps with item {leak.item} of {leak.file} ({leak.kind})"
        for seed, leak in leaks[:_LISTED]
    ]
    more = len(leaks) - _LISTED
    return [*sentences, f"{more} more of them overlap with evaluation files"] if more > 0 else sentences
