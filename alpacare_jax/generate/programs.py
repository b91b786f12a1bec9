"""The compiled programs of generation: read prompts, put them into rows, draw tokens, decode one token.

Each is compiled for a few shapes only: prompt lengths, numbers of prompts and the cache's length are powers of
two. The cache is only as long as its longest row needs, so attention does not sweep over room that nobody uses;
growing copies it once per doubling.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alpacare_jax import sharding
from alpacare_jax.generate import weight_layout
from alpacare_jax.generate.sampling import Draw, Logprobs, Rows, choose, log_probabilities
from alpacare_jax.model import Architecture, KVCache, Params

SCORED_AT_ONCE = 64
"""Tokens whose logits over the whole vocabulary exist at the same time while prompts are scored."""


class Programs:
    """The compiled programs over one placed model.

    Args:
        architecture: The model's shape and dtypes.
        params: Its stacked parameters.
        mesh: The devices.
        rows: Rows of the cache (B); a multiple of the mesh's batch shards.

    Attributes:
        empty_cache: Makes an empty cache of the given ``slots``.
        zeros: Makes an array [B, V] of the given dtype: logits to be filled row by row, or counts of tokens.
        resize: Gives a cache another number of ``slots``; what lies beyond it is dropped.
        take_row: Gives the first ``slots`` keys and values of one row of a cache, as a cache of one row.
    """

    def __init__(self, architecture: Architecture, params: Params, mesh: Mesh, rows: int) -> None:
        weight_layout.check_mesh(architecture, mesh)
        self.config, self.mesh, self.rows = architecture.config, mesh, rows
        self.dtype = jnp.dtype(architecture.compute.dtype)
        self.params = weight_layout.place(architecture, params, mesh)
        self._graph = weight_layout.unstacked_graph(architecture)
        self._whole = sharding.replicated(mesh)
        self._cache_sharding = sharding.named(mesh, weight_layout.CACHE_AXES)
        self._logits_sharding = sharding.placed(mesh, ("batch", "vocab"), (rows, self.config.vocab_size))
        self._jit_all()

    def _jit_all(self) -> None:
        every: Any = tuple(self._cache_sharding for _ in range(self.config.num_hidden_layers))
        cache = KVCache(every, every)
        logits, whole = self._logits_sharding, self._whole
        hidden = sharding.named(self.mesh, ("batch", None, None))
        self._prefill = jax.jit(
            self._prefill_impl, static_argnames=("slots",), out_shardings=(hidden, logits, cache)
        )
        row: Any = tuple(sharding.named(self.mesh, weight_layout.ROW_AXES) for _ in cache.keys)
        self.take_row = jax.jit(_take_row, static_argnames=("slots",), out_shardings=KVCache(row, row))
        one = self._cache_sharding
        self._insert_layer = jax.jit(_insert_layer, donate_argnums=(0, 1), out_shardings=(one, one))
        self._insert_logits = jax.jit(_insert_logits, donate_argnums=(0,), out_shardings=logits)
        self._decode = jax.jit(self._decode_impl, donate_argnums=(1,), out_shardings=(logits, cache))
        self._draw = jax.jit(
            _draw, static_argnames=("draw",), donate_argnums=(1,), out_shardings=(whole, logits, whole)
        )
        self._score = jax.jit(self._score_impl, out_shardings=whole)
        self.resize = jax.jit(_resize, static_argnames=("slots",), out_shardings=cache)
        self.empty_cache = jax.jit(
            lambda slots: KVCache.empty(self.config, self.rows, slots, self.dtype),
            static_argnames=("slots",),
            out_shardings=cache,
        )
        self.zeros = jax.jit(
            lambda dtype: jnp.zeros((self.rows, self.config.vocab_size), dtype),
            static_argnums=0,
            out_shardings=logits,
        )

    def prefill(
        self,
        tokens_PT: np.ndarray,
        lengths_P: np.ndarray,
        slots: int,
        before: KVCache | None = None,
        starts_P: np.ndarray | None = None,
    ) -> tuple[jax.Array, jax.Array, KVCache]:
        """Compute prompts, or the rest of prompts whose beginnings were computed before.

        Args:
            tokens_PT: Token ids, int32, padded on the right; P a multiple of the mesh's batch shards.
            lengths_P: Tokens of each prompt, at least 1.
            slots: Length of the cache that is returned; every whole prompt fits into it.
            before: One row of keys and values, as :meth:`take_row` gives it.
            starts_P: How many tokens of that row each prompt begins with.

        Returns:
            Hidden states [P, T, D] of the tokens, the logits after each prompt's last token [P, V], and the keys and
            values of the whole prompts.
        """
        starts = None if before is None else self._put(starts_P)
        tokens, lengths = self._put(tokens_PT), self._put(lengths_P)
        return self._prefill(self.params, before, starts, tokens, lengths, slots=slots)

    def insert(
        self,
        cache: KVCache,
        logits_BV: jax.Array,
        read: KVCache,
        read_logits_PV: jax.Array,
        rows_P: np.ndarray,
    ) -> tuple[KVCache, jax.Array]:
        """Put read prompts into rows; a row number past the end is left out. Consumes cache and logits."""
        rows = self._put(rows_P)
        # Layer by layer, because one small program for all compiles in a fraction of the time of a large one.
        layers = zip(cache.keys, cache.values, read.keys, read.values, strict=True)
        placed = [self._insert_layer(*layer, rows) for layer in layers]
        keys, values = zip(*placed, strict=True)
        return KVCache(keys, values), self._insert_logits(logits_BV, read_logits_PV, rows)

    def draw(
        self, logits_BV: jax.Array, counts_BV: jax.Array | None, rows: Rows, draw: Draw
    ) -> tuple[jax.Array, jax.Array | None, Logprobs | None]:
        """Draw one token for every row. Consumes the counts.

        Returns:
            Tokens int32 [B], the new counts, and log-probabilities if ``draw`` asks for them.
        """
        rows = jax.tree.map(self._put, rows)
        return self._draw(logits_BV, counts_BV, rows, draw=draw)

    def decode(
        self, cache: KVCache, tokens_B: jax.Array, positions_B: np.ndarray
    ) -> tuple[jax.Array, KVCache]:
        """Append one token to every row and return the logits after it. Consumes the cache.

        A row whose position is at or past the cache's length is computed and forgotten.
        """
        return self._decode(self.params, cache, tokens_B, self._put(positions_B))

    def score(self, hidden_PTD: jax.Array, targets_PT: np.ndarray) -> Logprobs:
        """Return the log-probabilities of targets [P, T], each predicted by the hidden state at its place."""
        return self._score(self.params, hidden_PTD, self._put(targets_PT))

    def _put(self, array: Any) -> jax.Array:
        return weight_layout.to_device(self.mesh, np.asarray(array))

    def _prefill_impl(
        self,
        params: Params,
        before: KVCache | None,
        starts_P: jax.Array | None,
        tokens_PT: jax.Array,
        lengths_P: jax.Array,
        *,
        slots: int,
    ) -> Any:
        model = weight_layout.rebuild(self._graph, params)
        P, T = tokens_PT.shape
        positions_PT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (P, T))
        whole_P = lengths_P
        if before is None or starts_P is None:
            cache = KVCache.empty(self.config, P, slots, self.dtype)
        else:
            cache = jax.tree.map(lambda x: jnp.broadcast_to(x, (P, *x.shape[1:])), _resize(before, slots))
            positions_PT, whole_P = starts_P[:, None] + positions_PT, starts_P + lengths_P
        hidden_PTD, cache = model.extend(tokens_PT, positions_PT, cache, whole_P)
        last_P1D = jnp.take_along_axis(hidden_PTD, (lengths_P - 1)[:, None, None], axis=1)
        return hidden_PTD, model.logits(last_P1D)[:, 0], cache

    def _decode_impl(
        self, params: Params, cache: KVCache, tokens_B: jax.Array, positions_B: jax.Array
    ) -> Any:
        model = weight_layout.rebuild(self._graph, params)
        hidden_B1D, cache = model.extend(tokens_B[:, None], positions_B[:, None], cache)
        return model.logits(hidden_B1D)[:, 0], cache

    def _score_impl(self, params: Params, hidden_PTD: jax.Array, targets_PT: jax.Array) -> Logprobs:
        model = weight_layout.rebuild(self._graph, params)
        P, T, D = hidden_PTD.shape
        chunk = max(1, min(T, SCORED_AT_ONCE // P))

        def score(piece: tuple[jax.Array, jax.Array]) -> Logprobs:
            hidden_CPD, targets_CP = piece
            logits_PCV = model.logits(jnp.swapaxes(hidden_CPD, 0, 1))
            return log_probabilities(jnp.swapaxes(logits_PCV, 0, 1), targets_CP)

        # T and chunk are powers of two or T itself, so that the chunks come out even.
        chunk = chunk if T % chunk == 0 else 1
        pieces = (
            jnp.swapaxes(hidden_PTD, 0, 1).reshape(T // chunk, chunk, P, D),
            jnp.swapaxes(targets_PT, 0, 1).reshape(T // chunk, chunk, P),
        )
        scored = jax.lax.map(score, pieces)
        return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(T, P, *x.shape[3:]), 0, 1), scored)


def _insert_layer(
    keys: jax.Array, values: jax.Array, read_keys: jax.Array, read_values: jax.Array, rows_P: jax.Array
) -> tuple[jax.Array, jax.Array]:
    T = read_keys.shape[2]
    keys = keys.at[rows_P, :, :T].set(read_keys, mode="drop")
    return keys, values.at[rows_P, :, :T].set(read_values, mode="drop")


def _insert_logits(logits_BV: jax.Array, read_PV: jax.Array, rows_P: jax.Array) -> jax.Array:
    return logits_BV.at[rows_P].set(read_PV, mode="drop")


def _draw(
    logits_BV: jax.Array, counts_BV: jax.Array | None, rows: Rows, *, draw: Draw
) -> tuple[jax.Array, jax.Array | None, Logprobs | None]:
    tokens_B, counts_BV = choose(logits_BV, counts_BV, rows, draw)
    return tokens_B, counts_BV, log_probabilities(logits_BV, tokens_B) if draw.logprobs else None


def _take_row(cache: KVCache, row: jax.Array, *, slots: int) -> KVCache:
    """Return the first ``slots`` keys and values of one row of a cache, as a cache of one row."""

    def take(x_PKSH: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x_PKSH, row, 1)[:, :, :slots]

    return jax.tree.map(take, cache)


def _resize(cache: KVCache, slots: int) -> KVCache:
    """Return a cache with the same tokens and another length; what lies beyond it is dropped."""

    def fit(x_BKSH: jax.Array) -> jax.Array:
        more = max(0, slots - x_BKSH.shape[2])
        return jnp.pad(x_BKSH[:, :, :slots], ((0, 0), (0, 0), (0, more), (0, 0)))

    return KVCache(tuple(map(fit, cache.keys)), tuple(map(fit, cache.values)))
