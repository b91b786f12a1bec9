"""ROUGE-L F1 of two texts, with the tokens and to the last bit of ``rouge_score`` without stemming."""

import re

from rapidfuzz.distance import LCSseq

_TOKEN = re.compile(r"[a-z0-9]+")


def tokenize(text: str) -> list[str]:
    """Split as ``rouge_score`` does without stemming: lower case, runs of ``[a-z0-9]``.

    Example:
        >>> tokenize("What's HbA1c, in %?")
        ['what', 's', 'hba1c', 'in']
    """
    return _TOKEN.findall(text.lower())


def f_measure(lcs: int, length_a: int, length_b: int) -> float:
    """ROUGE-L F1 from a common subsequence's length, in the same floating-point steps as ``rouge_score``."""
    if not lcs:
        return 0.0
    precision, recall = lcs / length_a, lcs / length_b
    return 2 * precision * recall / (precision + recall)


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L F1 of two texts, equal to ``rouge_score``'s without stemming.

    Example:
        >>> round(rouge_l("list the causes of anemia", "list the signs of anemia"), 2)
        0.8
    """
    tokens_a, tokens_b = tokenize(a), tokenize(b)
    return f_measure(LCSseq.similarity(tokens_a, tokens_b), len(tokens_a), len(tokens_b))
