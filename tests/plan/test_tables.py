"""What a plan prints of memory: a device's, and its host's where something lies there."""

import dataclasses
import json
from pathlib import Path

import pytest

from alpacare_jax.config import load_config
from alpacare_jax.plan import Compiled, request, tables
from alpacare_jax.plan.chips import GIB
from alpacare_jax.plan.compiler import summarize

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
PROGRAM, PLACE = request.make_program(load_config(CONFIGS / "llama2_70b_lora_v5e16.yaml"))


def outcome(host_gib: float) -> Compiled:
    cost = {"busy_s": 1.0, "wait_s": 0.0, "link_s": 0.0, "network_s": 0.0, "host_bytes": 0.0}
    costs = {
        "flops": 1e12,
        "memory_bytes": 1e9,
        "host_bytes": 0.0,
        "collective_bytes": {},
        "regions": {"all": cost},
    }
    state, limit = 9 * GIB, PLACE.chip.memory_bytes
    host = int(host_gib * GIB)
    return Compiled(state, 4 * GIB, state, state, 0, limit, host, 1.0, costs, host_limit=PLACE.host_limit)


def test_what_lies_with_the_hosts_is_shown_for_a_device_and_for_a_host():
    text = tables.plan_text(PROGRAM, PLACE, outcome(10))
    assert "on the host    10.00  of 40.98" in text
    assert "4 devices on a ct5lp-hightpu-4t: 40.0 of 178.8 GiB" in text
    assert "on the host" not in tables.plan_text(PROGRAM, PLACE, outcome(0))


def test_json_holds_the_same():
    values = json.loads(json.dumps(tables.plan_values(PROGRAM, PLACE, outcome(10))))
    assert values["host"] == {
        "machine": "ct5lp-hightpu-4t",
        "devices": 4,
        "memory_bytes": 192 * 10**9,
        "limit_bytes": 176 * 10**9,
        "needed_bytes": 40 * GIB,
    }
    assert values["outcome"]["fits"]
    assert not tables.plan_values(PROGRAM, PLACE, outcome(42))["outcome"]["fits"]


def test_a_host_that_is_too_small_is_named():
    assert summarize(outcome(42)).startswith(
        "does not fit the host's memory: 13.00 of 15.75 GiB, on the host 42.00"
    )


@pytest.mark.parametrize(
    ("gib", "words"), [(64, "4 devices on a host: 40.0 of 64.0 GiB"), (None, "ct5lp-hightpu-4t")]
)
def test_another_host_takes_the_place_of_the_published_one(gib, words):
    place = dataclasses.replace(PLACE, host_bytes=gib and gib * GIB)
    assert words in tables.plan_text(PROGRAM, place, outcome(10))
