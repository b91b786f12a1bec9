"""Reading prompts: which ones together, padded to which length, and from which token on."""

import collections
import dataclasses

import jax
import numpy as np

from alpacare_jax.generate.generation import Generation
from alpacare_jax.generate.prefixes import Prefix, Prefixes
from alpacare_jax.generate.programs import Programs
from alpacare_jax.model import KVCache

SHORTEST_PROMPT = 32
TOKENS_AT_ONCE = {"cpu": 512}
"""Most prompt tokens, padding included, that are read in one go (one prompt may be longer), by kind of device:
reading more at a time gains nothing once the matrix products are large enough."""
TOKENS_AT_ONCE_ELSEWHERE = 8192


@dataclasses.dataclass(frozen=True)
class PrefillPlan:
    """How a prompt is read: what it begins with, how long its rest is with padding, and the cache's length."""

    prefix: Prefix | None
    length: int
    slots: int


@dataclasses.dataclass(frozen=True)
class Read:
    """What reading P prompts gave.

    Attributes:
        tokens_PT: The tokens read, int32, padded; where a beginning was taken from memory, the rest alone.
        hidden_PTD: Their hidden states.
        logits_PV: The logits after each prompt's last token.
        cache: Keys and values of the whole prompts.
    """

    tokens_PT: np.ndarray
    hidden_PTD: jax.Array
    logits_PV: jax.Array
    cache: KVCache


class Reader:
    """Plans and runs the reading of prompts.

    Args:
        programs: The compiled programs.
        shards: Devices among which the prompts of a group are dealt.
        longest: Most tokens of prompt and reply together.
        reuse: Whether beginnings that prompts share are read once. The "dynamic" rotary embedding, whose angles
            depend on the length of the whole, cannot.
    """

    def __init__(self, programs: Programs, shards: int, longest: int, *, reuse: bool) -> None:
        self._programs, self._shards, self._longest = programs, shards, longest
        self._prefixes = Prefixes() if reuse else None
        self.tokens_read = 0
        self.tokens_reused = 0

    def forget(self) -> None:
        """Drop the beginnings that are in memory."""
        if self._prefixes is not None:
            self._prefixes = Prefixes()

    def next_group(self, waiting: collections.deque[Generation], free: int) -> list[Generation]:
        """Take the next prompts that are read alike off the queue: a power of four of them."""
        plan = self._plan(waiting[0])
        tokens = TOKENS_AT_ONCE.get(jax.default_backend(), TOKENS_AT_ONCE_ELSEWHERE)
        most = min(free, max(1, tokens // plan.length), len(waiting))
        fitting = 1
        while fitting < most and self._plan(waiting[fitting]) == plan:
            fitting += 1
        if fitting > self._shards:
            fitting = self._shards * _power_of_four_below(fitting // self._shards)
        return [waiting.popleft() for _ in range(fitting)]

    def read(self, group: list[Generation]) -> Read:
        """Read a group as :meth:`next_group` made it."""
        plan = self._plan(group[0])
        padded = max(self._shards, len(group))
        tokens_PT = np.zeros((padded, plan.length), np.int32)
        lengths_P, starts_P = np.ones(padded, np.int32), np.zeros(padded, np.int32)
        for place, each in enumerate(group):
            starts_P[place] = self._covered(each)[1]
            rest = each.prompt[starts_P[place] :]
            tokens_PT[place, : len(rest)] = rest
            lengths_P[place] = len(rest)
        if plan.prefix is None:
            hidden, logits, cache = self._programs.prefill(tokens_PT, lengths_P)
        else:
            hidden, logits, cache = self._programs.prefill_after(
                plan.prefix.cache, starts_P, tokens_PT, lengths_P, plan.slots
            )
        self.tokens_read += int(lengths_P[: len(group)].sum())
        self.tokens_reused += int(starts_P.sum())
        self._keep_beginnings(group, cache)
        return Read(tokens_PT, hidden, logits, cache)

    def bucket(self, length: int, least: int) -> int:
        """Round a length up to a power of two, at least ``least`` and at most the context."""
        return min(max(least, 1 << (length - 1).bit_length()), max(self._longest, length))

    def _covered(self, request: Generation) -> tuple[Prefix | None, int]:
        """Return the beginning that is taken from memory, and how much of it."""
        if self._prefixes is None or request.scores_prompt:
            return None, 0
        prefix, start = self._prefixes.find(request.prompt)
        whole = len(request.prompt)
        # Padded to the same length, the rest would take as long to read as the whole.
        if self.bucket(whole - start, SHORTEST_PROMPT) == self.bucket(whole, SHORTEST_PROMPT):
            return None, 0
        return prefix, start

    def _plan(self, request: Generation) -> PrefillPlan:
        prefix, start = self._covered(request)
        whole = len(request.prompt)
        length = self.bucket(whole - start, SHORTEST_PROMPT)
        return PrefillPlan(prefix, length, length if prefix is None else self.bucket(whole, SHORTEST_PROMPT))

    def _keep_beginnings(self, group: list[Generation], cache: KVCache) -> None:
        if self._prefixes is None:
            return
        for place, each in enumerate(group):
            shared = self._prefixes.new_beginning(each.prompt)
            if shared:
                slots = min(self.bucket(shared, SHORTEST_PROMPT), cache.slots)
                row = self._programs.take_row(cache, place, slots)
                self._prefixes.keep(Prefix(np.asarray(each.prompt[:shared], np.int32), row))


def _power_of_four_below(count: int) -> int:
    """Return the largest power of four that is at most ``count``; few sizes mean few programs to compile."""
    return 1 << ((count.bit_length() - 1) // 2 * 2)
