"""Near-duplicate filter: exact ROUGE-L F1 against everything kept so far, greedy, keep first.

A text is dropped when its ROUGE-L F1 with a kept text (seeds included) is **greater than** the threshold; a
score equal to it is kept, as self-instruct and Alpaca do. Tokens and scores are those of the package
``rouge_score`` without stemming, to the last bit, so every decision is the one brute force would take. Texts
without a token in ``[a-z0-9]`` score 0 with everything, there as here, and are always kept.

How it is fast and still exact. With lengths m and n, F1 = 2c/(m+n) for a longest common subsequence of c tokens,
so a pair passes the threshold only if c reaches ``need(m, n)``; lengths too far apart never do. The overlap of the
two multisets of tokens is at least c. With the tokens of every text in one order, rare first, the pair therefore
shares a token among the first ``m - need + 1`` of the one and the first ``n - need + 1`` of the other (prefix
filter; Chaudhuri et al. 2006). An inverted index by length and token finds these pairs, and rapidfuzz's
bit-parallel LCS settles them. The order is renewed from the pool's own counts whenever the pool has doubled, which
costs a constant factor and changes no decision.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from datagen.errors import ConfigError

_TOKEN = re.compile(r"[a-z0-9]+")
_FIRST_RENEWAL = 256
_LARGEST_CHARACTER = 0x10FFFF


@dataclasses.dataclass(frozen=True)
class Near:
    """The nearest kept text: ``index`` (seeds first, then kept texts in order), ROUGE-L F1, the text itself."""

    index: int
    score: float
    text: str


_Postings = dict[int, list[int]]
"""For texts of one length: element -> numbers of the texts that have it in their prefix."""

_Partners = tuple[dict[int, int], list[tuple[int, _Postings]]]
"""For one length: the LCS needed with each other length; the prefix to look up in each other length's postings."""


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


class RougeFilter:
    """Greedy near-duplicate filter over a growing pool.

    Args:
        seed_instructions: Texts that are in the pool from the start, unchecked.
        threshold: ROUGE-L F1 in [0, 1] above which a text is a near-duplicate.

    Raises:
        ConfigError: The threshold is outside [0, 1].

    Example:
        >>> pool = RougeFilter(["List the causes of anemia."])
        >>> pool.offer("List the main causes of anemia.").index
        0
        >>> pool.offer("How is gout treated?") is None
        True
    """

    def __init__(self, seed_instructions: Iterable[str] = (), threshold: float = 0.7) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError("the ROUGE-L threshold is out of range", found=threshold, expected="0 to 1")
        self.threshold = threshold
        self.texts: list[str] = []
        self._encoded: list[str | tuple[int, ...]] = []
        self._elements: list[list[int]] = []
        self._vocabulary: dict[str, int] = {}
        self._element_of: dict[tuple[int, int], int] = {}
        self._rank: list[int] = []
        # For each length: postings for partners of any length, and the shorter ones for partners at least as long.
        self._postings: dict[int, tuple[_Postings, _Postings]] = {}
        self._partner_cache: dict[int, tuple[int, _Partners]] = {}
        self._shortest: dict[int, int] = {}
        self._next_renewal = _FIRST_RENEWAL
        for text in seed_instructions:
            self._add(text, *self._encode(text))

    def __len__(self) -> int:
        """Return how many texts the pool holds, seeds included."""
        return len(self.texts)

    def offer(self, instruction: str) -> Near | None:
        """Add the text to the pool unless a kept one is too near.

        Returns:
            None if the text was kept, else the nearest kept text (the earliest of equals).
        """
        encoded, elements = self._encode(instruction)
        near = self._nearest(encoded, elements)
        if near is None:
            self._add(instruction, encoded, elements)
        return near

    def nearest(self, instruction: str) -> Near | None:
        """Return the nearest kept text above the threshold without adding anything."""
        return self._nearest(*self._encode(instruction))

    def _encode(self, text: str) -> tuple[str | tuple[int, ...], list[int]]:
        """Return the text as token ids, for the LCS, and as a multiset: an element for each token and repeat."""
        vocabulary, element_of = self._vocabulary, self._element_of
        ids = [vocabulary.setdefault(token, len(vocabulary)) for token in tokenize(text)]
        seen: dict[int, int] = {}
        elements = []
        for token in ids:
            repeat = seen[token] = seen.get(token, -1) + 1
            element = element_of.get((token, repeat))
            if element is None:
                element = element_of[token, repeat] = len(element_of)
                self._rank.append(
                    -element - 1
                )  # new since the last renewal: rarer than all that were counted
            elements.append(element)
        elements.sort(key=self._rank.__getitem__)
        # A string is what rapidfuzz reads fastest; ids beyond Unicode need the slower tuple.
        small = len(vocabulary) <= _LARGEST_CHARACTER
        return "".join(map(chr, ids)) if small else tuple(ids), elements

    def _add(self, text: str, encoded: str | tuple[int, ...], elements: list[int]) -> None:
        self.texts.append(text)
        self._encoded.append(encoded)
        self._elements.append(elements)
        if len(self.texts) >= self._next_renewal:
            self._renew()
        else:
            self._index(len(self.texts) - 1, elements)

    def _index(self, number: int, elements: list[int]) -> None:
        """Enter a text's prefix: enough of its rarest elements for any partner of any length."""
        length = len(elements)
        if not length:
            return  # ROUGE-L with a text without tokens is 0, which is above no threshold
        everyone, not_shorter = self._postings.setdefault(length, ({}, {}))
        equal_prefix = length - self._needed(length, length) + 1
        for place in range(length - self._shortest_partner(length) + 1):
            everyone.setdefault(elements[place], []).append(number)
            if place < equal_prefix:
                not_shorter.setdefault(elements[place], []).append(number)

    def _renew(self) -> None:
        """Order the elements by how often the pool holds them, and index the pool anew."""
        counts = Counter(element for elements in self._elements for element in elements)
        order = sorted(range(len(self._rank)), key=lambda element: (counts[element], element))
        for rank, element in enumerate(order):
            self._rank[element] = rank
        for postings in chain.from_iterable(self._postings.values()):
            postings.clear()
        for number, elements in enumerate(self._elements):
            elements.sort(key=self._rank.__getitem__)
            self._index(number, elements)
        self._next_renewal = 2 * len(self.texts)

    def _nearest(self, encoded: str | tuple[int, ...], elements: list[int]) -> Near | None:
        length = len(elements)
        candidates = list(self._candidates(elements)) if elements else []
        if not candidates:
            return None
        needs, _ = self._partners(length)
        others = [self._encoded[index] for index in candidates]
        best: tuple[float, int] | None = None
        for other, lcs, place in process.extract(
            encoded, others, scorer=LCSseq.similarity, score_cutoff=min(needs.values()), limit=None
        ):
            if lcs >= needs[len(other)]:
                rank = -f_measure(lcs, length, len(other)), candidates[place]
                best = rank if best is None else min(best, rank)
        return None if best is None else Near(best[1], -best[0], self.texts[best[1]])

    def _candidates(self, elements: list[int]) -> set[int]:
        """Return every text that could pass the threshold, and some that do not."""
        lists: list[list[int]] = []
        for prefix, postings in self._partners(len(elements))[1]:
            lists.extend(filter(None, map(postings.get, elements[:prefix])))
        return set().union(*lists)

    def _partners(self, length: int) -> _Partners:
        """Return how a text of this length can meet those in the pool; lengths it cannot meet are left out."""
        lengths_known, partners = self._partner_cache.get(length, (-1, ({}, [])))
        if lengths_known != len(self._postings):
            needs = {other: self._needed(length, other) for other in self._postings}
            needs = {other: need for other, need in needs.items() if need <= min(length, other)}
            partners = (
                needs,
                [
                    (length - need + 1, self._postings[other][other <= length])
                    for other, need in needs.items()
                ],
            )
            self._partner_cache[length] = len(self._postings), partners
        return partners

    def _needed(self, length: int, other: int) -> int:
        """Return the shortest common subsequence that puts two texts of these lengths above the threshold."""
        need = int(self.threshold * (length + other) / 2)
        while f_measure(need, length, other) <= self.threshold:
            need += 1
        while need and f_measure(need - 1, length, other) > self.threshold:
            need -= 1
        return need

    def _shortest_partner(self, length: int) -> int:
        """Return the shortest length that can pass with this one; a longer one if none can."""
        shortest = self._shortest.get(length)
        if shortest is None:
            shortest = 1
            while shortest <= length and f_measure(shortest, length, shortest) <= self.threshold:
                shortest += 1
            self._shortest[length] = shortest
        return shortest
