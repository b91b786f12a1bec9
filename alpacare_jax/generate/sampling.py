"""Sampling: penalties, temperature, top-k, top-p, and one random number a token."""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alpacare_jax.errors import DataError
from datagen.configuration import Range, check

MAX_TOP_LOGPROBS = 20
BLOCK = 256
SMALLEST_TEMPERATURE = float(jnp.finfo(jnp.float32).tiny)


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """The sampling parameters of a request, in OpenAI's terms.

    Args:
        max_tokens: Most tokens to generate, the end token included.
        temperature: 0 takes the most probable token always; 1 samples the model's own distribution.
        top_p: Keep the smallest set of most probable tokens that holds this much of the probability.
        top_k: Keep this many most probable tokens; 0 keeps all. Applied before ``top_p``.
        presence_penalty: Subtracted from the logit of every token that the reply already holds.
        frequency_penalty: Subtracted from a token's logit once for every time the reply already holds it.
        stop: Texts that end the reply; they and what follows are cut off.
        seed: The same seed and request draw the same tokens.
        logprobs: Report the log-probability of each token and of this many most probable ones; None for none.
        ignore_eos: Go on past end tokens, for measuring speed.
    """

    max_tokens: Annotated[int, Range(0, math.inf)] = 256
    temperature: Annotated[float, Range(0, 100)] = 0.0
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    top_k: Annotated[int, Range(0, math.inf)] = 0
    presence_penalty: Annotated[float, Range(-2, 2)] = 0.0
    frequency_penalty: Annotated[float, Range(-2, 2)] = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: Annotated[int | None, Range(0, MAX_TOP_LOGPROBS)] = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        check(self, error=DataError)
        if any(not text for text in self.stop):
            raise DataError(
                "a stop string is empty", where="stop", expected="texts of at least one character"
            )


@dataclasses.dataclass(frozen=True)
class Draw:
    """Which parts of the sampler a step needs; each combination is compiled once.

    Args:
        sampled: Some row has a temperature above 0.
        truncated: Some sampled row sets top-k or top-p.
        penalised: Some row has a penalty.
        logprobs: Some row wants log-probabilities.
    """

    sampled: bool = False
    truncated: bool = False
    penalised: bool = False
    logprobs: bool = False

    @classmethod
    def of(cls, requests: list[SamplingParams]) -> "Draw":
        """Combine what the requests of one step need."""
        warm = [request for request in requests if request.temperature > 0]
        return cls(
            sampled=bool(warm),
            truncated=any(request.top_k > 0 or request.top_p < 1 for request in warm),
            penalised=any(r.presence_penalty != 0 or r.frequency_penalty != 0 for r in requests),
            logprobs=any(request.logprobs is not None for request in requests),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Settings of every row of a step, arrays [B]; ``drawn`` counts the tokens a row has drawn already."""

    temperature: Any
    top_p: Any
    top_k: Any
    presence: Any
    frequency: Any
    seed: Any
    drawn: Any


def choose(
    logits_BV: Float[Array, "B V"], counts_BV: Int[Array, "B V"] | None, rows: Rows, draw: Draw
) -> tuple[Int[Array, " B"], Int[Array, "B V"] | None]:
    """Draw the next token of every row.

    A row's token depends on its own logits, settings, seed and number of drawn tokens, never on its
    neighbours.

    Args:
        logits_BV: Logits, fp32.
        counts_BV: How often each token occurs in each reply so far; needed for penalties.
        rows: Settings.
        draw: Which parts are needed.

    Returns:
        Token ids int32 [B], and the counts with them included.

    Source: the penalties follow OpenAI's API reference; top-p is nucleus sampling, Holtzman et al. 2020.
    """
    if draw.penalised and counts_BV is not None:
        counts_BV = jnp.where((rows.drawn == 0)[:, None], 0, counts_BV)
        logits_BV = logits_BV - rows.frequency[:, None] * counts_BV
        logits_BV = logits_BV - rows.presence[:, None] * (counts_BV > 0)
    tokens_B = most_probable(logits_BV)
    if draw.sampled:
        warm_B = rows.temperature > 0
        # Measured from the best logit, so that the most probable token keeps its weight however small the
        # temperature is: the others then overflow to -inf. Below the smallest normal float XLA divides by 0.
        below_BV = logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)
        divisor_B = jnp.where(warm_B, jnp.maximum(rows.temperature, SMALLEST_TEMPERATURE), 1.0)
        p_BV = jax.nn.softmax(below_BV / divisor_B[:, None], axis=-1)
        if draw.truncated:
            p_BV = jnp.where(nucleus(p_BV, rows.top_k, rows.top_p), p_BV, 0.0)
        tokens_B = jnp.where(warm_B, invert_cumulative(p_BV, _uniform(rows.seed, rows.drawn)), tokens_B)
    if draw.penalised and counts_BV is not None:
        counts_BV = counts_BV.at[jnp.arange(tokens_B.shape[0]), tokens_B].add(1)
    return tokens_B, counts_BV


def most_probable(logits_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Return the first index of each row's largest value; faster on CPUs than ``argmax``."""
    V = logits_BV.shape[-1]
    best_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    index_BV = jnp.where(logits_BV == best_B1, jnp.arange(V, dtype=jnp.int32)[None, :], V - 1)
    return jnp.min(index_BV, axis=-1)


def nucleus(
    p_BV: Float[Array, "B V"], top_k_B: Int[Array, " B"], top_p_B: Float[Array, " B"]
) -> Bool[Array, "B V"]:
    """Mark the tokens that top-k and then top-p keep; tokens as probable as the last one kept are kept too.

    The most probable token is always kept, also where ``top_p`` is smaller than a float can tell from 0.

    Instead of sorting the vocabulary, the smallest kept probability is found by halving the range of floats:
    the bits of floats that are not negative order as the floats do, so 31 halvings reach it exactly.

    Examples:
        Probabilities ``[.5 .25 .15 .1]`` with top_p .7 keep the first two.
    """
    ones_BV = jnp.ones_like(p_BV)
    wanted_B = jnp.where(top_k_B > 0, top_k_B, p_BV.shape[-1]).astype(p_BV.dtype)
    kept_BV = p_BV >= _threshold(p_BV, ones_BV, wanted_B)[:, None]
    mass_BV = jnp.where(kept_BV, p_BV, 0.0)
    target_B = top_p_B * jnp.sum(mass_BV, axis=-1)
    floor_B = jnp.where(top_p_B < 1, _threshold(p_BV, mass_BV, target_B), 0.0)
    floor_B = jnp.minimum(floor_B, jnp.max(p_BV, axis=-1))
    return kept_BV & (p_BV >= floor_B[:, None])


def _threshold(
    p_BV: Float[Array, "B V"], weight_BV: Float[Array, "B V"], target_B: Float[Array, " B"]
) -> Float[Array, " B"]:
    """Return the largest float t of each row for which the weight of ``p >= t`` still reaches the target."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        t_B1 = jax.lax.bitcast_convert_type(middle_B, jnp.float32)[:, None]
        reached_B = jnp.sum(jnp.where(p_BV >= t_B1, weight_BV, 0.0), axis=-1) >= target_B
        return jnp.where(reached_B, middle_B, low_B), jnp.where(reached_B, high_B, middle_B)

    low_B = jnp.zeros(p_BV.shape[0], jnp.int32)
    high_B = jnp.full(p_BV.shape[0], jax.lax.bitcast_convert_type(jnp.float32(1.0), jnp.int32) + 1)
    low_B, _ = jax.lax.fori_loop(0, 31, halve, (low_B, high_B))
    return jax.lax.bitcast_convert_type(low_B, jnp.float32)


def invert_cumulative(p_BV: Float[Array, "B V"], u_B: Float[Array, " B"]) -> Int[Array, " B"]:
    """Return the first index at which the running sum of ``p`` passes ``u`` of the whole.

    Summed block by block, so that one pass over the vocabulary suffices.

    Args:
        p_BV: Weights, not negative; they need not sum to 1.
        u_B: Random numbers from 0 to below 1.

    Returns:
        Indices int32 [B], always of a weight above 0.
    """
    B, V = p_BV.shape
    blocks = -(-V // BLOCK)
    p_BMC = jnp.pad(p_BV, ((0, 0), (0, blocks * BLOCK - V))).reshape(B, blocks, BLOCK)
    sums_BM = jnp.cumsum(jnp.sum(p_BMC, axis=-1), axis=-1)
    target_B1 = u_B[:, None] * sums_BM[:, -1:]
    block_B1 = jnp.sum(sums_BM <= target_B1, axis=-1, keepdims=True)
    full_BM = jnp.max(p_BMC, axis=-1) > 0
    last_B1 = jnp.max(jnp.where(full_BM, jnp.arange(blocks)[None, :], 0), axis=-1, keepdims=True)
    block_B1 = jnp.minimum(block_B1, last_B1)
    before_B1 = jnp.where(
        block_B1 > 0, jnp.take_along_axis(sums_BM, jnp.maximum(block_B1 - 1, 0), axis=-1), 0.0
    )
    p_BC = jnp.take_along_axis(p_BMC, block_B1[:, :, None], axis=1)[:, 0]
    inside_BC = (jnp.cumsum(p_BC, axis=-1) > target_B1 - before_B1) & (p_BC > 0)
    # Rounding may leave the target past the block's own sum; its last token of any weight then stands in.
    columns_1C = jnp.arange(BLOCK)[None, :]
    last_B = jnp.max(jnp.where(p_BC > 0, columns_1C, 0), axis=-1)
    first_B = jnp.min(jnp.where(inside_BC, columns_1C, BLOCK), axis=-1)
    return (block_B1[:, 0] * BLOCK + jnp.minimum(first_B, last_B)).astype(jnp.int32)


def _uniform(seed_B: Int[Array, " B"], drawn_B: Int[Array, " B"]) -> Float[Array, " B"]:
    def one(seed: jax.Array, drawn: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), drawn))

    return jax.vmap(one)(seed_B, drawn_B)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Logprobs:
    """Log-probabilities of tokens [...] and of the most probable tokens [..., 20] in falling order."""

    token: Any
    top: Any
    top_ids: Any


def log_probabilities(logits: Float[Array, "... V"], tokens: Int[Array, "..."]) -> Logprobs:
    """Return the model's own log-probabilities, before penalties and temperature."""
    scores = jax.nn.log_softmax(logits, axis=-1)
    token = jnp.take_along_axis(scores, tokens[..., None], axis=-1)[..., 0]
    top, ids = jax.lax.top_k(scores, min(MAX_TOP_LOGPROBS, scores.shape[-1]))
    return Logprobs(token, top, ids)
