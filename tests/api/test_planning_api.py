"""Planning as a notebook does it, by formulas for GPUs, which is quick: what it returns is what the verb prints."""

import json
from pathlib import Path

import pytest

import alpacare_jax as alpacare
from alpacare_jax.cli import main
from alpacare_jax.errors import ConfigError
from alpacare_jax.plan import gpus
from alpacare_jax.train import load_config

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "train" / "llama2_7b_h100x8.yaml"


@pytest.fixture(autouse=True)
def _no_gpu_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "plugin", lambda: None)
    monkeypatch.setattr(gpus, "fetched", lambda: None)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, int]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--config", str(CONFIG), *arguments])
    return capsys.readouterr().out.rstrip("\n"), int(ended.value.code or 0)


def test_a_plan_is_a_value_and_prints_as_the_verb_does(capsys):
    found = alpacare.plan(CONFIG)
    assert found.outcome is None
    assert found.fits == (found.needed <= found.modelled.limit)
    assert printed(capsys) == (str(found), 0 if found.fits else 1)
    text, _ = printed(capsys, "--json")
    assert json.loads(text) == json.loads(json.dumps(found.to_dict()))


def test_a_configuration_is_a_file_or_an_object():
    asked = load_config(CONFIG, ["train.microbatches=4"])
    assert alpacare.plan(asked) == alpacare.plan(CONFIG, ["train.microbatches=4"])
    with pytest.raises(ConfigError, match="overrides"):
        alpacare.plan(asked, ["train.microbatches=4"])


def test_the_largest_batch_fits_and_the_next_does_not():
    largest = alpacare.plan(CONFIG, search_batch=True)
    step = largest.program.shards * largest.program.microbatches
    assert largest.fits
    assert alpacare.plan(CONFIG, rows=largest.program.rows) == largest
    assert not alpacare.plan(CONFIG, rows=largest.program.rows + step).fits


def test_a_comparison_names_its_choice_and_prints_as_the_verb_does(capsys):
    found = alpacare.compare_plans(CONFIG, rows=256)
    assert found.fits
    assert found.choice in found.plans
    assert printed(capsys, "--compare", "--rows", "256") == (str(found), 0)
    one_mesh = alpacare.compare_plans(CONFIG, rows=256, this_mesh=True)
    assert {way.program.mesh_name for way in one_mesh.plans} == {"fsdp 8"}


def test_a_wrong_argument_raises_what_the_verb_says():
    with pytest.raises(ConfigError, match="v5e:4x4"):
        alpacare.plan(CONFIG, topology="v5e-17")
    with pytest.raises(ConfigError, match="multiple of 16"):
        alpacare.compare_plans(CONFIG, rows=17)
