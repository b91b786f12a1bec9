"""How the size of a run is worked out, and how the learning rate goes."""

import pytest

from alpacare_jax.data.manifest import Statistics
from alpacare_jax.errors import ConfigError
from alpacare_jax.optim import OptimConfig, decays, make_schedule
from alpacare_jax.train import LoopConfig, Progress, Schedule
from alpacare_jax.train.recorder import log_line


def statistics(rows=100, examples=400):
    return Statistics(
        records=examples,
        examples=examples,
        rows=rows,
        slots=rows * 8,
        tokens=rows * 8,
        supervised_tokens=rows,
        fill=1.0,
        longest_example=8,
        left_out=0,
        prompt_too_long=0,
        truncated=0,
    )


def test_a_batch_in_examples_is_turned_into_rows_that_divide():
    # 128 examples at 4 a row are 32 rows.
    assert LoopConfig(batch_examples=128).schedule(statistics(), batch_shards=8).batch_rows == 32
    # 100 examples are 25 rows, rounded to a multiple of 4 devices x 2 microbatches.
    assert LoopConfig(batch_examples=100, microbatches=2).schedule(statistics(), 4).batch_rows == 24


@pytest.mark.parametrize(
    ("examples", "shards", "microbatches", "taken", "rows"),
    [
        (128, 16, 4, 1, 32),  # four would make 64 rows of 32
        (128, 8, 4, 4, 32),
        (100, 4, 2, 2, 24),
        (16, 16, 8, 1, 16),  # never fewer rows than devices
        (512, 16, 4, 4, 128),
        (48, 4, 2, 1, 12),
    ],
)
def test_microbatches_do_not_change_how_many_examples_an_update_sees(
    examples, shards, microbatches, taken, rows
):
    asked = LoopConfig(batch_examples=examples, microbatches=microbatches)
    settled = asked.for_data(statistics(), shards)
    assert (settled.microbatches, settled.schedule(statistics(), shards).batch_rows) == (taken, rows)
    planned = max(asked.schedule(statistics(), shards).batch_rows, examples) / microbatches
    assert rows / taken <= planned
    by_rows = LoopConfig(batch_rows=64, microbatches=4)
    assert by_rows.for_data(statistics(), 16) is by_rows


@pytest.mark.parametrize("microbatches", [8, 16])
def test_a_batch_that_rounding_hardly_moves_is_left_as_it_was_asked(microbatches):
    # 30.5 rows, 32 in 8 or 16 parts.
    asked = LoopConfig(batch_examples=128, microbatches=microbatches)
    assert asked.for_data(statistics(rows=100, examples=420), 1) is asked


def test_a_resumed_run_keeps_its_size_where_some_number_of_microbatches_gives_it():
    asked = LoopConfig(batch_examples=128, microbatches=4)
    for shards, rows, parts in ((16, 64, 4), (16, 32, 1), (8, 32, 4), (4, 32, 4)):
        started = Progress(step=2, position=2 * rows, batch_rows=rows)
        settled = asked.for_data(statistics(), shards, started)
        assert settled.microbatches == parts
        expected = Schedule(steps=-(-300 // rows), batch_rows=rows, epoch_rows=100)
        assert settled.schedule(statistics(), shards, started) == expected


def test_steps_cover_all_epochs():
    schedule = LoopConfig(epochs=3, batch_rows=8).schedule(statistics(rows=100), batch_shards=1)
    assert schedule.steps == 38
    assert LoopConfig(steps=5, batch_rows=8).schedule(statistics(), 1).steps == 5


@pytest.mark.parametrize("epochs", [0.5, 1, 2.9, 3])
@pytest.mark.parametrize("sizes", [(4, 8), (8, 4), (4, 16, 2), (7, 3, 100), (8, 8)])
def test_a_run_that_goes_on_in_batches_of_another_size_still_sees_all_epochs(epochs, sizes):
    """However often it is begun again, it takes as few steps as reach the end of the data, and counts the same."""
    step = position = 0
    for rows in sizes:
        config, counted = LoopConfig(epochs=epochs, batch_rows=rows), set()
        for _ in range(2):
            done = Progress(step, position, rows) if step else None
            counted.add(config.schedule(statistics(rows=100), 1, done).steps)
            if step < max(counted):
                step, position = step + 1, position + rows
        assert len(counted) == 1
    while step < max(counted):
        step, position = step + 1, position + rows
    assert position - rows < 100 * epochs <= position
    assert LoopConfig(steps=5, batch_rows=8).schedule(statistics(), 1, Progress(2, 8, 4)).steps == 5


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="does not divide") as caught:
        LoopConfig(batch_rows=6, microbatches=2).schedule(statistics(), batch_shards=2)
    assert "a multiple of 4" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "batch_rows, or else batch_examples"),
        ({"batch_rows": 2, "batch_examples": 2}, "batch_rows, or else batch_examples"),
        ({"batch_rows": 0}, "batch_rows must be at least 1"),
        ({"batch_rows": 1, "epochs": 0}, "epochs must be above 0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**values)


def test_warm_up_rises_from_zero_and_cosine_falls_to_zero():
    schedule = make_schedule(OptimConfig(learning_rate=1.0, warmup_ratio=0.1), steps=100)
    assert float(schedule(0)) == 0.0
    assert float(schedule(5)) == pytest.approx(0.5)
    assert float(schedule(10)) == pytest.approx(1.0)
    assert float(schedule(55)) == pytest.approx(0.5)
    assert float(schedule(100)) == pytest.approx(0.0, abs=1e-6)


def test_norms_and_biases_do_not_decay():
    tree = {"norm": {"scale": 0}, "layers": {"attention": {"query": 0, "query_bias": 0}}, "embed": 0}
    assert decays(tree) == {
        "norm": {"scale": False},
        "layers": {"attention": {"query": True, "query_bias": False}},
        "embed": True,
    }


def test_a_step_is_said_in_one_line():
    line = {
        "step": 120,
        "loss": 1.2345,
        "lr": 1.9e-5,
        "step_ms": 412.4,
        "tokens_per_s": 159_000.0,
        "fill": 0.98,
    }
    assert log_line(line, 3000) == (
        "step 00120/03000 | loss 1.2345 | lr 1.9e-05 | 412 ms | 159k tok/s | pack 98%"
    )
