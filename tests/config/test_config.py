"""Configuration files: every shipped one is read, and every mistake is named."""

from pathlib import Path

import numpy as np
import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.optim import OptimConfig
from alpacare_jax.sharding import MeshConfig
from alpacare_jax.train import LoRA, RunConfig, TrainConfig, load_config
from datagen.configuration import Range, declared, to_yaml

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "configs" / "train").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_read(path):
    config = load_config(path)
    assert config.out in (f"runs/{path.stem}", "quickstart/run")
    assert path.read_text().startswith("#"), "says what it is for"


def test_the_published_recipes_hold_the_papers_numbers():
    later = ("llama3.2_3b_h100",)  # a model the paper did not know, with a batch counted in rows
    loaded = {
        path.stem: load_config(path)
        for path in SHIPPED
        if path.stem.startswith("llama") and path.stem not in later
    }
    found = {
        name: config for name, config in loaded.items() if not config.adapter.on
    }  # the paper trained no adapters
    assert set(found) >= {"llama_7b_v5e16", "llama_13b_v5e32", "llama2_7b_v5e16", "llama2_13b_v5e32"}
    for name, config in found.items():
        large = "_13b_" in name or "_70b_" in name
        assert config.optim.learning_rate == (1e-5 if large else 2e-5)
        assert config.train.epochs == (5 if large else 3)
        assert config.train.batch_examples == 128
        assert (config.optim.schedule, config.optim.warmup_ratio, config.optim.weight_decay) == (
            "cosine",
            0.03,
            0.0,
        )
        assert config.compute.dtype == "bfloat16"


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_all_unknown_keys_are_named_at_once_with_the_nearest(tmp_path):
    path = write(tmp_path, "out: a\ntrain_data: b\ninit: m\noptim: {warmup: 3}\nmesh: {fdsp: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["trian.steps=2"])
    text = str(caught.value)
    assert str(path) in text
    assert "optim.warmup: unknown key; did you mean optim.warmup_ratio?" in text
    assert "mesh.fdsp: unknown key; did you mean mesh.fsdp?" in text
    assert "trian: unknown key; did you mean train?" in text


def test_all_wrong_types_are_named_at_once(tmp_path):
    path = write(tmp_path, "out: a\ntrain_data: b\ninit: m\ntrain: {batch_rows: many, seed: [1]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "train.batch_rows" in str(caught.value)
    assert "train.seed" in str(caught.value)


def test_overrides_replace_values_and_reach_into_groups(tmp_path):
    path = write(tmp_path, "out: a\ntrain_data: b\ninit: m\n")
    config = load_config(path, ["optim.learning_rate=3e-5", "train.batch_rows=2", "out=c=d"])
    assert config.optim.learning_rate == 3e-5
    assert config.train.batch_rows == 2
    assert config.out == "c=d"


@pytest.mark.parametrize(
    ("override", "named"),
    [("learning_rate", "override"), ("=3", "override"), ("out.deeper=1", "out must be text")],
)
def test_an_override_that_cannot_be_applied_is_named(tmp_path, override, named):
    path = write(tmp_path, "out: a\ntrain_data: b\ninit: m\n")
    with pytest.raises(ConfigError, match=named):
        load_config(path, [override])


@pytest.mark.parametrize(
    "override",
    [
        "optim.learning_rate=nan",
        "optim.weight_decay='-Infinity'",
        "optim.eps=1e999",
        "optim.learning_rate=true",
        "train.steps=yes",
        "train.seed=1" + "0" * 40,
        "seq_len=false",
        "optim.b1=1.5",
        "optim.b2=-1",
        "optim.eps=.nan",
        "train.batch_rows=1000000000000",
        "train.microbatches=1000000000",
        "train.guard.window=1000000000",
        "train.seed=-1",
        "seq_len=1000000000000",
        "compute.loss_chunk_mib=0",
        "adapter={kind: lora, rank: 1000000000}",
        "adapter.rank=8",
    ],
)
def test_what_is_no_usable_number_is_refused_by_its_key(tmp_path, override):
    file = tmp_path / "run.yaml"
    file.write_text("{out: run, init: model, train_data: data, train: {steps: 1, batch_rows: 1}}")
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])
    assert override.partition("=")[0].rpartition(".")[2] in str(error.value)


@pytest.mark.parametrize("mesh", ["{fsdp: -2}", "{data: 0}", "{tensor: 10000000000}", "{data: -1, fsdp: -1}"])
def test_a_mesh_that_no_devices_have_is_refused_with_the_configuration(mesh):
    with pytest.raises(ConfigError, match="mesh"):
        load_config(SHIPPED[0], [f"mesh={mesh}"])


def numbers(kind, prefix=""):
    """Yield the key of every number of a configuration, and what is declared of it."""
    for name, setting in declared(kind).items():
        if setting.group:
            yield from numbers(setting.group, f"{prefix}{name}.")
        elif {int, float} & {*setting.types}:
            yield prefix + name, setting.allowed


def test_every_number_of_a_configuration_declares_its_range():
    found = dict(numbers(RunConfig))
    assert len(found) > 25
    assert [key for key, allowed in found.items() if not isinstance(allowed, Range)] == []
    for key, allowed in found.items():
        for value in (float("nan"), 10**30, -(10**30)):
            assert value not in allowed, key


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TrainConfig(steps="3"), "train.steps must be a whole number or null, not '3'"),
        (lambda: TrainConfig(steps=True), "train.steps must be a whole number or null, not True"),
        (lambda: TrainConfig(batch_size=2.5), "train.batch_rows must be a whole number or null, not 2.5"),
        (
            lambda: TrainConfig(batch_size=2, lora={}),
            "lora must be keys and values (AdapterConfig) or null",
        ),
        (lambda: LoRA(rank=None), "adapter.rank must be a whole number"),
        (lambda: OptimConfig(learning_rate="1e-5"), "optim.learning_rate must be a number, not '1e-5'"),
        (lambda: MeshConfig(fsdp="all"), "mesh.fsdp must be a whole number, not 'all'"),
    ],
)
def test_a_wrong_type_from_python_is_the_error_that_the_command_prints(make, named):
    with pytest.raises(ConfigError) as caught:
        make()
    assert named in str(caught.value)


def test_lists_and_texts_become_what_is_declared():
    assert LoRA(targets=["query", "key"]).targets == ("query", "key")
    assert OptimConfig(learning_rate=1).learning_rate == 1.0
    assert TrainConfig(steps=np.int64(3), batch_size=1).steps == 3


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, text))


def test_a_configuration_survives_being_written_and_read(tmp_path):
    config = load_config(SHIPPED[0])
    assert load_config(write(tmp_path, to_yaml(config))) == config


def test_a_run_starts_from_a_model_or_from_nothing(tmp_path):
    with pytest.raises(ConfigError, match="set `init` or `architecture`"):
        load_config(write(tmp_path, "out: a\ntrain_data: b\n"))


@pytest.mark.parametrize("key", ["out", "train_data", "init", "architecture", "validation_data"])
def test_an_address_is_refused_where_a_path_is_wanted(key):
    with pytest.raises(ConfigError, match="not a local path") as caught:
        load_config(SHIPPED[0], [f"{key}=gs://bucket/run"])
    assert f"where:    {key}" in str(caught.value)
    assert "gs://bucket/run" in str(caught.value)
