"""Packing: nothing lost, nothing mixed, nothing supervised twice, and well filled."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.data.examples import Example
from alpacare_jax.data.packing import COLUMNS, best_fit, empty_sequence, fill_sequence, pack_sequences

ROW = 32


def make(prompt: int, response: int, name: str = "") -> Example:
    """An example whose token ids are all different from each other."""
    tokens = np.arange(1, prompt + response + 1, dtype=np.int32)
    mask = np.array([0] * prompt + [1] * response, np.int32)
    return Example(tokens, mask, name)


EXAMPLES = st.lists(
    st.tuples(st.integers(1, ROW - 1), st.integers(1, ROW - 1)).filter(lambda pair: sum(pair) <= ROW),
    min_size=1,
    max_size=60,
).map(lambda pairs: [make(*pair) for pair in pairs])


def test_the_worked_example_of_fill_row() -> None:
    first = Example(np.array([7, 8, 9, 2], np.int32), np.array([0, 0, 1, 1], np.int32), "a")
    second = Example(np.array([7, 5, 2], np.int32), np.array([0, 1, 1], np.int32), "b")
    row = fill_sequence([first, second], 9)
    assert {name: row[name].tolist() for name in row} == {
        "tokens": [7, 8, 9, 2, 7, 5, 2, 0, 0],
        "segment_ids": [1, 1, 1, 1, 2, 2, 2, 0, 0],
        "positions": [0, 1, 2, 3, 0, 1, 2, 0, 0],
        "loss_mask": [0, 0, 1, 1, 0, 1, 1, 0, 0],
    }
    assert all(row[name].dtype == np.int32 for name in COLUMNS)


def test_the_worked_example_of_best_fit() -> None:
    assert best_fit([4, 7, 3, 2, 4], row_length=10) == [[0, 3, 4], [1, 2]]


def test_an_empty_row_supervises_nothing() -> None:
    row = empty_sequence(4, pad_id=9)
    assert row["tokens"].tolist() == [9] * 4
    assert not any(row[name].any() for name in ("segment_ids", "positions", "loss_mask"))


def test_a_first_token_is_never_a_target() -> None:
    example = Example(np.array([5, 2], np.int32), np.array([1, 1], np.int32), "")
    assert fill_sequence([example, example], 4)["loss_mask"].tolist() == [0, 1, 0, 1]


@given(examples=EXAMPLES, pack=st.booleans())
def test_every_example_comes_out_whole_exactly_once(examples: list[Example], pack: bool) -> None:
    rows = pack_sequences(examples, ROW, pad_id=99, pack=pack)
    found = []
    for row in rows:
        segments = row["segment_ids"]
        count = segments.max()
        filled = int((segments > 0).sum())
        # Segments are contiguous, in order, without gaps; then padding.
        assert segments.tolist() == sorted(segments[:filled].tolist()) + [0] * (ROW - filled)
        assert sorted(set(segments[:filled].tolist())) == list(range(1, count + 1))
        assert (row["tokens"][filled:] == 99).all()
        assert not row["positions"][filled:].any()
        assert not row["loss_mask"][filled:].any()
        for segment in range(1, count + 1):
            here = segments == segment
            assert row["positions"][here].tolist() == list(range(int(here.sum())))
            found.append((row["tokens"][here].tolist(), row["loss_mask"][here].tolist()))
    expected = [(example.tokens.tolist(), example.loss_mask.tolist()) for example in examples]
    assert sorted(found) == sorted(expected)
    if not pack:
        assert len(rows) == len(examples)


@given(lengths=st.lists(st.integers(1, ROW), max_size=200))
def test_best_fit_opens_a_row_only_where_none_has_room(lengths: list[int]) -> None:
    rows = best_fit(lengths, ROW)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert all(total <= ROW for total in filled)
    # No two rows could have been one, so more than half of the slots are filled however the lengths lie.
    assert all(a + b > ROW for a, b in itertools.pairwise(sorted(filled)))
    assert best_fit(lengths, ROW) == rows


def first_fit(lengths: list[int], row_length: int) -> int:
    """Rows that first fit needs in the order given."""
    spaces: list[int] = []
    for length in lengths:
        fitting = next((index for index, space in enumerate(spaces) if space >= length), None)
        if fitting is None:
            spaces.append(row_length - length)
        else:
            spaces[fitting] -= length
    return len(spaces)


@pytest.mark.parametrize("seed", range(5))
def test_fills_better_than_first_fit(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [min(1024, max(40, int(draw.lognormvariate(5.4, 0.7)))) for _ in range(3000)]
    rows = len(best_fit(lengths, 1024))
    assert rows <= first_fit(lengths, 1024)
    assert sum(lengths) / (rows * 1024) >= 0.98


def test_too_long_an_example_is_the_programs_fault() -> None:
    with pytest.raises(ValueError, match="example 1 has 11 tokens"):
        best_fit([3, 11], 10)
