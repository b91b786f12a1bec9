"""How near each instruction is to its nearest neighbour: exact ROUGE-L F1 against all others.

The overlap of two texts' multisets of tokens bounds their longest common subsequence from above. So the others are
tried in the order of that bound, and as soon as no bound exceeds the best score found, the rest need no look.
"""

from collections.abc import Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from datagen.dedup import f_measure, tokenize

_BATCH = 64


class Neighbours:
    """A pool of texts that answers how near the nearest other text is.

    Args:
        texts: The pool.

    Example:
        >>> pool = Neighbours(["List the causes of anemia", "List the signs of anemia", "What is gout?"])
        >>> [round(pool.nearest(number), 2) for number in range(3)]
        [0.8, 0.8, 0.0]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        vocabulary: dict[str, int] = {}
        postings: dict[tuple[int, int], list[int]] = {}
        self._encoded: list[tuple[int, ...]] = []
        self._elements: list[list[tuple[int, int]]] = []
        for number, text in enumerate(texts):
            ids = tuple(vocabulary.setdefault(token, len(vocabulary)) for token in tokenize(text))
            seen: dict[int, int] = {}
            elements = []
            for token in ids:
                repeat = seen[token] = seen.get(token, -1) + 1
                elements.append((token, repeat))
                postings.setdefault((token, repeat), []).append(number)
            self._encoded.append(ids)
            self._elements.append(elements)
        self._postings = {element: np.array(numbers, np.int32) for element, numbers in postings.items()}
        self._lengths = np.array([len(ids) for ids in self._encoded], np.int32)

    def __len__(self) -> int:
        """Return how many texts the pool holds."""
        return len(self._encoded)

    def nearest(self, number: int) -> float:
        """Return the highest ROUGE-L F1 of a text with any other text of the pool; 0 where it has no token."""
        ids = self._encoded[number]
        if not ids:
            return 0.0
        overlap = np.zeros(len(self), np.int32)
        for element in self._elements[number]:
            overlap[self._postings[element]] += 1  # a text stands once in each list
        overlap[number] = 0
        bounds = 2.0 * overlap / (len(ids) + np.maximum(self._lengths, 1))
        best = 0.0
        # The few highest bounds nearly always settle it; sort all only if they do not.
        for order in (_highest(bounds, _BATCH), np.argsort(-bounds, kind="stable")):
            for at in range(0, len(order), _BATCH):
                batch = order[at : at + _BATCH]
                batch = batch[bounds[batch] > best]  # leaves out the text itself, too: its bound is 0
                if not len(batch):
                    return best
                best = max(best, self._best(ids, batch))
        return best

    def _best(self, ids: tuple[int, ...], batch: "np.ndarray") -> float:
        others = [self._encoded[other] for other in batch]
        common = process.cdist([ids], others, scorer=LCSseq.similarity, dtype=np.int32)[0]
        return max(
            f_measure(int(lcs), len(ids), len(other)) for lcs, other in zip(common, others, strict=True)
        )


def _highest(values: "np.ndarray", count: int) -> "np.ndarray":
    if len(values) <= count:
        return np.argsort(-values, kind="stable")
    chosen = np.argpartition(-values, count - 1)[:count]
    return chosen[np.argsort(-values[chosen], kind="stable")]


def nearest_scores(texts: Sequence[str], sample: int | None = None) -> list[float]:
    """Return for each text, or for ``sample`` of them spread evenly, the ROUGE-L F1 with the nearest other text.

    The neighbours are sought among all texts in either case.

    Example:
        >>> nearest_scores(["What is gout?", "What is gout?", "Why?"])
        [1.0, 1.0, 0.0]
    """
    pool = Neighbours(texts)
    total = len(texts)
    count = total if sample is None else min(sample, total)
    return [pool.nearest(number * total // count) for number in range(count)]
