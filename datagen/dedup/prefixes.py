"""How much of a text is indexed and looked up, by lengths alone, so that no pair above a threshold is missed.

:mod:`datagen.dedup` says why a prefix suffices. The shelf ``2 * band`` of the index holds what partners of the same
length or longer need, ``2 * band + 1`` the rest.
"""

import bisect

from datagen.dedup.rouge import f_measure

_BAND_RATIO = 1.3


def _band_starts() -> list[int]:
    starts = [1]
    while starts[-1] < 1 << 40:
        starts.append(max(starts[-1] + 1, round(starts[-1] * _BAND_RATIO)))
    return starts


_BANDS = _band_starts()
"""The shortest length of each band; wider bands mean fewer look-ups and more pairs to refuse by signature."""


def band_of(length: int) -> int:
    """Return the number of the band that a length belongs to."""
    return bisect.bisect_right(_BANDS, length) - 1


class Prefixes:
    """Prefixes of texts under one threshold, each worked out once for a length.

    Args:
        threshold: ROUGE-L F1 in [0, 1] above which two texts are near-duplicates.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._shelves: dict[int, list[list[int]]] = {}
        self._own: dict[int, tuple[int, int]] = {}

    def shelves(self, length: int) -> list[list[int]]:
        """Return for each place of a text of this length, rarest first, the shelves in which to look it up."""
        places = self._shelves.get(length)
        if places is None:
            places = self._shelves[length] = self._make(length)
        return places

    def _make(self, length: int) -> list[list[int]]:
        shortest = self._shortest_partner(length)
        prefixes: list[tuple[int, int]] = []
        for band, start in enumerate(_BANDS[:-1]):
            longest_here = _BANDS[band + 1] - 1
            shortest_here = max(start, shortest)
            need = self._needed(length, shortest_here) if shortest_here <= longest_here else length + 1
            if need <= min(length, shortest_here):
                # The band's shortest text asks for the longest prefix.
                prefixes.append((length - need + 1, 2 * band))
                if longest_here > length:
                    prefixes.append((length - need + 1, 2 * band + 1))
            elif start > length:
                break
        depth = max((prefix for prefix, _ in prefixes), default=0)
        return [[key for prefix, key in prefixes if place < prefix] for place in range(depth)]

    def own(self, length: int) -> tuple[int, int]:
        """Return the prefix that partners of this length or longer need, and the one that any partner needs."""
        prefix = self._own.get(length)
        if prefix is None:
            for_longer = length - self._needed(length, length) + 1
            prefix = self._own[length] = for_longer, length - self._shortest_partner(length) + 1
        return prefix

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
        lengths = range(1, length + 1)
        passes = bisect.bisect_left(
            lengths, True, key=lambda other: f_measure(other, length, other) > self.threshold
        )
        return passes + 1
