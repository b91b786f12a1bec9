"""Drawing tokens: exact truncation without sorting, faithful frequencies, penalties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpacare_jax.errors import DataError
from alpacare_jax.generate.sampling import (
    Draw,
    Rows,
    SamplingParams,
    choose,
    invert_cumulative,
    most_probable,
    nucleus,
)


def rows(count: int, **given_values: object) -> Rows:
    columns = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "presence": 0.0, "frequency": 0.0, "seed": 0}
    columns |= {"drawn": 0} | given_values
    whole = ("top_k", "drawn")

    def column(name: str) -> jax.Array:
        kind = np.int32 if name in whole else np.uint32 if name == "seed" else np.float32
        return jnp.broadcast_to(jnp.asarray(np.asarray(columns[name]).astype(kind)), (count,))

    return Rows(**{name: column(name) for name in columns})


def sorted_nucleus(p: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """The textbook way: sort, then keep from the top."""
    order = np.argsort(-p, kind="stable")
    if top_k:
        order = order[:top_k]
    if top_p < 1:
        mass = np.cumsum(p[order]) / p[order].sum()
        order = order[: int(np.searchsorted(mass, top_p, side="left")) + 1]
    return set(order.tolist())


_nucleus = jax.jit(nucleus)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 70), st.floats(0.05, 1.0))
def test_truncation_is_that_of_sorting(seed: int, top_k: int, top_p: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, 64)
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    mass = np.cumsum(np.sort(p)[::-1])
    if np.any(np.abs(mass - top_p) < 1e-5) or (top_k and top_p < 1):
        top_p = 1.0  # rounding may decide such cases either way; both together are tested below
    kept = _nucleus(jnp.asarray(p)[None], jnp.asarray([top_k]), jnp.asarray([top_p], jnp.float32))
    assert set(np.flatnonzero(np.asarray(kept)[0])) == sorted_nucleus(p, top_k, top_p)


def test_top_k_comes_before_top_p() -> None:
    p = jnp.asarray([[0.4, 0.3, 0.2, 0.1]], jnp.float32)
    # Of the two kept by top-k the first holds 4/7 of what is left, which is enough for 0.5.
    kept = nucleus(p, jnp.asarray([2]), jnp.asarray([0.5], jnp.float32))
    assert np.asarray(kept).tolist() == [[True, False, False, False]]
    kept = nucleus(p, jnp.asarray([2]), jnp.asarray([0.6], jnp.float32))
    assert np.asarray(kept).tolist() == [[True, True, False, False]]


def test_inverting_the_cumulative_sum() -> None:
    p = np.zeros((1, 1000), np.float32)
    p[0, [3, 255, 256, 999]] = [0.1, 0.2, 0.3, 0.4]

    def at(u: float) -> int:
        return int(invert_cumulative(jnp.asarray(p), jnp.asarray([u], jnp.float32))[0])

    found = [at(u) for u in (0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, 0.9999999)]
    assert found == [3, 3, 255, 255, 256, 256, 999, 999]


def test_sampling_follows_the_distribution() -> None:
    logits = np.random.default_rng(0).normal(0, 1.5, 12).astype(np.float32)
    count = 20_000
    drawn, _ = jax.jit(choose, static_argnames="draw")(
        jnp.broadcast_to(jnp.asarray(logits), (count, 12)),
        None,
        rows(count, temperature=0.7, seed=np.arange(count)),
        Draw(sampled=True),
    )
    expected = np.asarray(jax.nn.softmax(jnp.asarray(logits) / 0.7))
    frequency = np.bincount(np.asarray(drawn), minlength=12) / count
    assert np.abs(frequency - expected).max() < 4 * np.sqrt(0.25 / count)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(0, 2, (5, 40)), jnp.float32)
    settings_of = {"temperature": np.array([0, 1, 0.5, 2, 1]), "top_p": np.array([1, 0.9, 0.5, 1, 0.2])}
    draw = Draw(sampled=True, truncated=True)
    together, _ = choose(logits, None, rows(5, seed=np.arange(5), drawn=7, **settings_of), draw)
    for index in range(5):
        own = {name: value[index] for name, value in settings_of.items()}
        alone, _ = choose(logits[index : index + 1], None, rows(1, seed=index, drawn=7, **own), draw)
        assert int(alone[0]) == int(together[index])


def test_temperature_zero_takes_the_first_of_the_best() -> None:
    logits = jnp.asarray([[1.0, 5.0, 5.0, 0.0], [-1.0, -2.0, -3.0, -0.5]], jnp.float32)
    assert np.asarray(most_probable(logits)).tolist() == [1, 3]
    tokens, _ = choose(logits, None, rows(2, temperature=np.array([0, 0])), Draw())
    assert np.asarray(tokens).tolist() == [1, 3]


def test_penalties_push_repeated_tokens_down() -> None:
    logits = jnp.asarray([[3.0, 2.6, 0.0]], jnp.float32)
    counts, draw, found = jnp.zeros((1, 3), jnp.int32), Draw(penalised=True), []
    for drawn in range(6):
        settings_now = rows(1, temperature=0, frequency=0.25, presence=0.1, drawn=drawn)
        tokens, counts = choose(logits, counts, settings_now, draw)
        found.append(int(tokens[0]))
    # 3.0, then 2.65 (3 - .25 - .1), then 2.6 wins over 2.4, and so on by the formula.
    assert found == [0, 0, 1, 0, 1, 0]
    assert np.asarray(counts).tolist() == [[4, 2, 0]]


def test_a_row_given_anew_forgets_what_was_counted() -> None:
    logits = jnp.asarray([[3.0, 2.9, 0.0]], jnp.float32)
    stale = jnp.asarray([[5, 0, 0]], jnp.int32)
    fresh = rows(1, temperature=0, presence=1.0, drawn=0)
    tokens, counts = choose(logits, stale, fresh, Draw(penalised=True))
    assert int(tokens[0]) == 0
    assert np.asarray(counts).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"presence_penalty": 3.0},
        {"logprobs": 21},
        {"stop": ("",)},
        {"max_tokens": -1},
    ],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError) as caught:
        SamplingParams(**wrong)  # type: ignore[arg-type]
    assert caught.value.where == next(iter(wrong))


def kept_in_float64(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> set[int]:
    """The tokens that may be drawn, by the definition and in float64; those float32 cannot tell from the last, too."""
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    p = np.exp(scaled)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    order = order[: min(top_k, len(p))] if top_k else order
    mass = np.cumsum(p[order]) / p[order].sum()
    last = order[min(int(np.searchsorted(mass, top_p, side="left")), len(order) - 1)]
    return set(np.flatnonzero(p >= p[last] * (1 - 4 * np.finfo(np.float32).eps)).tolist())


_choose = jax.jit(choose, static_argnames="draw")


@settings(max_examples=60, deadline=None)
@example(337474, 100.0, 40, 0.9999999, 0.001)  # the 40th and the 41st token are equally probable in float32
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-45, 1e-39, 1e-38, 1.2e-38, 1e-30, 1e-3, 0.3, 1.0, 2.0, 100.0]),
    st.sampled_from([0, 1, 2, 40, 64]),
    st.sampled_from([5e-324, 1e-45, 1e-39, 1.2e-38, 1e-20, 1e-8, 0.3, 0.9, 1 - 1e-7, 1.0]),
    st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_what_is_drawn_is_kept_by_the_definition(
    seed: int, temperature: float, top_k: int, top_p: float, spread: float
) -> None:
    count = 16
    logits = np.random.default_rng(seed).normal(0, spread, 64).astype(np.float32)
    wanted = rows(count, temperature=temperature, top_k=top_k, top_p=top_p, seed=np.arange(count))
    drawn, _ = _choose(
        jnp.broadcast_to(jnp.asarray(logits), (count, 64)), None, wanted, Draw(sampled=True, truncated=True)
    )
    # A little more than asked for, since float32 rounds the sums.
    kept = kept_in_float64(logits, max(temperature, 1e-38), top_k, min(1.0, top_p + 1e-5))
    assert set(np.asarray(drawn).tolist()) <= kept
    if top_p < 1e-6 or top_k == 1 or temperature < 1e-20:
        assert set(np.asarray(drawn).tolist()) == {int(logits.argmax())}
