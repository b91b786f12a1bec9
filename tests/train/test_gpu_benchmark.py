"""The benchmark against transformers compares like with like: both layouts of its torch side train the same."""

import sys

import pytest


@pytest.mark.torch
@pytest.mark.slow
def test_packed_rows_train_in_transformers_as_their_examples_do_side_by_side(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from sft import torch_side
    from sft.rows import Work, examples_of

    work = Work("smollm2-135m", "full", 512, rows=2, updates=1, layers=1)
    assert all(len(examples) > work.rows for examples in examples_of(work, 1000)), "rows must hold several"
    packed = torch_side.train(work, torch_side.Setting("packed", "sdpa", False, at_once=1), "cpu")
    padded = torch_side.train(work, torch_side.Setting("padded", "sdpa", False, at_once=4), "cpu")
    assert packed["losses"] == pytest.approx(padded["losses"], rel=1e-5)
    assert packed["useful_tokens"] == padded["useful_tokens"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "sft"]:
        monkeypatch.delitem(sys.modules, name)
