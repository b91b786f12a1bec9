"""The same examples for both sides: random tokens in examples of the lengths that instruction data have."""

import dataclasses

import numpy as np

from alpacare_jax.data.examples import Example
from alpacare_jax.data.packing import PackedSequence, empty_sequence, pack_sequences, plan_sequences


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained on, in one case of the benchmark.

    Args:
        shape: Name of a model's shape (``alpacare_jax.model.shapes``).
        method: "full", "lora" or "qlora".
        seq_len: Tokens in a row.
        rows: Rows in an update, as packed.
        updates: Updates that are timed.
        layers: Layers to keep of the shape; 0 keeps all.
    """

    shape: str
    method: str
    seq_len: int
    rows: int
    updates: int
    layers: int = 0


def examples_of(work: Work, vocab_size: int, seed: int = 0) -> list[list[Example]]:
    """Draw the examples of each update, the first of which warms up.

    Lengths are log-normal with a median of 220 tokens and a mean of about 280, cut at the row length, which is near
    MedInstruct-52k's; a third of an example is its prompt. Examples are added while they fit the update's rows.

    Returns:
        One list of examples for each update.
    """
    random = np.random.default_rng(seed)
    updates = []
    for update in range(work.updates + 1):
        lengths: list[int] = []
        while True:
            length = int(np.clip(random.lognormal(np.log(220), 0.7), 16, work.seq_len))
            if len(plan_sequences([*lengths, length], work.seq_len)) > work.rows:
                break
            lengths.append(length)
        updates.append(
            [_example(random, length, vocab_size, f"{update}-{i}") for i, length in enumerate(lengths)]
        )
    return updates


def packed(examples: list[Example], work: Work) -> list[PackedSequence]:
    """Pack an update's examples into its rows."""
    rows = pack_sequences(examples, work.seq_len)
    return [*rows, *(empty_sequence(work.seq_len) for _ in range(work.rows - len(rows)))]


def _example(random: np.random.Generator, length: int, vocab_size: int, name: str) -> Example:
    mask = np.ones(length, np.int32)
    mask[: max(1, length // 3)] = 0
    return Example(id=name, tokens=random.integers(3, vocab_size, length, dtype=np.int32), loss_mask=mask)
