"""Prefill: which prompts are computed together, padded to which length, and from which token on.

Keys and values of a token depend only on the tokens before it, so prompts that begin alike, such as with one system
prompt, share those of the common prefix. A prefix is kept once a second prompt has shown it, cut to what both share,
and later prompts are computed from there on. The sums are the same, in another order of rounding.
"""

import collections
import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from alpacare_jax.generate.generation import Generation
from alpacare_jax.generate.programs import Programs
from alpacare_jax.model import KVCache

SHORTEST_PROMPT = 32
TOKENS_AT_ONCE = {"cpu": 512}
"""Most prompt tokens, padding included, of one prefill (one prompt may be longer), by kind of device: more at a time
gains nothing once the matrix products are large enough."""
TOKENS_AT_ONCE_ELSEWHERE = 8192
SHORTEST = 64
"""Tokens below which a common prefix is not worth a program of its own."""
KEPT = 4
"""Prefixes whose keys and values stay in memory."""
REMEMBERED = 16
"""Latest prompts, as token ids, among which common prefixes are looked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prefix:
    """A prefix: its token ids int32 [n], and one row of keys and values with room for at least n tokens."""

    tokens: np.ndarray
    cache: KVCache


class PrefixCache:
    """The prefixes in memory, the least recently used of which makes room for a new one.

    Example:
        >>> prefixes = PrefixCache()
        >>> prefixes.find([1] * 100), prefixes.new_prefix([1] * 100)
        ((None, 0), 0)
        >>> prefixes.new_prefix([1] * 80 + [2] * 20)
        80
    """

    def __init__(self) -> None:
        self._kept: list[Prefix] = []
        self._latest: collections.deque[np.ndarray] = collections.deque(maxlen=REMEMBERED)

    def find(self, prompt: Sequence[int]) -> tuple[Prefix | None, int]:
        """Return the kept prefix that covers most of a prompt, and how many of its tokens.

        At least one token of the prompt is left to compute. (None, 0) where less than ``SHORTEST`` is covered.
        """
        tokens = np.asarray(prompt, np.int32)[:-1]
        shared, best = max(
            ((common(kept.tokens, tokens), place) for place, kept in enumerate(self._kept)), default=(0, 0)
        )
        if shared < SHORTEST:
            return None, 0
        self._kept.append(self._kept.pop(best))
        return self._kept[-1], shared

    def new_prefix(self, prompt: Sequence[int]) -> int:
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
        """Keep a prefix."""
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


@dataclasses.dataclass(frozen=True)
class PrefillPlan:
    """What a prompt begins with, how long its rest is with padding, and the cache's length."""

    prefix: Prefix | None
    length: int
    slots: int


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """The result of prefilling P prompts.

    Attributes:
        tokens_PT: The tokens computed, int32, padded; where a prefix was taken from memory, only the rest.
        hidden_PTD: Their hidden states.
        logits_PV: The logits after each prompt's last token.
        cache: Keys and values of the whole prompts.
    """

    tokens_PT: np.ndarray
    hidden_PTD: jax.Array
    logits_PV: jax.Array
    cache: KVCache


class Prefill:
    """Groups prompts and computes their keys and values.

    Args:
        programs: The compiled programs.
        shards: Devices among which the prompts of a group are split.
        longest: Most tokens of prompt and reply together.
        reuse: Whether a prefix that prompts share is computed once. The "dynamic" rotary embedding, whose angles
            depend on the length of the whole, cannot.
    """

    def __init__(self, programs: Programs, shards: int, longest: int, *, reuse: bool) -> None:
        self._programs, self._shards, self._longest, self._reuse = programs, shards, longest, reuse
        self._prefixes = PrefixCache()
        self.tokens_read = 0
        self.tokens_reused = 0

    def forget(self) -> None:
        """Drop the prefixes that are in memory."""
        self._prefixes = PrefixCache()

    def next_group(self, waiting: collections.deque[Generation], free: int) -> list[Generation]:
        """Take the next prompts of one plan off the queue: a power of four of them."""
        plan = self._plan(waiting[0])
        tokens = TOKENS_AT_ONCE.get(jax.default_backend(), TOKENS_AT_ONCE_ELSEWHERE)
        most = min(free, max(1, tokens // plan.length), len(waiting))
        fitting = 1
        while fitting < most and self._plan(waiting[fitting]) == plan:
            fitting += 1
        if fitting > self._shards:
            fitting = self._shards * _power_of_four_below(fitting // self._shards)
        return [waiting.popleft() for _ in range(fitting)]

    def run(self, group: list[Generation]) -> Prefilled:
        """Compute a group as :meth:`next_group` made it."""
        plan = self._plan(group[0])
        padded = max(self._shards, len(group))
        tokens_PT = np.zeros((padded, plan.length), np.int32)
        lengths_P, starts_P = np.ones(padded, np.int32), np.zeros(padded, np.int32)
        for place, each in enumerate(group):
            starts_P[place] = self._covered(each)[1]
            rest = each.prompt[starts_P[place] :]
            tokens_PT[place, : len(rest)] = rest
            lengths_P[place] = len(rest)
        before = None if plan.prefix is None else plan.prefix.cache
        hidden, logits, cache = self._programs.prefill(tokens_PT, lengths_P, plan.slots, before, starts_P)
        self.tokens_read += int(lengths_P[: len(group)].sum())
        self.tokens_reused += int(starts_P.sum())
        for place, each in enumerate(group if self._reuse else []):
            if shared := self._prefixes.new_prefix(each.prompt):
                slots = min(self.bucket(shared, SHORTEST_PROMPT), cache.slots)
                row = self._programs.take_row(cache, place, slots=slots)
                self._prefixes.keep(Prefix(np.asarray(each.prompt[:shared], np.int32), row))
        return Prefilled(tokens_PT, hidden, logits, cache)

    def bucket(self, length: int, least: int) -> int:
        """Round a length up to a power of two, at least ``least`` and at most the context."""
        return min(max(least, 1 << (length - 1).bit_length()), max(self._longest, length))

    def _covered(self, request: Generation) -> tuple[Prefix | None, int]:
        """Return the prefix that is taken from memory, and how much of it."""
        if not self._reuse or request.scores_prompt:
            return None, 0
        prefix, start = self._prefixes.find(request.prompt)
        whole = len(request.prompt)
        # Padded to the same length, the rest would take as long to compute as the whole.
        if self.bucket(whole - start, SHORTEST_PROMPT) == self.bucket(whole, SHORTEST_PROMPT):
            return None, 0
        return prefix, start

    def _plan(self, request: Generation) -> PrefillPlan:
        prefix, start = self._covered(request)
        whole = len(request.prompt)
        length = self.bucket(whole - start, SHORTEST_PROMPT)
        return PrefillPlan(prefix, length, length if prefix is None else self.bucket(whole, SHORTEST_PROMPT))


def _power_of_four_below(count: int) -> int:
    """Return the largest power of four that is at most ``count``; few sizes mean few programs to compile."""
    return 1 << ((count.bit_length() - 1) // 2 * 2)
