"""Near-duplicate filter: exact ROUGE-L F1 against everything kept so far, greedy, keep first.

A text is dropped when its ROUGE-L F1 with a kept text (seeds included) is **greater than** the threshold; a
score equal to it is kept, as self-instruct and Alpaca do. Tokens and scores are those of the package
``rouge_score`` without stemming, to the last bit, so every decision is the one brute force would take. Texts
without a token in ``[a-z0-9]`` score 0 with everything, there as here, and are always kept.

How it is fast and still exact. With lengths m and n, F1 = 2c/(m+n) for a longest common subsequence of c tokens,
so a pair passes the threshold only if c reaches ``need(m, n)``; lengths too far apart never do. The multisets of
their tokens have at least c elements in common, hence at most m + n - 2c that only one of them has.

1. Prefix. With the elements of every text in one order, rare first, a pair that passes shares an element among the
   first ``m - need + 1`` of the one and the first ``n - need + 1`` of the other (Chaudhuri et al. 2006). An inverted
   index by element and by band of lengths finds these pairs. The order is renewed from the pool's own counts
   whenever the pool has doubled; that costs a constant factor and changes no decision.
2. Signature. Each text has 128 bits, one toggled by each element. Two signatures differ in at most as many bits as
   there are elements that only one text has, so most pairs are refused by counting bits (a vector operation).
3. The few pairs left, about one a text, are settled by rapidfuzz's bit-parallel LCS.

The pool grows text by text at any time: nothing is computed anew for what it holds already, except that order.
"""

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq

from datagen.dedup.prefixes import band_of, own_prefixes, shelves
from datagen.dedup.rouge import f_measure, rouge_l, rouge_l_of
from datagen.dedup.words import count_words, ends, tokenize, word_count
from datagen.errors import ConfigError

__all__ = [
    "Near",
    "RougeFilter",
    "all_pairs",
    "count_words",
    "ends",
    "f_measure",
    "rouge_l",
    "rouge_l_of",
    "tokenize",
    "word_count",
]

_FIRST_RENEWAL = 256
_LARGEST_CHARACTER = 0x10FFFF
_SIGNATURE_BITS = 128
_HALF = (1 << 64) - 1
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Near:
    """The nearest text of the pool: ``index`` (seeds first, then in order), ROUGE-L F1, the text itself."""

    index: int
    score: float
    text: str


class RougeFilter:
    """Greedy near-duplicate filter over a growing pool.

    Args:
        seed_instructions: Texts that are in the pool from the start, unchecked.
        threshold: ROUGE-L F1 in [0, 1] above which a text is a near-duplicate.

    Raises:
        ConfigError: The threshold is outside [0, 1].

    Example:
        >>> pool = RougeFilter(["What is gout?"])
        >>> pool.offer("what is gout")
        Near(index=0, score=1.0, text='What is gout?')
        >>> pool.offer("How is asthma treated in children?") is None
        True
    """

    def __init__(self, seed_instructions: Iterable[str] = (), threshold: float = 0.7) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError("the ROUGE-L threshold is out of range", found=threshold, expected="0 to 1")
        self.threshold = threshold
        self.texts: list[str] = []
        self._encoded: list[str | tuple[int, ...]] = []
        self._elements: list[array[int]] = []
        self._element_of: dict[str | tuple[int, int], int] = {}
        self._rank: list[int] = []
        self._signatures = np.zeros((_FIRST_RENEWAL, 2), np.uint64)
        self._lengths = np.zeros(_FIRST_RENEWAL, np.int32)
        # element -> key of a band's shelf -> numbers of the texts there that have the element in their prefix.
        self._shelves: dict[int, dict[int, array[int]]] = {}
        self._next_renewal = _FIRST_RENEWAL
        for text in seed_instructions:
            self.add(text)

    def __len__(self) -> int:
        """Return how many texts the pool holds, seeds included."""
        return len(self.texts)

    def offer(self, instruction: str) -> Near | None:
        """Add the text to the pool unless one that is there is too near.

        Returns:
            None if the text was added, else the nearest text of the pool (the earliest of equals).
        """
        encoded, elements = self._encode(tokenize(instruction))
        near = self._nearest(self._matches(encoded, elements))
        if near is None:
            self._add(instruction, encoded, elements)
        return near

    def nearest(self, instruction: str) -> Near | None:
        """Return the pool's nearest text above the threshold without adding anything."""
        return self.nearest_of(tokenize(instruction))

    def nearest_of(self, tokens: Sequence[str]) -> Near | None:
        """Return the pool's nearest text above the threshold to the text that has these tokens."""
        return self._nearest(self._matches(*self._encode(tokens)))

    def matches(self, instruction: str) -> list[tuple[int, float]]:
        """Return number and score of every text of the pool above the threshold, in the pool's order."""
        return sorted(self._matches(*self._encode(tokenize(instruction))))

    def add(self, instruction: str) -> None:
        """Add a text unchecked."""
        self._add(instruction, *self._encode(tokenize(instruction)))

    def _encode(self, tokens: Iterable[str]) -> tuple[str | tuple[int, ...], list[int]]:
        """Return a text as token ids, for the LCS, and as a multiset: an element for each token and repeat."""
        element_of = self._element_of
        ids = [self._number(token) if (n := element_of.get(token)) is None else n for token in tokens]
        elements = ids.copy()
        if len(set(ids)) < len(ids):
            seen: Counter[int] = Counter()
            for place, token in enumerate(ids):
                if repeat := seen[token]:
                    key = (token, repeat)
                    n = element_of.get(key)
                    elements[place] = self._number(key) if n is None else n
                seen[token] = repeat + 1
        elements.sort(key=self._rank.__getitem__)
        # A string is what rapidfuzz reads fastest; ids beyond Unicode need the slower tuple.
        small = len(element_of) <= _LARGEST_CHARACTER
        return "".join(map(chr, ids)) if small else tuple(ids), elements

    def _number(self, key: str | tuple[int, int]) -> int:
        """Number a token, or its further repeats; what is new counts as rarer than all that was counted."""
        element = self._element_of[key] = len(self._element_of)
        self._rank.append(-element - 1)
        return element

    def _add(self, text: str, encoded: str | tuple[int, ...], elements: list[int]) -> None:
        number = len(self.texts)
        self.texts.append(text)
        self._encoded.append(encoded)
        self._elements.append(array("i", elements))
        if number == len(self._lengths):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
        self._signatures[number] = _signature(elements)
        self._lengths[number] = len(elements)
        if len(self.texts) >= self._next_renewal:
            self._renew()
        else:
            self._index(number, elements)

    def _index(self, number: int, elements: Sequence[int]) -> None:
        """Enter a text's prefix: enough of its rarest elements for any partner of any length."""
        length = len(elements)
        if not length:
            return  # ROUGE-L with a text without tokens is 0, which is above no threshold
        for_longer, for_any = own_prefixes(self.threshold, length)
        key = 2 * band_of(length)
        for place in range(for_any):
            shelf = self._shelves.setdefault(elements[place], {})
            if place == for_longer:
                key += 1
            numbers = shelf.get(key)
            if numbers is None:
                shelf[key] = array("i", (number,))
            else:
                numbers.append(number)

    def _renew(self) -> None:
        """Order the elements by how often the pool holds them, and index the pool anew."""
        counts: Counter[int] = Counter()
        for elements in self._elements:
            counts.update(elements)
        order = sorted(range(len(self._rank)), key=lambda element: (counts[element], element))
        for rank, element in enumerate(order):
            self._rank[element] = rank
        self._shelves.clear()
        for number, elements in enumerate(self._elements):
            renewed = sorted(elements, key=self._rank.__getitem__)
            self._elements[number] = array("i", renewed)
            self._index(number, renewed)
        self._next_renewal = 2 * len(self.texts)

    def _nearest(self, matches: Iterable[tuple[int, float]]) -> Near | None:
        number, score = min(matches, key=lambda match: (-match[1], match[0]), default=(-1, 0.0))
        return None if number < 0 else Near(number, score, self.texts[number])

    def _matches(
        self, encoded: str | tuple[int, ...], elements: Sequence[int]
    ) -> Iterator[tuple[int, float]]:
        """Yield number and score of every text above the threshold."""
        length = len(elements)
        if not length:
            return
        for number in self._candidates(elements):
            other = self._encoded[number]
            score = f_measure(LCSseq.similarity(encoded, other), length, len(other))
            if score > self.threshold:
                yield number, score

    def _candidates(self, elements: Sequence[int]) -> Sequence[int]:
        """Return every text that could pass the threshold, and a few that do not, each once."""
        found = array("i")
        for element, keys in zip(elements, shelves(self.threshold, len(elements)), strict=False):
            shelf = self._shelves.get(element)
            if shelf is None:
                continue
            for key in keys:
                numbers = shelf.get(key)
                if numbers is not None:
                    found.extend(numbers)
        if not found:
            return ()
        numbers_ = np.frombuffer(found, np.int32)
        differing = np.bitwise_count(self._signatures.take(numbers_, 0) ^ _signature(elements))
        allowed = (len(elements) + self._lengths.take(numbers_)) * (1 - self.threshold) + _ROUNDING
        left = numbers_[differing.sum(1, dtype=np.int32) <= allowed]
        return list(set(left.tolist()))


def all_pairs(texts: Iterable[str], known: Iterable[str] = (), threshold: float = 0.7) -> list[Near | None]:
    """Compare each text with all others, earlier and later ones, as AlpaCare's published filter does.

    Both members of a pair above the threshold vanish, and so does a whole chain of neighbours, where
    :class:`RougeFilter` keeps the first. It is here to compare with the paper.

    Args:
        texts: The texts to judge.
        known: Texts to compare with that are not judged.
        threshold: ROUGE-L F1 in [0, 1].

    Returns:
        For each text the nearest other one above the threshold (the earliest of equals), or None where there is none.
        ``index`` counts the known texts first.

    Example:
        >>> [near and near.index for near in all_pairs(["What is gout?", "Define fever.", "what is gout"])]
        [2, None, 0]
    """
    pool = RougeFilter(known, threshold)
    first = len(pool)
    best: list[tuple[float, int] | None] = []

    def consider(place: int, other: int, score: float) -> None:
        rank = -score, other
        before = best[place]
        best[place] = rank if before is None else min(before, rank)

    for place, text in enumerate(texts):
        best.append(None)
        for other, score in pool.matches(text):
            consider(place, other, score)
            if other >= first:
                consider(other - first, place + first, score)
        pool.add(text)
    return [None if rank is None else Near(rank[1], -rank[0], pool.texts[rank[1]]) for rank in best]


def _signature(elements: Iterable[int]) -> np.ndarray:
    """Toggle one of 128 bits for each element; two 64-bit words."""
    bits = 0
    for element in elements:
        bits ^= 1 << element % _SIGNATURE_BITS
    return np.array((bits & _HALF, bits >> 64), np.uint64)
