"""Training as a notebook does it: a model and rows in, a better model out; what was given in stays as it was."""

import json
import logging

import jax
import numpy as np
import pytest
from marking import slow_but

import alpacare_jax as alpacare
from alpacare_jax import checkpoint
from alpacare_jax.errors import ConfigError, DataError, ShardingError

TOKENS = np.random.default_rng(0).integers(2, 258, (2, 17))


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def model(tiny):
    return alpacare.load(tiny, dtype="float32")


@pytest.fixture(scope="module")
def data(tiny, tasks):
    return alpacare.pack(tasks, tiny, seq_len=256)


def config(**changes):
    return alpacare.TrainConfig(
        **{"steps": 4, "batch_size": 2, "optim": alpacare.Optim(learning_rate=1e-2), **changes}
    )


def same(found, expected):
    return jax.tree.all(jax.tree.map(np.array_equal, found, expected))


LORA = {"lora": alpacare.LoRA(rank=4)}


@pytest.mark.parametrize(
    "method", slow_but([{}, LORA], [{}, LORA, {"freeze": ("embed",)}]), ids=["all", "lora", "frozen"]
)
def test_a_run_in_memory_learns_and_leaves_the_model_as_it_was(model, data, method):
    before, figures = jax.device_get(model.params), []
    trainer = alpacare.Trainer(model, data, config(**method), validation=data, callbacks=[figures.append])
    first = trainer.model
    kept = np.asarray(first.logits(TOKENS))
    assert trainer.model is first, "made once for each step"
    assert np.abs(kept - np.asarray(model.logits(TOKENS))).max() < 1e-5
    trainer.train()
    losses = [line["val_loss"] for line in figures if "val_loss" in line]
    assert losses[-1] < losses[0]
    assert same(jax.device_get(model.params), before)
    assert np.array_equal(first.logits(TOKENS), kept), "later steps do not change it"
    assert not np.array_equal(trainer.model.logits(TOKENS), kept)
    assert isinstance(trainer.model.generate("Name a sign of fever.", max_tokens=3), str)


def test_adapters_train_on_the_model_itself_and_not_on_a_copy(model, data):
    logits, expected = model.logits(TOKENS), checkpoint.flatten(model.params)
    trainer = alpacare.Trainer(model, data, config(**LORA))
    trainer.train()
    frozen = checkpoint.flatten(trainer.state.frozen)
    assert frozen
    for name, leaf in frozen.items():
        assert leaf.unsafe_buffer_pointer() == expected[name].unsafe_buffer_pointer(), name
    assert np.array_equal(model.logits(TOKENS), logits)


def test_a_loop_of_ones_own_is_the_loop_of_the_trainer(model, data):
    losses, lines = [], []
    trainer = alpacare.Trainer(model, data, config())
    for _, batch in zip(range(4), trainer.batches(), strict=False):
        losses.append(trainer.step({name: np.asarray(part) for name, part in batch.items()})["loss"])
    other = alpacare.Trainer(model, data, config(), callbacks=[lines.append])
    other.train()
    assert losses == [line["loss"] for line in lines]
    assert same(jax.device_get(trainer.model.params), jax.device_get(other.model.params))
    wider = {name: np.concatenate([part, part]) for name, part in jax.device_get(batch).items()}
    assert trainer.step(wider)["tokens"] == 2 * trainer.step(jax.device_get(batch))["tokens"]


@pytest.mark.parametrize("method", slow_but([LORA], [{}, LORA]), ids=["all", "lora"])
def test_a_run_in_a_folder_goes_on_where_it_stopped_and_opens_as_what_was_trained(
    model, data, tmp_path, method
):
    class Stop(Exception):
        pass

    class Watch:
        saved = ()

        def on_step(self, figures):
            if figures["step"] == 3:
                raise Stop

        def on_save(self, step, folder):
            self.saved += ((step, folder.parent.parent.name),)

    watch, setting = Watch(), config(checkpoint_every=1, **method)
    with pytest.raises(Stop):
        alpacare.Trainer(model, data, setting, out=tmp_path / "cut", callbacks=[watch]).train()
    assert watch.saved == ((1, "cut"), (2, "cut"))
    trainer = alpacare.Trainer(model, data, setting, out=tmp_path / "cut")
    trainer.train()
    whole = alpacare.Trainer(model, data, setting)
    whole.train()
    assert same(jax.device_get(trainer.model.params), jax.device_get(whole.model.params))
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4]
    opened = alpacare.load(tmp_path / "cut")
    assert np.abs(np.asarray(opened.logits(TOKENS)) - np.asarray(trainer.model.logits(TOKENS))).max() < 1e-5
    again = alpacare.Trainer(model, data, setting, out=tmp_path / "cut")
    again.train()
    assert again.taken == 4, "a finished run is left as it is"
    with pytest.raises(ConfigError, match="another configuration"):
        alpacare.Trainer(model, data, config(seed=5, **method), out=tmp_path / "cut").train()


def test_a_loop_of_ones_own_can_be_saved_and_resumed(model, data, tmp_path):
    trainer = alpacare.Trainer(model, data, config(), out=tmp_path / "run")
    batches = trainer.batches()
    losses = [trainer.step(next(batches))["loss"] for _ in range(2)]
    trainer.save()
    assert checkpoint.steps_of(tmp_path / "run") == [2]
    resumed, lines = (
        alpacare.Trainer(model, data, config(), out=tmp_path / "run", callbacks=[losses.append]),
        [],
    )
    resumed.train()
    alpacare.Trainer(model, data, config(), callbacks=[lines.append]).train()
    assert [*losses[:2], *(line["loss"] for line in losses[2:])] == [line["loss"] for line in lines]


def test_a_run_computes_in_the_dtype_of_the_model(tiny, data):
    trainer = alpacare.Trainer(alpacare.load(tiny, dtype="bfloat16"), data, config(steps=1))
    trainer.train()
    assert trainer.model.compute.dtype == "bfloat16"
    assert str(trainer.model.params["embed"].dtype) == "float32", "master weights are"


def test_progress_shows_where_nobody_has_set_up_logging(model, data, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("alpacare"), "propagate", False)
    alpacare.Trainer(model, data, config(steps=1)).train()
    assert "step 00001/00001 | loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (
            lambda m, d, out: alpacare.TrainConfig(steps=2),
            ConfigError,
            "train.batch_rows, or else batch_examples",
        ),
        (lambda m, d, out: alpacare.LoRA(rank=0), ConfigError, "rank must be at least 1"),
        (
            lambda m, d, out: alpacare.Trainer(m, d, config(batch_size=3, microbatches=2)).train(),
            ConfigError,
            "multiple",
        ),
        (lambda m, d, out: alpacare.Trainer(m, [], config()), DataError, "no row"),
        (lambda m, d, out: alpacare.Trainer(m, d, config()).step({"tokens": TOKENS}), DataError, "loss_mask"),
        (lambda m, d, out: alpacare.Trainer(m, d, config()).save(), ConfigError, "out"),
        (
            lambda m, d, out: alpacare.Trainer(m, d, config(**LORA), out=out).model,
            ConfigError,
            "save_pretrained",
        ),
    ],
)
def test_a_wrong_argument_raises_the_typed_error(model, data, tmp_path, make, error, named):
    if "save_pretrained" in named:
        model = alpacare.Trainer(model, data, config(steps=1)).model
    with pytest.raises(error) as caught:
        make(model, data, tmp_path / "run")
    assert named in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_the_mesh_does_not_divide_is_refused(tiny, data):
    model = alpacare.load(tiny, dtype="float32", mesh=alpacare.Mesh(fsdp=-1))
    trainer = alpacare.Trainer(model, data, config(batch_size=8))
    batch = jax.device_get(next(trainer.batches()))
    with pytest.raises(ShardingError, match="batch"):
        trainer.step({name: part[:6] for name, part in batch.items()})
    assert np.isfinite(trainer.step(batch)["loss"])
