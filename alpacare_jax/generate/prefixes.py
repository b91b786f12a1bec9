"""Beginnings that prompts share, such as a system prompt: read once, then taken from memory.

Keys and values of a token depend only on the tokens before it, so prompts that begin alike share those of the
common part. A beginning is kept once a second prompt has shown it, cut to what both share, and prompts that come
later are read from there on. The sums are the same, in another order of rounding.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from alpacare_jax.model import KVCache

SHORTEST = 64
"""Tokens below which a common beginning is not worth a program of its own."""
KEPT = 4
"""Beginnings whose keys and values stay in memory."""
REMEMBERED = 16
"""Latest prompts, as token ids, among which common beginnings are looked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prefix:
    """A beginning: its token ids int32 [n], and one row of keys and values with room for at least n tokens."""

    tokens: np.ndarray
    cache: KVCache


class Prefixes:
    """The beginnings in memory, the least recently used of which makes room for a new one.

    Example:
        >>> prefixes = Prefixes()
        >>> prefixes.find([1] * 100), prefixes.new_beginning([1] * 100)
        ((None, 0), 0)
        >>> prefixes.new_beginning([1] * 80 + [2] * 20)
        80
    """

    def __init__(self) -> None:
        self._kept: list[Prefix] = []
        self._latest: collections.deque[np.ndarray] = collections.deque(maxlen=REMEMBERED)

    def find(self, prompt: Sequence[int]) -> tuple[Prefix | None, int]:
        """Return the kept beginning that covers most of a prompt, and how many of its tokens.

        At least one token of the prompt is left to read. (None, 0) where less than ``SHORTEST`` is covered.
        """
        tokens = np.asarray(prompt, np.int32)[:-1]
        shared, best = max(
            ((common(kept.tokens, tokens), place) for place, kept in enumerate(self._kept)), default=(0, 0)
        )
        if shared < SHORTEST:
            return None, 0
        self._kept.append(self._kept.pop(best))
        return self._kept[-1], shared

    def new_beginning(self, prompt: Sequence[int]) -> int:
        """Remember a prompt, and return how many of its first tokens are worth keeping.

        Returns:
            What the prompt shares with an earlier one, where that is clearly more than what is kept; else 0.
        """
        tokens = np.asarray(prompt, np.int32)
        covered = max((common(kept.tokens, tokens) for kept in self._kept), default=0)
        shared = max((common(earlier, tokens) for earlier in self._latest), default=0)
        self._latest.append(tokens)
        return shared if shared >= covered + SHORTEST else 0

    def keep(self, prefix: Prefix) -> None:
        """Keep a beginning."""
        self._kept = [*self._kept, prefix][-KEPT:]


def common(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the common beginning of two arrays.

    Example:
        >>> common(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
        2
    """
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if different.size else length
