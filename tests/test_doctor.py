"""What ``alpacare doctor`` finds and advises."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alpacare_jax import doctor

GIB = 1 << 30


@pytest.fixture(scope="module")
def checkup(tmp_path_factory: pytest.TempPathFactory) -> doctor.Checkup:
    return doctor.examine(
        tmp_path_factory.mktemp("runs"), {"XLA_FLAGS": "--xla_a=1", "SECRET_KEY": "never shown"}
    )


def test_it_finds_the_simulated_devices(checkup: doctor.Checkup) -> None:
    assert checkup.platform == "cpu"
    assert [device.platform for device in checkup.devices] == ["cpu"] * 8
    assert checkup.all_devices == 8
    assert "missing" not in checkup.versions.values()


def test_it_shows_the_attention_kernel_that_is_taken_and_what_the_others_gave(
    checkup: doctor.Checkup,
) -> None:
    assert "attention chunked" in str(checkup)
    assert next(iter(checkup.attention)) == "xla"
    assert "taken by auto" in checkup.attention["xla"]
    assert "agrees with plain fp32: values" in checkup.attention["chunked"]
    assert "cannot run: it is for TPUs" in checkup.attention["splash"]


def test_it_shows_settings_of_the_run_and_no_others(checkup: doctor.Checkup) -> None:
    text = str(checkup)
    assert "--xla_a=1" in text
    assert "never shown" not in text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"disk_free_bytes": 4 * GIB}, "disk"),
        ({"memory_bytes": 4 * GIB}, "memory"),
        ({"versions": {"jax": "missing", "flax": "0.12"}}, "Not installed: jax."),
    ],
)
def test_it_advises_on_what_is_short(checkup: doctor.Checkup, change: dict[str, object], word: str) -> None:
    plenty = {"disk_free_bytes": 100 * GIB, "memory_bytes": 64 * GIB, "environment": {"JAX_PLATFORMS": "cpu"}}
    enough = dataclasses.replace(checkup, **plenty)
    short = dataclasses.replace(enough, **change)
    (advice,) = set(doctor.advise(short)) - set(doctor.advise(enough))
    assert word in advice


def test_json_is_one_object_with_the_same_findings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "alpacare_jax", "doctor", "--json", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["all_devices"] == 8
    assert found["disk_free_bytes"] > 0
