"""Runs that are resumed with other settings: what goes on, and what is refused and why."""

import json
import logging
import shutil

import pytest
import yaml

from alpacare_jax import checkpoint, load
from alpacare_jax.errors import CheckpointError, ConfigError
from alpacare_jax.train import LoopConfig, Trainer, load_config

LORA = ["adapter.kind=lora", "adapter.rank=4", "adapter.targets=[query]"]
SKIP = "train.guard.action=skip"


def run(path, *overrides, **kwargs):
    Trainer.from_config(load_config(path, list(overrides)), **kwargs).train()


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def begun(tokenizer_folder, packed, tmp_path_factory):
    """Runs of two steps by their settings, each made once; a copy for each test that asks."""
    made = {}

    def copy(to, *overrides):
        if overrides not in made:
            values = {
                "architecture": str(tokenizer_folder / "config.json"),
                "train_data": str(packed),
                "optim": {"learning_rate": 1e-2},
                "train": {"steps": 2, "batch_rows": 8},
            }
            folder = tmp_path_factory.mktemp("begun")
            (folder / "run.yaml").write_text(json.dumps(values | {"out": str(folder / "run")}))
            run(folder / "run.yaml", *overrides)
            made[overrides] = folder
        shutil.copytree(made[overrides], to, dirs_exist_ok=True)
        return to / "run.yaml", f"out={to / 'run'}"

    return copy


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [SKIP]),
        pytest.param([SKIP], [], marks=pytest.mark.slow),
        pytest.param(
            [SKIP], [SKIP, "train.guard.window=16", "train.guard.factor=10"], marks=pytest.mark.slow
        ),
    ],
    ids=["on", "off", "another"],
)
def test_a_guard_may_be_changed_between_runs(begun, tmp_path, before, after):
    path, out = begun(tmp_path, *before)
    with pytest.raises(ConfigError, match="--accept-changes"):
        run(path, out, *after, "train.steps=3")
    run(path, out, *after, "train.steps=3", accept_changes=True)
    assert list(losses(tmp_path / "run")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (LORA, [*LORA, "adapter.rank=8"], "adapter.rank: 4 before, 8 now"),
        ([], LORA, "adapter.kind: 'none' before, 'lora' now"),
        ([], ["optim.state_dtype=int8"], "optim.state_dtype: 'float32' before, 'int8' now"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (LORA, [*LORA, "adapter.kind=rslora"], "adapter.kind: 'lora' before, 'rslora' now"),
                (LORA, [*LORA, "adapter.base=int4"], "adapter.base: 'auto' before, 'int4' now"),
                (LORA, [], "adapter.kind: 'lora' before, 'none' now"),
                ([], ["train.freeze=[embed]"], "train.freeze: [] before, ['embed'] now"),
                ([], ["optim.name=lion"], "optim.name: 'adamw' before, 'lion' now"),
            )
        ),
    ],
)
def test_what_a_checkpoint_does_not_hold_is_refused_even_where_changes_are_accepted(
    begun, tmp_path, before, after, named
):
    path, out = begun(tmp_path, *before)
    with pytest.raises(ConfigError, match="do not fit this configuration") as caught:
        run(path, out, *after, "train.steps=3", accept_changes=True)
    assert named in str(caught.value)
    assert "train.steps" not in str(caught.value), "what may be changed is not named"
    assert checkpoint.steps_of(tmp_path / "run") == [2]


def test_settings_that_are_lists_are_the_same_after_a_checkpoint(begun, tmp_path):
    method = (*LORA, "optim.no_decay=[embed,layers.mlp.*]", "train.freeze=[embed]")
    path, out = begun(tmp_path, *method, "adapter.targets=[query,value]")
    saved = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for targets in ("[query,value]", "[value,query]"):  # their order is no change
        run(path, out, *method, f"adapter.targets={targets}")
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == saved
    with pytest.raises(ConfigError) as caught:
        run(path, out, *method, "adapter.targets=[query,value]", "optim.no_decay=[embed]")
    assert "optim.no_decay: ['embed', 'layers.mlp.*'] before, ['embed'] now" in str(caught.value)


def test_adapters_do_not_go_on_beside_another_base(begun, tmp_path):
    path, out = begun(tmp_path, *LORA)
    first = load(tmp_path / "run")
    other = tmp_path / "other"
    checkpoint.save_model(
        other, first.params | {"embed": first.params["embed"] + 0.1}, first.config, hf=first.hf_folder
    )
    with pytest.raises(CheckpointError, match="not the one the adapters were trained on"):
        run(path, out, *LORA, f"init={other}", "architecture=null", "train.steps=3", accept_changes=True)


@pytest.mark.slow
def test_a_run_goes_on_with_the_batch_it_was_started_with(begun, tmp_path, monkeypatch):
    by_examples = ("train.batch_rows=null", "train.batch_examples=8", "train.microbatches=2")
    with monkeypatch.context() as older:
        # Until microbatches were fitted to the data, sixteen rows was the least that eight devices could share in two.
        older.setattr(LoopConfig, "for_data", lambda self, *_: self)
        path, out = begun(tmp_path, *by_examples, "train.checkpoint_every=1")
    before = losses(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    run(path, out, *by_examples, "train.checkpoint_every=1")
    assert losses(tmp_path / "run") == pytest.approx(before, rel=1e-6)
    metadata = checkpoint.RunCheckpoints(tmp_path / "run" / "checkpoints").metadata(2)
    assert metadata["schedule"]["batch_rows"] == 16
    assert metadata["config"]["train"]["microbatches"] == 2


def test_what_a_batch_was_asked_to_be_stays_in_the_run_folder(begun, tmp_path, caplog):
    caplog.set_level(logging.INFO, "alpacare.train")
    by_examples = ("train.batch_rows=null", "train.batch_examples=8", "train.microbatches=2")
    begun(tmp_path, *by_examples)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["train"]["microbatches"] == 2
    assert "microbatches 1 instead of 2, which keeps a batch near 8 examples" in caplog.text
