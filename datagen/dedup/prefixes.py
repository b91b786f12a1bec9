"""How much of a text is indexed and looked up, by lengths alone, so that no pair above a threshold is missed.

:mod:`datagen.dedup` says why a prefix suffices. The shelf ``2 * band`` of the index holds what partners of the same
length or longer need, ``2 * band + 1`` the rest.
"""

import bisect
import functools

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


@functools.lru_cache(maxsize=1 << 16)
def shelves(threshold: float, length: int) -> list[list[int]]:
    """Return for each place of a text of this length, rarest first, the shelves in which to look it up.

    Args:
        threshold: ROUGE-L F1 in [0, 1] above which two texts are near-duplicates.
        length: How many tokens the text has.
    """
    shortest = _shortest_partner(threshold, length)
    prefixes: list[tuple[int, int]] = []
    for band, start in enumerate(_BANDS[:-1]):
        longest_here = _BANDS[band + 1] - 1
        shortest_here = max(start, shortest)
        need = _needed(threshold, length, shortest_here) if shortest_here <= longest_here else length + 1
        if need <= min(length, shortest_here):
            # The band's shortest text asks for the longest prefix.
            prefixes.append((length - need + 1, 2 * band))
            if longest_here > length:
                prefixes.append((length - need + 1, 2 * band + 1))
        elif start > length:
            break
    depth = max((prefix for prefix, _ in prefixes), default=0)
    return [[key for prefix, key in prefixes if place < prefix] for place in range(depth)]


@functools.lru_cache(maxsize=1 << 16)
def own_prefixes(threshold: float, length: int) -> tuple[int, int]:
    """Return the prefix that partners of this length or longer need, and the one that any partner needs."""
    for_longer = length - _needed(threshold, length, length) + 1
    return for_longer, length - _shortest_partner(threshold, length) + 1


def _needed(threshold: float, length: int, other: int) -> int:
    """Return the shortest common subsequence that puts two texts of these lengths above the threshold."""
    need = int(threshold * (length + other) / 2)
    while f_measure(need, length, other) <= threshold:
        need += 1
    while need and f_measure(need - 1, length, other) > threshold:
        need -= 1
    return need


def _shortest_partner(threshold: float, length: int) -> int:
    """Return the shortest length that can pass with this one; a longer one if none can."""
    passes = bisect.bisect_left(
        range(1, length + 1), True, key=lambda other: f_measure(other, length, other) > threshold
    )
    return passes + 1
