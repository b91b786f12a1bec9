"""Every kernel that runs on this machine against attention written out in full, on packed rows of every kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marking import slow_but
from packed_rows import assert_same, kernel_of, packed_segments, plain, random_qkv, values_and_gradients

from alpacare_jax.attention import RESIDUALS, attend
from alpacare_jax.attention.chunked import attend_chunked
from alpacare_jax.attention.mask import SegmentMask
from alpacare_jax.attention.splash import attend_splash


@functools.cache
def in_blocks_of(block):
    return lambda q, k, v, ids: attend_chunked(q, k, v, SegmentMask.whole(ids), block)


@pytest.mark.parametrize("kernel", ["xla", "chunked"])
@pytest.mark.parametrize(("length", "padding"), [(256, 0), (256, 37), (193, 5)])
@pytest.mark.parametrize("segments", [1, 2, 7, 64])
def test_kernels_give_the_plain_values_and_gradients(kernel, segments, length, padding):
    qkv = random_qkv(2, length, 4, 2, 16)
    ids = packed_segments(2, length, segments, padding)
    found = values_and_gradients(kernel_of(kernel), qkv, ids)
    expected = values_and_gradients(plain, qkv, ids)
    assert_same(found, expected)


@pytest.mark.parametrize("length", slow_but([1, 129, 300], [1, 100, 128, 129, 300, 1100]))
def test_every_length_gives_the_plain_values_and_gradients(length):
    qkv = random_qkv(2, length, 4, 2, 8)
    ids = jnp.asarray(np.sort(np.random.default_rng(length).integers(0, 4, (2, length)), axis=1))
    expected = values_and_gradients(plain, qkv, ids)
    for kernel in ("xla", "chunked"):
        assert_same(values_and_gradients(kernel_of(kernel), qkv, ids), expected)


@pytest.mark.parametrize("block", [16, 32, 48, 200])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 1), (9, 3)])
def test_no_size_of_block_changes_the_result(block, heads, kv_heads):
    qkv = random_qkv(2, 150, heads, kv_heads, 8)
    ids = packed_segments(2, 150, 7, 11)
    found = values_and_gradients(in_blocks_of(block), qkv, ids)
    expected = values_and_gradients(plain, qkv, ids)
    assert_same(found, expected)


def test_segments_may_stand_in_any_order_and_return():
    rng = np.random.default_rng(3)
    ids = jnp.asarray(rng.integers(-2, 3, (3, 120)), jnp.int32)
    qkv = random_qkv(3, 120, 4, 2, 8)
    found = values_and_gradients(in_blocks_of(16), qkv, ids)
    expected = values_and_gradients(plain, qkv, ids)
    assert_same(found, expected)


def test_a_query_that_sees_no_key_gets_zeros_and_no_gradient():
    qkv = random_qkv(1, 64, 2, 1, 8)
    ids = jnp.ones((1, 64), jnp.int32)
    places = jnp.arange(64, dtype=jnp.int32)

    def blind(q, k, v, ids):
        keys = ids + jnp.where(places < 32, 1, 0)[None]
        return attend_chunked(q, k, v, SegmentMask(ids, keys, places, places), 16)

    out, *grads = values_and_gradients(blind, qkv, ids)
    assert not out[:, :32].any()
    assert np.isfinite(out).all()
    assert all(np.isfinite(grad).all() for grad in grads)
    assert not grads[0][:, :32].any()
    assert not grads[1][:, :32].any()


def test_chunked_attention_keeps_half_precision_within_its_rounding():
    ids = packed_segments(2, 192, 5, 9)
    qkv = random_qkv(2, 192, 4, 2, 64, jnp.bfloat16)
    found = values_and_gradients(kernel_of("chunked"), qkv, ids)
    exact = [x.astype(jnp.float32) for x in qkv]
    expected = values_and_gradients(plain, exact, ids)
    assert_same(found, expected, 1e-2)


def test_chunked_attention_never_holds_the_scores_of_a_row():
    """At 8,192 tokens and 4 heads the scores would be 1 GiB in fp32; a block of 512 of them is 4 MiB."""
    shapes = [jax.ShapeDtypeStruct((1, 8192, heads, 16), jnp.float32) for heads in (4, 2, 2)]
    ids = jax.ShapeDtypeStruct((1, 8192), jnp.int32)

    def step(q, k, v, ids):
        return jax.grad(lambda q, k, v: attend(q, k, v, ids, kernel="chunked").sum(), argnums=(0, 1, 2))(
            q, k, v
        )

    compiled = jax.jit(step).lower(*shapes, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 << 20


def test_a_policy_can_save_what_chunked_attention_keeps_for_its_backward_pass():
    """With that saved, the backward pass need not run through the blocks of the forward pass again."""
    qkv = random_qkv(2, 128, 2, 1, 16)
    ids = packed_segments(2, 128, 2, 0)

    def loops(policy):
        def run(q, k, v):
            return jnp.sin(attend(q, k, v, ids, kernel="chunked")).sum()

        step = jax.grad(jax.checkpoint(run, policy=policy), argnums=(0, 1, 2))
        return jax.jit(step).lower(*qkv).compile().as_text().count(" while(")

    nothing = loops(jax.checkpoint_policies.nothing_saveable)
    assert loops(jax.checkpoint_policies.save_only_these_names(RESIDUALS)) < nothing


def separately(ids):
    """Return attention that takes every segment of one row out as a row of its own, and puts the results back."""
    (row,) = np.asarray(ids)
    parts = [np.nonzero(row == number)[0] for number in np.unique(row)]
    length = max(map(len, parts))
    places = np.stack([np.pad(part, (0, length - len(part)), constant_values=len(row)) for part in parts])
    alone = jnp.asarray(places < len(row), jnp.int32)

    def run(q, k, v, _):
        q, k, v = (jnp.pad(x[0], ((0, 1), (0, 0), (0, 0)))[places] for x in (q, k, v))
        out = plain(q, k, v, alone)
        return jnp.zeros((len(row) + 1, *out.shape[2:])).at[places].set(out)[None, :-1]

    return run


@pytest.mark.parametrize("segments", [1, 2, 7, 64])
def test_a_packed_row_gives_the_values_and_summed_gradients_of_its_examples_alone(segments):
    qkv = random_qkv(1, 256, 4, 2, 16)
    ids = packed_segments(1, 256, segments, 21)
    expected = values_and_gradients(separately(ids), qkv, ids)
    splash = functools.partial(attend_splash, interpret=True)
    for kernel in (kernel_of("xla"), kernel_of("chunked"), splash):
        assert_same(values_and_gradients(kernel, qkv, ids), expected)
