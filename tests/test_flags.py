"""Compiler flags tried in real child processes."""

import logging
import os

import pytest

from alpacare_jax import compilation, flags
from alpacare_jax.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_installed_compiler_knows_every_flag_of_the_table(platform):
    assert flags.try_flags(platform, flags.FLAGS[platform]) == list(flags.FLAGS[platform])


def test_flags_that_the_compiler_does_not_know_are_left_out_and_named(caplog):
    strange = ["--xla_gpu_of_tomorrow=1", "--xla_gpu_of_yesterday=1"]
    known = flags.FLAGS["gpu"][0]
    with caplog.at_level(logging.WARNING):
        assert flags.try_flags("gpu", [strange[0], known, strange[1]]) == [known]
    assert "xla_gpu_of_tomorrow, xla_gpu_of_yesterday" in caplog.text


def test_flags_of_the_user_win_and_the_others_are_added():
    environment = {"JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false"}
    added = flags.set_flags(environment)
    assert "pipelined_all_gather" not in added
    assert "xla_gpu_enable_latency_hiding_scheduler=true" in added
    assert environment["XLA_FLAGS"].startswith("--xla_gpu_enable_pipelined_all_gather=false --xla_gpu")


def test_jax_takes_most_of_a_gpus_memory_unless_the_user_says_otherwise():
    environment = {"JAX_PLATFORMS": "cuda"}
    flags.set_flags(environment)
    assert float(environment["XLA_CLIENT_MEM_FRACTION"]) > 0.9
    assert flags.gpu_memory_share(environment) == flags.gpu_memory_share({})
    environment = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    flags.set_flags(environment)
    assert "XLA_CLIENT_MEM_FRACTION" not in environment
    assert flags.gpu_memory_share(environment) == 0.5


def test_what_was_found_is_not_tried_again(monkeypatch):
    environment = {"JAX_PLATFORMS": "cuda"}
    first = flags.set_flags(environment)

    def refuse(*_, **__):
        raise AssertionError("tried again")

    monkeypatch.setattr(flags.subprocess, "run", refuse)
    assert flags.set_flags({"JAX_PLATFORMS": "cuda"}) == first


def test_one_cpu_device_needs_no_flags_and_the_switch_leaves_them_out():
    for environment in ({"JAX_PLATFORMS": "cpu"}, {"JAX_PLATFORMS": "cuda", "ALPACARE_FLAGS": "0"}):
        before = dict(environment)
        assert flags.set_flags(environment) == ""
        assert environment == before


@pytest.mark.parametrize(
    "several",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        {"JAX_NUM_CPU_DEVICES": "2"},
        {"ALPACARE_NUM_PROCESSES": "2"},
    ],
)
def test_several_cpu_devices_keep_their_collectives_in_one_order(several):
    environment = {"JAX_PLATFORMS": "cpu", **several}
    flags.set_flags(environment)
    assert "--xla_cpu_enable_concurrency_optimized_scheduler=false" in environment["XLA_FLAGS"].split()
    assert several.get("XLA_FLAGS", "") in environment["XLA_FLAGS"]


def test_several_cpu_devices_have_threads_to_wait_with_and_a_number_of_the_users_stays():
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "3"}
    flags.set_flags(environment)
    assert int(environment["NPROC"]) >= 8 * 3
    flags.set_flags(environment := {**environment, "NPROC": "5"})
    assert environment["NPROC"] == "5"


def test_a_mesh_made_from_python_has_these_threads_too(monkeypatch):
    from alpacare_jax import sharding

    monkeypatch.delenv("NPROC", raising=False)
    sharding.resolve_mesh("fsdp=8")
    assert int(os.environ["NPROC"]) >= 8 * 8


def test_a_flag_of_the_users_that_no_compiler_knows_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="xla_gpu_enable_latency_hiding_scheduler") as caught:
        flags.set_flags(
            {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_gpu_enable_latency_hidng_scheduler=true"}
        )
    assert "XLA_FLAGS" in str(caught.value)
    flags.set_flags({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true"})


@pytest.mark.slow
def test_a_flag_of_the_tpu_that_its_compiler_does_not_know_is_refused_too():
    with pytest.raises(ConfigError, match="xla_tpu_of_tomorrow"):
        flags.set_flags({"JAX_PLATFORMS": "tpu", "LIBTPU_INIT_ARGS": "--xla_tpu_of_tomorrow=1"})


def test_programs_are_kept_where_the_user_says_else_in_the_users_cache(tmp_path):
    environment: dict[str, str] = {}
    folder = compilation.keep_programs(environment)
    assert folder is not None
    assert folder.is_relative_to(os.environ["ALPACARE_CACHE"])
    own = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")}
    assert compilation.keep_programs(own) == tmp_path / "mine"
    assert compilation.keep_programs({"JAX_COMPILATION_CACHE_DIR": ""}) is None
