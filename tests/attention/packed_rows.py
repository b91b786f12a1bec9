"""Packed rows of every kind, and the comparison of a kernel with attention written out in full."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alpacare_jax.attention import attend, attend_masked, segment_mask


def packed_segments(rows, length, segments, padding, seed=0):
    """Rows of ``segments`` segments of random lengths, each at least one token, then padding."""
    rng = np.random.default_rng(seed)
    out = np.zeros((rows, length), np.int32)
    used = length - padding
    for row in range(rows):
        cuts = np.sort(rng.choice(np.arange(1, used), min(segments, used) - 1, replace=False))
        for number, part in enumerate(np.split(np.arange(used), cuts), start=1):
            out[row, part] = number
    return jnp.asarray(out)


def random_qkv(rows, length, heads, kv_heads, size, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(size=(rows, length, n, size)), dtype) for n in (heads, kv_heads, kv_heads)
    )


@functools.partial(jax.jit, static_argnums=0)
def _differentiated(function, qkv, ids):
    def summed(q, k, v):
        out = function(q, k, v, ids)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    grads, out = jax.grad(summed, argnums=(0, 1, 2), has_aux=True)(*qkv)
    return out, *grads


def values_and_gradients(function, qkv, ids):
    """Return what a function gives and the gradients of a sum that weighs every value differently."""
    return [np.asarray(x, np.float32) for x in _differentiated(function, qkv, ids)]


def plain(q, k, v, ids):
    return attend_masked(q, k, v, segment_mask(ids))


@functools.cache
def kernel_of(name):
    return functools.partial(attend, kernel=name)


def assert_same(found, expected, bound=1e-5):
    for name, a, b in zip(("values", "d_q", "d_k", "d_v"), found, expected, strict=True):
        assert np.isfinite(a).all(), name
        # A single token has gradients of exactly 0, against which no error is small; values are of order 1.
        assert np.linalg.norm(a - b) <= bound * max(np.linalg.norm(b), 1), name
        assert np.abs(a - b).max() <= 10 * bound * max(np.abs(b).max(), 0.1), name
