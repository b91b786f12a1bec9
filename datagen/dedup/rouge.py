"""ROUGE-L F1 of two texts, to the last bit as in ``rouge_score``, on words of any script."""

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from datagen.dedup.words import tokenize


def f_measure(lcs: int, length_a: int, length_b: int) -> float:
    """ROUGE-L F1 from a common subsequence's length, in the same floating-point steps as ``rouge_score``."""
    if not lcs:
        return 0.0
    precision, recall = lcs / length_a, lcs / length_b
    return 2 * precision * recall / (precision + recall)


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L F1 of two texts; in Latin script equal to ``rouge_score``'s without stemming.

    Example:
        >>> round(rouge_l("list the causes of anemia", "list the signs of anemia"), 2)
        0.8
    """
    return rouge_l_of(tokenize(a), tokenize(b))


def rouge_l_of(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L F1 of two texts' tokens."""
    return f_measure(LCSseq.similarity(a, b), len(a), len(b))
