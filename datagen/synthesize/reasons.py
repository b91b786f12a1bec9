"""Explanations for a run that kept no task or published no answer, with remedies."""

import functools
import importlib.resources
from collections import Counter
from typing import Any

import yaml

from datagen.finish import read_finish
from datagen.task_filter import FilteredAnswers, TaskFilter

_USUAL = "read the reasons in rejected.jsonl; --retry-failed asks failed requests again"


@functools.cache
def _known() -> dict[str, dict[str, str]]:
    text = importlib.resources.files("datagen.synthesize").joinpath("reasons.yaml").read_text("utf-8")
    known: dict[str, dict[str, str]] = yaml.safe_load(text)
    return known


def why_none_kept(task_filter: TaskFilter) -> tuple[str, str]:
    """Return the reasons why no task was kept, with counts, and a remedy for the most frequent one."""
    reasons = task_filter.failed + Counter(row["reason"] for row in task_filter.rejected)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    main = _known().get(reasons.most_common(1)[0][0]) if reasons else None
    if main is None:
        return counts, f"{_USUAL}; a stronger teacher or a larger --max-tokens may help"
    return f"{counts} ({main['what']})", main["remedy"]


def why_nothing(answers: FilteredAnswers) -> str:
    """Explain why no answer could be published: the most frequent reasons, with an example and a remedy.

    Example:
        >>> row = {"id": "t0", "reason": "unfinished", "finish_reason": "length", "text": "Rest and"}
        >>> print(why_nothing(FilteredAnswers(rejected=[row])))
        No answer of 1 can be published.
          1: the reply was cut off at the limit of tokens; raise --answer-max-tokens, with --derive NEW_FOLDER
          read the reasons in rejected.jsonl; --retry-failed asks failed requests again
    """
    reasons = [_reason(row) for row in answers.rejected]
    examples = dict(zip(reversed(reasons), reversed(answers.rejected), strict=True))
    lines = [f"No answer of {len(reasons)} can be published."]
    for reason, count in Counter(reasons).most_common(3):
        if reason in _known():
            words = "{what}; {remedy}".format(**_known()[reason])
        else:
            error = examples[reason].get("error")
            words = f"failed, such as {error}" if error else f"rejected as {reason}"
        lines.append(f"  {count}: {words}")
    return "\n".join([*lines, f"  {_USUAL}"])


def _reason(row: dict[str, Any]) -> str:
    if read_finish(row.get("finish_reason")) == "cut":
        return "cut"
    return str(row["reason"]).removeprefix("answer-")
