"""What a plan prints of memory: a device's, and its host's where something lies there."""

import dataclasses
import json
from pathlib import Path

import pytest

from alpacare_jax.cache import remembered
from alpacare_jax.cli import main
from alpacare_jax.hardware.chips import GIB
from alpacare_jax.plan import compiler
from alpacare_jax.plan.compiler import OUTCOMES
from alpacare_jax.plan.costs import Cost, StepCosts
from alpacare_jax.plan.formulas import model_step
from alpacare_jax.plan.outcome import Compiled
from alpacare_jax.plan.plans import Plan
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.train import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
CONFIG = CONFIGS / "llama2_70b_lora_v5e16.yaml"
PROGRAM = make_program(load_config(CONFIG))
PLACE = PROGRAM.place


def outcome(host_gib: float) -> Compiled:
    costs = StepCosts.of({"all": Cost(flops=1e12, memory_bytes=1e9, busy_s=1.0)})
    state, limit = 9 * GIB, PLACE.chip.memory_bytes
    host = int(host_gib * GIB)
    return Compiled(state, 4 * GIB, state, state, 0, limit, host, 1.0, costs, host_limit=PLACE.host_limit)


def planned(program: Program, found: Compiled) -> Plan:
    return Plan(program, model_step(program), found)


def test_what_lies_with_the_hosts_is_shown_for_a_device_and_for_a_host():
    text = str(planned(PROGRAM, outcome(10)))
    assert "on the host    10.00  of 40.98" in text
    assert "4 devices on a ct5lp-hightpu-4t: 40.0 of 178.8 GiB" in text
    assert "on the host" not in str(planned(PROGRAM, outcome(0)))


def test_json_holds_the_same():
    values = json.loads(json.dumps(planned(PROGRAM, outcome(10)).to_dict()))
    assert values["host"] == {
        "machine": "ct5lp-hightpu-4t",
        "devices": 4,
        "memory_bytes": 192 * 10**9,
        "limit_bytes": 176 * 10**9,
        "needed_bytes": 40 * GIB,
    }
    assert values["outcome"]["fits"]
    assert not planned(PROGRAM, outcome(42)).to_dict()["outcome"]["fits"]


def test_a_host_that_is_too_small_is_named():
    assert str(outcome(42)).startswith(
        "does not fit the host's memory: 13.00 of 15.75 GiB, on the host 42.00"
    )


def test_only_what_does_not_fit_ends_with_the_reason():
    *_, blank, last = str(planned(PROGRAM, outcome(42))).splitlines()
    assert (blank, last) == ("", str(outcome(42)))
    assert "fit" not in str(planned(PROGRAM, outcome(10)))


def test_a_remembered_step_that_a_host_does_not_hold_says_why_the_status_is_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path))
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "")
    known = OUTCOMES.dump_python(outcome(10), mode="json")
    remembered("plan", compiler.question(PROGRAM), compiler.PACKAGES, lambda: known)
    for host_gib, status in (("48", 1), ("192", 0)):
        with pytest.raises(SystemExit) as ended:
            main(["plan", "--config", str(CONFIG), "--host-gib", host_gib])
        assert ended.value.code == status
        said = capsys.readouterr()
        assert "compiling" not in said.err
        reason = "does not fit the host's memory: 13.00 of 15.75 GiB, on the host 10.00 of 8.27"
        assert (reason in said.out) == bool(status)


def test_what_the_mesh_does_not_divide_is_said_in_one_line_and_in_json():
    odd = PROGRAM.configured(mesh={"fsdp": 8, "tensor": 2})
    assert planned(odd, outcome(0)).to_dict()["uneven"] is None
    odd = odd.replace(model=dataclasses.replace(odd.model, vocab_size=32_001))
    (line,) = (line for line in str(planned(odd, outcome(0))).splitlines() if line.startswith("uneven"))
    assert line.startswith("uneven    2 devices do not divide vocab 32,001: ")
    assert planned(odd, outcome(0)).to_dict()["uneven"] == line.removeprefix("uneven    ")


@pytest.mark.parametrize(
    ("gib", "words"), [(64, "4 devices on a host: 40.0 of 64.0 GiB"), (None, "ct5lp-hightpu-4t")]
)
def test_another_host_takes_the_place_of_the_published_one(gib, words):
    place = dataclasses.replace(PLACE, host_bytes=gib and gib * GIB)
    assert words in str(planned(PROGRAM.replace(place=place), outcome(10)))
