"""The engine: a fixed number of rows, each answering one request; a row that ends takes the next one at once.

One turn of :meth:`Engine.step` reads waiting prompts into free rows, draws a token for every row from the logits
that lie ready, starts the computation of the next logits, and only then looks at the tokens drawn, so that Python
works while the devices do.
"""

import collections
import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.errors import DataError
from alpacare_jax.generate import weight_layout
from alpacare_jax.generate.generation import Generation, TokenScore
from alpacare_jax.generate.prefill import Prefill
from alpacare_jax.generate.programs import Programs
from alpacare_jax.generate.sampling import Draw, Logprobs, Rows, SamplingParams
from alpacare_jax.generate.text import Decoder, StopFilter
from alpacare_jax.model import Architecture, Params
from alpacare_jax.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SHORTEST_CACHE = 256


@dataclasses.dataclass
class _Row:
    """A generation in its row of the cache."""

    generation: Generation
    decoder: Decoder
    stops: StopFilter
    room: int  # tokens it may still hold
    decoded: int = 0  # characters decoded, shown or not

    @property
    def position(self) -> int:
        """Where its next token goes."""
        return len(self.generation.prompt) + len(self.generation.tokens)


class Engine:
    """Answers requests, many at a time.

    Under several processes every process makes the same engine and submits the same requests in the same
    order; all then draw the same tokens.

    Args:
        architecture: The model's shape and dtypes.
        params: Its stacked parameters; not needed any more once the engine exists.
        tokenizer: Its tokenizer.
        mesh: The devices; one local device when None.
        slots: How many requests are answered at the same time; rounded up to the mesh's batch shards.
        max_len: Most tokens of prompt and reply together; the model's own limit when None.
        reuse_prefixes: Compute a prefix that prompts share, such as a system prompt, once; see
            :mod:`alpacare_jax.generate.prefill`.

    Raises:
        ShardingError: The mesh does not divide the model.
        DataError: The tokenizer has tokens that the model does not know.

    Example:
        >>> engine = Engine(model.architecture, model.params, model.tokenizer, slots=8)
        >>> prompt = model.tokenizer.encode("Anaemia is")
        >>> generation = engine.submit(Generation(prompt, SamplingParams(max_tokens=20)))
        >>> engine.run()
        >>> generation.text
    """

    def __init__(
        self,
        architecture: Architecture,
        params: Params,
        tokenizer: Tokenizer,
        *,
        mesh: Mesh | None = None,
        slots: int = 8,
        max_len: int | None = None,
        reuse_prefixes: bool = True,
    ) -> None:
        # One token at a time, products are bound by memory, and blocks would read the weights twice.
        architecture = dataclasses.replace(
            architecture, compute=dataclasses.replace(architecture.compute, precision="default")
        )
        config = architecture.config
        if tokenizer.rows_needed > config.vocab_size:
            raise DataError(
                "the tokenizer does not match the model",
                where=tokenizer.source,
                found=f"{tokenizer.vocab_size} tokens",
                expected=f"at most the {config.vocab_size} of the model",
                remedy="give the tokenizer that came with the model",
            )
        self.tokenizer, self.config = tokenizer, config
        self.mesh = sharding.single_device_mesh() if mesh is None else mesh
        self.max_len = config.max_position_embeddings if max_len is None else max_len
        shards = sharding.shards_on(self.mesh, "batch")
        self.slots = -(-slots // shards) * shards
        with sharding.use_mesh(self.mesh):
            self._programs = Programs(architecture, params, self.mesh, self.slots)
            reuse = reuse_prefixes and config.rope.kind != "dynamic"
            self._prefill = Prefill(self._programs, shards, self.max_len, reuse=reuse)
            self._reset()
        self._waiting: collections.deque[Generation] = collections.deque()
        self._prefilling: list[Generation] = []  # prompts whose prefill is running
        self.drawn_tokens = 0

    def _reset(self) -> None:
        """Make the state of the rows anew, all of them free."""
        self._rows: list[_Row | None] = [None] * self.slots
        self._logits = self._programs.zeros("float32")
        self._cache = self._programs.empty_cache(slots=self._prefill.bucket(SHORTEST_CACHE, SHORTEST_CACHE))
        self._counts: jax.Array | None = None

    # -- what callers do ------------------------------------------------------------------------------------

    def check(self, prompt: Sequence[int], sampling: SamplingParams, where: str = "the prompt") -> None:
        """Check that a prompt leaves room for a reply.

        Raises:
            DataError: It is empty, too long, or holds ids the model does not know.
        """
        longest = self.max_len - (1 if sampling.max_tokens else 0)
        if not prompt:
            raise DataError("the prompt is empty", where=where, expected="at least one token")
        if len(prompt) > longest:
            raise DataError(
                "the prompt is longer than the context",
                where=where,
                found=f"{len(prompt)} tokens",
                expected=f"at most {longest} (context of {self.max_len} tokens, prompt and reply together)",
                remedy="shorten the prompt, or raise --max-len if the model allows",
            )
        if min(prompt) < 0 or max(prompt) >= self.config.vocab_size:
            raise DataError(
                "the prompt has a token id outside the vocabulary",
                where=where,
                found=next(i for i in prompt if not 0 <= i < self.config.vocab_size),
                expected=f"0 to {self.config.vocab_size - 1}",
            )

    def submit(self, generation: Generation) -> Generation:
        """Queue a request.

        Raises:
            DataError: The prompt does not fit.
        """
        self.check(generation.prompt, generation.sampling)
        self._waiting.append(generation)
        return generation

    def cancel(self, generation: Generation) -> None:
        """Cancel a request; its row is free at once."""
        if generation.done:
            return
        generation.finish_reason = "cancelled"
        if generation in self._waiting:
            self._waiting.remove(generation)
        for index, row in enumerate(self._rows):
            if row is not None and row.generation is generation:
                self._rows[index] = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the weights as they are computed with; every process must ask for it."""
        return weight_layout.fingerprint(self._programs.params, self.mesh)

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._waiting) or any(row is not None for row in self._rows)

    @property
    def active(self) -> int:
        """How many requests are running."""
        return sum(row is not None for row in self._rows)

    def run(self) -> None:
        """Answer all requests."""
        while self.busy:
            self.step()

    def step(self) -> list[Generation]:
        """Read waiting prompts, draw one token for every row, and return the requests that have news."""
        with sharding.use_mesh(self.mesh):
            finished = self._admit()
            active = [row for row in self._rows if row is not None]
            if not active:
                return finished
            tokens, logprobs = self._draw(active)
            self._advance(tokens)
            return finished + self._receive(np.asarray(tokens), logprobs)

    def recover(self) -> None:
        """Make the engine ready again after :meth:`step` has raised.

        Requests that took part in the step end with the finish reason "error"; those that wait go on waiting. Where
        it failed in reading prompts, before anything of the rows was touched, that is those prompts alone. Otherwise
        it is every row: their state is made anew, and the engine then has to answer a request of its own.

        Raises:
            Exception: The engine cannot go on: the state cannot be made anew, or its own request fails too.
        """
        failed, self._prefilling = self._prefilling, []
        self._waiting = collections.deque(each for each in self._waiting if each not in failed)
        kept = jax.tree.leaves((self._cache, self._logits, self._counts))
        if not failed or any(array.is_deleted() for array in kept):  # donated to a program that failed
            failed += [row.generation for row in self._rows if row is not None]
            with sharding.use_mesh(self.mesh):
                self._prefill.forget()
                self._reset()
            waiting, self._waiting = self._waiting, collections.deque()
            try:
                self.submit(Generation([0], SamplingParams(max_tokens=1)))
                self.run()
            finally:
                self._prefilling, self._waiting = [], waiting
        self._rows = [None if row is None or row.generation in failed else row for row in self._rows]
        for generation in failed:
            generation.finish_reason = generation.finish_reason or "error"

    # -- prefill --------------------------------------------------------------------------------------------

    def _admit(self) -> list[Generation]:
        """Read waiting prompts into free rows; return those that end without drawing a token."""
        finished: list[Generation] = []
        while self._waiting:
            free = [index for index, row in enumerate(self._rows) if row is None]
            if not free:
                break
            self._prefilling = [self._waiting[0]]
            self._prefilling = self._prefill.next_group(self._waiting, len(free))
            finished += self._read(self._prefilling, free)
            self._prefilling = []
        return finished

    def _read(self, group: list[Generation], free: list[int]) -> list[Generation]:
        done = self._prefill.run(group)
        rows_P = np.full(len(done.tokens_PT), self.slots, np.int32)  # past the end: left out
        finished = []
        for place, generation in enumerate(group):
            if generation.sampling.max_tokens == 0:
                generation.finish_reason = "length"
                finished.append(generation)
                continue
            rows_P[place] = free.pop(0)
            self._rows[rows_P[place]] = self._make_row(generation)
        if any(generation.scores_prompt for generation in group):
            self._score_prompts(group, done.hidden_PTD, done.tokens_PT)
        if len(finished) < len(group):
            self._fit_cache(done.cache.slots)
            self._cache, self._logits = self._programs.insert(
                self._cache, self._logits, done.cache, done.logits_PV, rows_P
            )
        return finished

    def _make_row(self, generation: Generation) -> _Row:
        context = generation.prompt if generation.continues else ()
        return _Row(
            generation,
            Decoder(self.tokenizer, context),
            StopFilter(generation.sampling.stop, self.tokenizer.special_texts),
            room=min(generation.sampling.max_tokens, self.max_len - len(generation.prompt)),
        )

    def _score_prompts(self, group: list[Generation], hidden: jax.Array, tokens_PT: np.ndarray) -> None:
        targets_PT = np.zeros_like(tokens_PT)
        targets_PT[:, :-1] = tokens_PT[:, 1:]
        scored = jax.tree.map(np.asarray, self._programs.score(hidden, targets_PT))
        for place, generation in enumerate(group):
            wanted = generation.sampling.logprobs
            if not generation.scores_prompt or wanted is None:
                continue
            generation.prompt_scores = [TokenScore(generation.prompt[0], None)]
            for at, token in enumerate(generation.prompt[1:]):
                generation.prompt_scores.append(_token_score(token, scored, (place, at), wanted))

    # -- one token for every row ----------------------------------------------------------------------------

    def _draw(self, active: list[_Row]) -> tuple[jax.Array, Logprobs | None]:
        draw = Draw.of([row.generation.sampling for row in active])
        if draw.penalised and self._counts is None:
            self._counts = self._programs.zeros("int32")
        counts = self._counts if draw.penalised else None
        tokens, counts, logprobs = self._programs.draw(self._logits, counts, self._settings(), draw)
        if draw.penalised:
            self._counts = counts
        return tokens, logprobs

    def _settings(self) -> Rows:
        temperature, top_p, presence, frequency = np.zeros((4, self.slots), np.float32)
        seed, top_k, drawn = (np.zeros(self.slots, dtype) for dtype in (np.uint32, np.int32, np.int32))
        top_p += 1
        for index, row in enumerate(self._rows):
            if row is None:
                continue
            asked = row.generation.sampling
            temperature[index] = asked.temperature
            top_p[index] = asked.top_p
            presence[index] = asked.presence_penalty
            frequency[index] = asked.frequency_penalty
            seed[index], top_k[index] = asked.seed & 0xFFFFFFFF, min(asked.top_k, self.config.vocab_size)
            drawn[index] = len(row.generation.tokens)
        return Rows(temperature, top_p, top_k, presence, frequency, seed, drawn)

    def _advance(self, tokens: jax.Array) -> None:
        """Start computing the logits that follow the drawn tokens, if any row can still go on."""
        positions_B = np.full(self.slots, self.max_len, np.int32)  # past the end: nothing is written
        for index, row in enumerate(self._rows):
            if row is not None and len(row.generation.tokens) + 1 < row.room:
                positions_B[index] = row.position
        going = positions_B[positions_B < self.max_len]
        if going.size == 0:
            return
        self._fit_cache(int(going.max()) + 1)
        self._logits, self._cache = self._programs.decode(self._cache, tokens, positions_B)

    def _fit_cache(self, needed: int) -> None:
        """Make the cache as long as its rows need; shorter only when most of it lies unused."""
        held = [row.position + 1 for row in self._rows if row is not None]
        needed = self._prefill.bucket(max([needed, *held]), SHORTEST_CACHE)
        if needed > self._cache.slots or needed * 4 <= self._cache.slots:
            self._cache = self._programs.resize(self._cache, slots=needed)

    # -- what was drawn -------------------------------------------------------------------------------------

    def _receive(self, tokens: np.ndarray, logprobs: Logprobs | None) -> list[Generation]:
        logprobs = jax.tree.map(np.asarray, logprobs)
        news = []
        for index, row in enumerate(self._rows):
            if row is None:
                continue
            self.drawn_tokens += 1
            self._take(row, int(tokens[index]), logprobs, index)
            news.append(row.generation)
            if row.generation.done:
                self._rows[index] = None
        return news

    def _take(self, row: _Row, token: int, logprobs: Logprobs | None, index: int) -> None:
        generation, asked = row.generation, row.generation.sampling
        generation.tokens.append(token)
        ended = token in self.tokenizer.eos_ids and not asked.ignore_eos
        if asked.logprobs is not None and logprobs is not None:
            generation.scores.append(_token_score(token, logprobs, (index,), asked.logprobs))
            generation.offsets.append(row.decoded)
        if not ended:
            piece = row.decoder.feed(token)
            row.decoded += len(piece)
            generation.text += row.stops.feed(piece, token)
        if not ended and not row.stops.stopped and len(generation.tokens) < row.room:
            return
        generation.text += row.stops.feed(row.decoder.finish(), token if ended else None)
        generation.text += row.stops.finish()
        generation.finish_reason = "stop" if ended or row.stops.stopped else "length"
        if row.stops.stopped:
            kept = sum(offset < len(generation.text) for offset in generation.offsets)
            del generation.scores[kept:], generation.offsets[kept:]


def _token_score(token: int, logprobs: Logprobs, at: tuple[int, ...], wanted: int) -> TokenScore:
    top = zip(logprobs.top_ids[at][:wanted].tolist(), logprobs.top[at][:wanted].tolist(), strict=True)
    return TokenScore(token, float(logprobs.token[at]), tuple(top))
