"""ROUGE-L between answers and reference answers: overlap of words in the same order.

Tokens are as in the ``rouge_score`` package without stemming: lower case, runs of ``a-z0-9``. The F1 of an
answer is 2 LCS / (tokens of the answer + tokens of the reference), where LCS is the length of their longest
common subsequence.

Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from alpacare_jax.evaluate.bootstrap import Interval, mean_interval
from datagen.errors import DataError

_TOKEN = re.compile(r"[a-z0-9]+")


class RougeL(NamedTuple):
    """Mean ROUGE-L F1 over items, from 0 to 1, with its 95% bootstrap interval and each item's value."""

    mean: float
    interval: Interval
    by_id: dict[str, float]


def tokenise(text: str) -> list[str]:
    """Split a text into ROUGE's tokens.

    Example:
        >>> tokenise("Hb 13.2 g/dL; naïve T-cells.")
        ['hb', '13', '2', 'g', 'dl', 'na', 've', 't', 'cells']
    """
    return _TOKEN.findall(text.lower())


def rouge_l_f1(answer: str, reference: str) -> float:
    """Return the ROUGE-L F1 of an answer against a reference, from 0 to 1; 0 where either has no token.

    Example:
        >>> rouge_l_f1("take the tablet daily", "Take one tablet daily.")
        0.75
    """
    from rapidfuzz.distance import LCSseq

    ours, theirs = tokenise(answer), tokenise(reference)
    if not ours or not theirs:
        return 0.0
    return 2 * LCSseq.similarity(ours, theirs) / (len(ours) + len(theirs))


def mean_rouge_l(answers: Mapping[str, str], references: Mapping[str, str]) -> RougeL:
    """Average ROUGE-L F1 over answers, each with the reference of the same id.

    Args:
        answers: Answers by id.
        references: Reference answers by id; more of them than answers is allowed.

    Raises:
        DataError: There is no answer, or one has no reference.
    """
    missing = [id_ for id_ in answers if id_ not in references]
    if missing or not answers:
        raise DataError(
            "some answers have no reference" if missing else "there are no answers to score",
            found=f"no reference for id {', '.join(missing[:8])}" if missing else None,
            remedy="give answers and references of the same questions" if missing else None,
        )
    by_id = {id_: rouge_l_f1(answer, references[id_]) for id_, answer in answers.items()}
    values = np.array(list(by_id.values()))
    interval = mean_interval(values)
    assert interval is not None
    return RougeL(float(values.mean()), interval, by_id)
