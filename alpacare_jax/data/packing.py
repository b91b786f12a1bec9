"""Best-fit-decreasing packing: which examples share a row, and what the row then holds."""

from collections.abc import Mapping, Sequence

import numpy as np

from alpacare_jax.data.examples import Example

COLUMNS = ("tokens", "segment_ids", "positions", "loss_mask")
"""The int32 arrays [T] of a packed row."""

PackedSequence = dict[str, np.ndarray]


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Assign examples to rows: the longest first, each into the fullest row that still takes it.

    Args:
        lengths: Tokens per example, each from 1 to ``row_length``.
        row_length: Tokens per row (T).

    Returns:
        Rows as lists of indices into ``lengths``: ascending within a row, rows by their first index. The same
        lengths always give the same rows.

    Example:
        >>> best_fit([4, 7, 3, 2, 4], row_length=10)
        [[0, 3, 4], [1, 2]]
    """
    rows: list[list[int]] = []
    by_space: dict[int, list[int]] = {}
    spaces = 0  # bit s is set where some row has s free slots, so the tightest fit is one bit search away
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if not 1 <= length <= row_length:
            raise ValueError(f"example {index} has {length} tokens; a row takes 1 to {row_length}")
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
        else:
            space, row = row_length, len(rows)
            rows.append([])
        rows[row].append(index)
        left = space - length
        if left:
            by_space.setdefault(left, []).append(row)
            spaces |= 1 << left
    return sorted(sorted(row) for row in rows)


def fill_sequence(examples: Sequence[Example], row_length: int, pad_id: int = 0) -> PackedSequence:
    """Lay examples into one row.

    Args:
        examples: Examples whose tokens together fit into the row.
        row_length: T.
        pad_id: Token id in the slots that stay empty.

    Returns:
        int32 arrays [T]: ``tokens``; ``segment_ids``, 1, 2, ... per example and 0 in empty slots;
        ``positions``, from 0 in each segment; ``loss_mask``, 1 where the token is a supervised target.

    Example:
        Two examples, [7, 8, 9, 2] with the response [9, 2] and [7, 5, 2] with the response [5, 2], in a row
        of 9::

            tokens       7 8 9 2   7 5 2   0 0
            segment_ids  1 1 1 1   2 2 2   0 0
            positions    0 1 2 3   0 1 2   0 0
            loss_mask    0 0 1 1   0 1 1   0 0
    """
    row = empty_sequence(row_length, pad_id)
    at = 0
    for segment, example in enumerate(examples, start=1):
        here = slice(at, at + len(example))
        row["tokens"][here] = example.tokens
        row["segment_ids"][here] = segment
        row["positions"][here] = np.arange(len(example))
        row["loss_mask"][here] = example.loss_mask
        # No token stands before the first of a segment, so nothing could predict it.
        row["loss_mask"][at] = 0
        at += len(example)
    return row


def empty_sequence(row_length: int, pad_id: int = 0) -> PackedSequence:
    """Return a row without examples; it adds nothing to any loss."""
    row = {name: np.zeros(row_length, np.int32) for name in COLUMNS}
    row["tokens"][:] = pad_id
    return row


def plan_sequences(lengths: Sequence[int], row_length: int, *, pack: bool = True) -> list[list[int]]:
    """Assign examples to rows by :func:`best_fit`, or one to each row where ``pack`` is False."""
    return best_fit(lengths, row_length) if pack else [[index] for index in range(len(lengths))]


def pack_sequences(
    examples: Sequence[Example], row_length: int, *, pad_id: int = 0, pack: bool = True
) -> list[PackedSequence]:
    """Pack examples, none longer than a row, in memory; see :func:`plan_sequences` and :func:`fill_sequence`."""
    plan = plan_sequences([len(example) for example in examples], row_length, pack=pack)
    return [fill_sequence([examples[index] for index in row], row_length, pad_id) for row in plan]


def stack_sequences(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stack rows to arrays [B, T]."""
    return {name: np.stack([row[name] for row in rows]) for name in COLUMNS}
