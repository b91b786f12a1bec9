"""Settings of the training loop: steps, batches, and how often to log, validate and save."""

import dataclasses
import math
from typing import Annotated

from alpacare_jax.data.loader import count_steps
from alpacare_jax.data.manifest import Statistics
from alpacare_jax.errors import ConfigError
from alpacare_jax.train.guard import GuardConfig
from datagen.configuration import Range, check

ROUNDING = 0.1
"""By what share a batch counted in examples may be rounded before fewer microbatches are taken."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop.

    Args:
        epochs: Passes over the data; not used where ``steps`` is given.
        steps: Optimiser steps of the whole run; None counts them from ``epochs``.
        batch_rows: Rows in a batch over all devices. Give this or ``batch_examples``.
        batch_examples: Examples in a batch, on average: packed rows hold several, so this keeps a recipe that was
            written for one example a row. The number of rows is rounded to what devices and microbatches divide.
        microbatches: Parts a batch is split into, one after another, to save memory; the result is the same. Fewer are
            taken where so many would make a batch of ``batch_examples`` much larger, see ``for_data``.
        seed: Seed of the order of the data, and of the weights where a run starts from nothing.
        log_every: Steps between lines of the log; ``metrics.jsonl`` has them all.
        validate_every: Steps between validations; 0 validates before the first and after the last step only.
        checkpoint_every: Steps between checkpoints; 0 writes one at the end only.
        keep_checkpoints: How many of the latest checkpoints stay on disk.
        freeze: Patterns of the parameters that keep their values, such as ``embed`` or ``layers.*.attention.*``; see
            ``alpacare_jax.adapters.freezing``.
        neftune_alpha: Strength of the noise on embeddings in training (NEFTune); 0 for none, 5 to 15 in the paper.
        guard: What happens at a gradient that is not finite or far too large.
    """

    epochs: Annotated[float, Range(0, 1_000_000, above=True)] = 3.0
    steps: Annotated[int | None, Range(1, 1_000_000_000)] = None
    batch_rows: Annotated[int | None, Range(1, 131_072)] = None
    batch_examples: Annotated[int | None, Range(1, 1_000_000)] = None
    microbatches: Annotated[int, Range(1, 4096)] = 1
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    log_every: Annotated[int, Range(1, 1_000_000_000)] = 1
    validate_every: Annotated[int, Range(0, 1_000_000_000)] = 0
    checkpoint_every: Annotated[int, Range(0, 1_000_000_000)] = 0
    keep_checkpoints: Annotated[int, Range(1, 1_000_000_000)] = 2
    freeze: tuple[str, ...] = ()
    neftune_alpha: Annotated[float, Range(0, 1_000_000)] = 0.0
    guard: GuardConfig = GuardConfig()

    def __post_init__(self) -> None:
        both = (self.batch_rows is None) == (self.batch_examples is None)
        check(self, "train", ["batch_rows, or else batch_examples, must be given"] * both)

    def for_data(
        self, statistics: Statistics, batch_shards: int, started: "Progress | None" = None
    ) -> "LoopConfig":
        """Return the settings with fewer microbatches where their number would change the recipe's batch.

        Packed rows hold several examples, so a batch counted in examples may have fewer rows than devices times
        microbatches; rounding it up would train on more examples an update. Where rounding moves the batch by more
        than ``ROUNDING``, as few microbatches are taken as hold no more rows than where every example has a row
        of its own, which is what ``alpacare plan`` looks at.

        Args:
            statistics: Of the packed data set.
            batch_shards: Over how many devices the rows of a batch are split.
            started: What a resumed run has done; its batch is kept, if some number of microbatches gives it.

        Examples:
            128 examples in four microbatches are 32 rows at a time. At four a row they are 32 rows in all: on 16
            devices four microbatches would make 64 of them, so one is taken.
        """
        if self.batch_rows is not None:
            return self
        ways = [dataclasses.replace(self, microbatches=1 + at) for at in range(self.microbatches)]
        sizes = [way.schedule(statistics, batch_shards) for way in ways]
        rows = [size.batch_rows for size in sizes]
        wanted = (self.batch_examples or 1) * statistics.rows / statistics.examples
        off = [abs(size - wanted) / wanted for size in rows]
        at_once = max(rows[-1], self.batch_examples or 1) / self.microbatches
        able = [at for at in range(len(ways)) if rows[at] / ways[at].microbatches <= at_once]
        near = [at for at in able if off[at] <= ROUNDING]
        best = len(ways) - 1 if off[-1] <= ROUNDING else near[0] if near else min(able, key=off.__getitem__)
        if started is not None and rows[best] != started.batch_rows:
            best = next((at for at in reversed(able) if rows[at] == started.batch_rows), best)
        return self if best == len(ways) - 1 else ways[best]

    def schedule(
        self, statistics: Statistics, batch_shards: int, started: "Progress | None" = None
    ) -> "Schedule":
        """Work out batch size and number of steps for a data set on a mesh.

        Args:
            statistics: Of the packed data set.
            batch_shards: Over how many devices the rows of a batch are split.
            started: What a resumed run has done. Where it was done in batches of another size, the steps that remain
                follow from its position in the data, so that it still ends after ``epochs``.

        Raises:
            ConfigError: ``batch_rows`` does not divide over devices and microbatches.
        """
        unit = batch_shards * self.microbatches
        if self.batch_rows is not None:
            rows = self.batch_rows
            if rows % unit:
                raise ConfigError(
                    "the batch does not divide over devices and microbatches",
                    where="train.batch_rows",
                    found=f"{rows} rows over {batch_shards} devices x {self.microbatches} microbatches",
                    expected=f"a multiple of {unit}",
                    remedy="change train.batch_rows, train.microbatches or the mesh",
                )
        else:
            per_row = statistics.examples / statistics.rows
            rows = max(1, round((self.batch_examples or 1) / per_row / unit)) * unit
        steps = self.steps or count_steps(statistics.rows, self.epochs, rows)
        if not self.steps and started is not None and started.position != started.step * rows:
            left = math.ceil(statistics.rows * self.epochs) - started.position
            steps = started.step + max(0, -(-left // rows))
        return Schedule(steps=steps, batch_rows=rows, epoch_rows=statistics.rows)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The size of a run: steps in all, rows a batch, rows an epoch."""

    steps: int
    batch_rows: int
    epoch_rows: int


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a resumed run has done.

    Args:
        step: Optimiser steps taken.
        position: Rows seen.
        batch_rows: Rows in its last batch.
    """

    step: int
    position: int
    batch_rows: int


def is_due(step: int, last: int, every: int) -> bool:
    """Return whether an action due every so many steps, and at the last step, is due now."""
    return step == last or (every > 0 and step % every == 0)
