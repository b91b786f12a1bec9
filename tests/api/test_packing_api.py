"""Packing as a notebook uses it: from files or records, in memory or on disk, always the same rows."""

import json
import tempfile

import numpy as np
import pytest

import alpacare_jax as alpacare
from alpacare_jax.errors import ConfigError, DataError

ROWS = [{"instruction": f"Name sign {n} of fever.", "output": "Chills. " * (n % 3 + 1)} for n in range(16)]


def same_rows(first, second):
    assert len(first) == len(second)
    for index in range(len(first)):
        for name in first[index]:
            assert np.array_equal(first[index][name], second[index][name])


def test_a_file_a_list_of_files_and_records_give_the_rows_that_are_written(
    tiny, tasks, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    tokenizer = alpacare.load(tiny).tokenizer
    held = alpacare.pack(tasks, tokenizer, seq_len=256)
    assert not list((tmp_path / "temporary").iterdir()), "nothing temporary is left"
    written = alpacare.pack(tasks, tokenizer, seq_len=256, out=tmp_path / "packed")
    halves = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, rows in zip(halves, (ROWS[:7], ROWS[7:]), strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for other in (
        written,
        alpacare.PackedDataset.open(tmp_path / "packed"),
        alpacare.pack(ROWS, tiny, seq_len=256),
    ):
        same_rows(held, other)
        assert other.manifest.statistics == held.manifest.statistics
        assert other.most_segments() == held.most_segments()
    several = alpacare.pack(halves, tokenizer, seq_len=256)
    same_rows(held, several)
    assert several.example_ids(0)[0].split("-line-")[0] in "ab"
    assert "16 examples" in repr(held)


def test_rows_of_ones_own_packing_are_described(tiny, tasks):
    packed = alpacare.pack(tasks, tiny, seq_len=256)
    rows = [packed[index] for index in range(len(packed))]
    own = alpacare.PackedDataset.from_sequences(rows)
    same_rows(own, packed)
    for name in ("examples", "rows", "tokens", "supervised_tokens", "fill", "longest_example"):
        assert getattr(own.manifest.statistics, name) == getattr(packed.manifest.statistics, name)
    assert own.most_segments() == packed.most_segments()
    for wrong in (
        [],
        [{"tokens": np.zeros(4)}],
        [rows[0], {name: part[:-1] for name, part in rows[0].items()}],
    ):
        with pytest.raises(DataError, match="arrays of one length"):
            alpacare.PackedDataset.from_sequences(wrong)


@pytest.mark.parametrize(
    ("source", "options", "error", "named"),
    [
        ([], {}, DataError, "the list is empty"),
        ([{"instruction": "Say."}], {}, DataError, "row:1"),
        (["a.jsonl", {"instruction": "Say."}], {}, DataError, "mixes"),
        ("missing.jsonl", {}, DataError, "missing.jsonl"),
        (ROWS, {"template": "vicuna"}, ConfigError, "alpaca or chat"),
        (ROWS, {"seq_len": 8}, DataError, "no record fits"),
    ],
)
def test_what_cannot_be_packed_is_named(tiny, source, options, error, named):
    with pytest.raises(error) as caught:
        alpacare.pack(source, tiny, **{"seq_len": 256, **options})
    assert named in str(caught.value)
