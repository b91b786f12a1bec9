"""The GPU kernels as far as that goes without a GPU: tables of segments, guards, lowered programs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_rows import assert_same, packed_segments, plain, random_qkv, values_and_gradients

from alpacare_jax.attention import packed, selection
from alpacare_jax.attention.mosaic import attend_mosaic, begin_of_own_run


def test_segments_become_begins_and_lengths():
    ids = jnp.asarray([[3, 3, 3, 5, 0, 0], [1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 0, 0]])
    begins, lengths, fits = packed.segment_table(ids, 4)
    assert begins.tolist() == [[0, 3, 4, -1, -1], [0, -1, -1, -1, -1], [0, 1, 2, 3, -1]]
    assert lengths.tolist() == [[3, 1, 2, -1], [6, -1, -1, -1], [1, 1, 1, 1]]
    assert fits.tolist() == [True, True, False]


@given(st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_runs_of_a_table_tile_the_row_and_hold_one_id_each(row):
    begins, lengths, fits = (
        np.asarray(x)[0] for x in packed.segment_table(jnp.asarray([row], jnp.int32), len(row))
    )
    assert fits
    runs = [(int(at), int(n)) for at, n in zip(begins, lengths, strict=False) if n >= 0]
    assert [at for at, _ in runs] == list(np.cumsum([0, *(n for _, n in runs[:-1])]))
    assert sum(n for _, n in runs) == len(row)
    assert all(len(set(row[at : at + n])) == 1 for at, n in runs)
    own = np.asarray(begin_of_own_run(jnp.asarray([row], jnp.int32)))[0]
    assert own.tolist() == [at for at, n in runs for _ in range(n)]


def reference_cudnn(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type):
    """What jax documents of packed cuDNN attention: causal from each offset on, as many tokens as the length says."""
    assert mask_type.name == "PADDING_CAUSAL"
    assert q_offsets is kv_offsets
    assert q_seqlen is kv_seqlen
    assert q_offsets.shape[1] == q_seqlen.shape[1] + 1
    assert q_offsets.dtype == q_seqlen.dtype == jnp.int32
    places = jnp.arange(q.shape[1])[None, :, None]
    begins, lengths = q_offsets[:, None, :-1], q_seqlen[:, None, :]
    within = (lengths > 0) & (places >= begins) & (places < begins + lengths)
    ids = jnp.where(within.any(axis=2), jnp.argmax(within, axis=2) + 1, 0)
    return plain(q * (scale * q.shape[-1] ** 0.5), k, v, ids)


@pytest.fixture
def documented_cudnn(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "dot_product_attention", reference_cudnn)


@pytest.mark.usefixtures("documented_cudnn")
@pytest.mark.parametrize(("segments", "padding"), [(1, 0), (2, 5), (7, 30), (64, 0), (63, 9)])
def test_the_tables_say_what_the_segments_said(segments, padding):
    qkv = random_qkv(2, 192, 4, 2, 16)
    ids = packed_segments(2, 192, segments, padding)
    found = values_and_gradients(functools.partial(packed.attend_packed), qkv, ids)
    assert_same(found, values_and_gradients(plain, qkv, ids))


@pytest.mark.usefixtures("documented_cudnn")
def test_a_row_of_more_segments_than_the_table_holds_is_no_number_and_others_are_untouched():
    qkv = random_qkv(2, 64, 2, 1, 16)
    ids = jnp.asarray([[1] * 30 + [2] * 34, [1] * 20 + [2] * 20 + [0] * 24], jnp.int32)
    out = packed.attend_packed(*qkv, ids, segments=2)
    assert jnp.isnan(out[1]).all()
    assert np.allclose(out[0], plain(*qkv, ids)[0], atol=1e-6)


def needs_packed_cudnn():
    if jax.__version_info__ < selection.OLDEST_JAX:
        pytest.skip("the kernel is refused on this jax")


def test_it_lowers_to_the_packed_call_of_cudnn(monkeypatch):
    """What a GPU would be sent; only the questions after a GPU's kind and library are answered for it."""
    needs_packed_cudnn()
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    q, kv = (jax.ShapeDtypeStruct((2, 512, heads, 128), jnp.bfloat16) for heads in (8, 2))
    ids = jax.ShapeDtypeStruct((2, 512), jnp.int32)

    def step(q, k, v, ids):
        return jax.grad(
            lambda q, k, v: packed.attend_packed(q, k, v, ids, segments=16).sum(), argnums=(0, 1, 2)
        )(q, k, v)

    text = jax.jit(step).trace(q, kv, kv, ids).lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"stablehlo.custom_call @(__cudnn\$\w+)", text)
    assert calls == ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
    assert "PADDING_CAUSAL" in text
    assert re.search(r"max_seg_per_batch\\22: 16\b", text)


@pytest.mark.parametrize(("segments", "padding"), [(1, 0), (7, 30), (64, 0)])
def test_tokamax_is_told_the_same_mask(segments, padding):
    """With the package's plain implementation in place of its GPU kernel, which takes the same mask."""
    pytest.importorskip("tokamax")
    qkv = random_qkv(2, 192, 4, 2, 16)
    ids = packed_segments(2, 192, segments, padding)
    with jax.numpy_rank_promotion("allow"):
        found = values_and_gradients(functools.partial(attend_mosaic, implementation="xla"), qkv, ids)
    assert_same(found, values_and_gradients(plain, qkv, ids))
