"""The real TPU compiler on this machine: memory, refusals, slices; cut models, so that each takes seconds."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alpacare_jax.errors import ConfigError, ServiceError, ShardingError, UserError
from alpacare_jax.hardware.chips import CHIPS, GIB
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.model import LlamaConfig
from alpacare_jax.plan import compiler, compilers, costs
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.estimate import estimate
from alpacare_jax.plan.outcome import Compiled, TooLarge
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.train import RunConfig, load_config
from alpacare_jax.train.program import needed_memory

TINY = LlamaConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=128,
)
CONFIG = RunConfig(out="", train_data="", architecture="llama2-7b")


def program(
    rows: int = 8, seq_len: int = 128, topology: str = "v5e:2x2", model: LlamaConfig = TINY
) -> Program:
    compute = dataclasses.replace(CONFIG.compute, dtype="bfloat16", remat="full")
    return Program(
        dataclasses.replace(CONFIG, compute=compute), model, parse_topology(topology), rows, seq_len
    )


@pytest.fixture(scope="module")
def remembered() -> Compiled:
    """The small step, compiled."""
    outcome = Compiler().compile(program())
    assert isinstance(outcome, Compiled)
    return outcome


def test_a_step_is_compiled_once_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path))
    said: list[str] = []
    outcome = Compiler(cached=True, tell=said.append).compile(program())
    assert isinstance(outcome, Compiled)
    state = 3 * 4 * TINY.parameter_count / 4  # parameters and two moments in fp32 on four devices
    assert state <= outcome.arguments <= 1.1 * state
    assert outcome.aliased >= state
    assert 0 < outcome.needed < outcome.limit == int(15.75 * GIB)
    assert outcome.costs.flops > 0
    assert any("all-gather" in kind or "permute" in kind for kind in outcome.costs.collective_bytes)
    found = estimate(program(), outcome.costs)
    assert 0.1 < found.recomputed < 0.6  # a forward pass through the layers, beside the loss
    assert 0.0 < found.model_flops / found.step_s / CHIPS["v5e"].bf16_flops < 1.0
    assert found.step_s == pytest.approx(sum(part.seconds for part in found.stretches))
    assert [line.split()[0] for line in said] == ["compiling", "fits:"]
    assert Compiler(cached=True, tell=said.append).compile(program()) == outcome
    assert len(said) == 2, "nothing was compiled again"


def test_work_is_counted_as_by_hand(remembered: Compiled) -> None:
    tokens, length, layers = 2 * 128, 128, TINY.num_hidden_layers  # of one device of four
    width, inner = TINY.hidden_size, TINY.num_attention_heads * TINY.head_dim
    weights = 4 * width * inner + 3 * width * TINY.intermediate_size
    product = 2 * tokens * length * inner  # one of attention's, over the only block there is
    forward = layers * (2 * weights * tokens + 2 * product)
    # Twice the products, and the layer again but for its last one; attention: 2 again, then 3 and 4 in its kernels.
    last = 2 * width * TINY.intermediate_size * tokens
    backward = layers * (4 * weights * tokens + (2 * weights * tokens - last) + 9 * product)
    loss = 3 * 2 * TINY.vocab_size * width * tokens
    regions = remembered.costs.regions
    assert regions["forward through the layers"].flops == pytest.approx(forward, rel=0.02)
    assert regions["backward through the layers"].flops == pytest.approx(backward, rel=0.02)
    assert remembered.costs.flops == pytest.approx(forward + backward + loss, rel=0.02)
    assert remembered.costs.kernel_flops == pytest.approx(layers * 11 * product, rel=0.02)


def test_one_row_a_device_is_half_the_work_of_two(remembered: Compiled) -> None:
    outcome = Compiler().compile(program(rows=4))
    assert isinstance(outcome, Compiled)
    for name in ("flops", "kernel_flops"):
        assert getattr(outcome.costs, name) == pytest.approx(getattr(remembered.costs, name) / 2, rel=0.02)


def test_what_does_not_fit_says_by_how_much() -> None:
    wide = dataclasses.replace(TINY, hidden_size=8192, intermediate_size=65536, num_hidden_layers=4)
    outcome = Compiler().compile(program(model=wide))
    assert isinstance(outcome, TooLarge)
    assert outcome.needed > outcome.limit == int(15.75 * GIB)
    assert str(outcome).startswith("does not fit: needs ")
    assert str(outcome).endswith(" of 15.75 GiB")


def test_a_mesh_that_the_model_does_not_divide_is_refused_before_compilation() -> None:
    config = dataclasses.replace(CONFIG, mesh=dataclasses.replace(CONFIG.mesh, fsdp=1, tensor=4))
    with pytest.raises(UserError) as caught:
        Compiler().compile(dataclasses.replace(program(), config=config))  # two heads on four devices
    assert "heads" in str(caught.value)
    assert "tensor (4)" in str(caught.value)


def test_only_data_crosses_slices() -> None:
    code = """
import sys
from alpacare_jax import sharding
from alpacare_jax.errors import ShardingError
from alpacare_jax.hardware.topology import parse_topology
from alpacare_jax.plan import worker
place = parse_topology("v5e:4x4 x2")
devices = worker.devices_of(place)
mesh = sharding.make_mesh(sharding.MeshConfig(data=4, fsdp=4, tensor=2), devices)
places = worker.places_of(mesh, place)
assert places.slices == (0,) * 16 + (1,) * 16, places.slices
try:
    sharding.make_mesh(sharding.MeshConfig(fsdp=32), devices)
except ShardingError as error:
    print(error)
"""
    environment = os.environ | compilers.QUIET
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "only the axis `data` may cross" in done.stdout
    assert "mesh.data=2" in done.stdout


def test_a_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name))
    with pytest.raises(ConfigError, match="not installed") as caught:
        Compiler().compile(program())
    assert 'pip install "alpacare-jax[plan]"' in str(caught.value)


def test_a_compiler_that_ends_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "QUIET", compilers.QUIET | {"PYTHONHOME": "/nowhere"})
    with pytest.raises(ServiceError) as caught:
        Compiler().compile(program())
    assert "the TPU compiler failed" in str(caught.value)
    assert "ended with status" in str(caught.value)
    assert "/nowhere" in str(caught.value) or "encodings" in str(caught.value)


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for "
            "HLO temporaries (232.00G) exceeds available HBM (15.75G). HLO module: jit_g.",
            232.0,
            15.75,
        ),
        (
            "Ran out of memory in memory space hbm. Used 33.29G of 31.24G hbm. Exceeded by 2.05G.",
            33.29,
            31.24,
        ),
        ("Used 512.0M of 15.75G hbm", 0.5, 15.75),
    ],
)
def test_the_compilers_words_are_read(message: str, needed: float, limit: float) -> None:
    assert needed_memory(message) == (int(needed * GIB), int(limit * GIB))


def test_a_remembered_outcome_follows_what_the_step_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    one = compiler.question(program())
    assert compiler.question(program()) == one
    assert compiler.question(program(rows=16)) != one
    assert compiler.question(program(), whole=True) != one
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_enable_async_collective_fusion=true")
    assert compiler.question(program()) != one
    monkeypatch.undo()
    elsewhere = dataclasses.replace(program().config, out="elsewhere", train_data="other")
    assert compiler.question(program().replace(config=elsewhere)) == one
    frozen = dataclasses.replace(CONFIG.train, freeze=("embed",))
    frozen_program = program().replace(config=dataclasses.replace(program().config, train=frozen))
    assert compiler.question(frozen_program) != one


def test_what_is_frozen_needs_no_optimiser_state_in_a_plan(remembered: Compiled) -> None:
    train = dataclasses.replace(CONFIG.train, freeze=("layers.*",))
    frozen = program().replace(config=dataclasses.replace(program().config, train=train))
    assert Compiler().compile(frozen).arguments < 0.7 * remembered.arguments


@pytest.mark.parametrize("source", ["costs.py", "templates/gpu_target.textproto"])
def test_a_change_of_the_source_compiles_again(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached outcome holds the counts of the version that wrote it; other versions do not read it."""
    asked = compiler.question(program())
    changed, read = Path(costs.__file__).parent / source, Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read(file) + b"#" * (file == changed))
    compiler.source_hash.cache_clear()
    assert compiler.question(program()) != asked
    monkeypatch.undo()
    compiler.source_hash.cache_clear()


CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"


def test_a_mesh_larger_than_the_topology_is_refused() -> None:
    config = load_config(CONFIGS / "llama2_7b_v5e16.yaml")
    with pytest.raises(ShardingError) as caught:
        make_program(config, topology="v5e-8")
    assert "v5e:2x4" in str(caught.value)
    assert "fsdp=16" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"topology": None}, "topology"),
        ({"seq_len": None}, "seq_len"),
        ({"architecture": None, "init": "/nowhere"}, "architecture"),
        ({"architecture": "llama2-8b"}, "llama2-7b"),
    ],
)
def test_what_is_needed_and_not_named_is_asked_for(changes: dict, key: str) -> None:
    config = dataclasses.replace(load_config(CONFIGS / "llama2_7b_v5e16.yaml"), **changes)
    with pytest.raises(ConfigError) as caught:
        make_program(config)
    assert key in str(caught.value)


def test_rows_that_do_not_divide_are_refused() -> None:
    config = load_config(CONFIGS / "llama2_7b_v5e16.yaml", ["train.microbatches=2"])
    with pytest.raises(ConfigError, match="does not divide"):
        make_program(config, rows=48)
