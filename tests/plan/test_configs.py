"""Every shipped configuration that names its devices is compiled by the real compiler: two layers by default."""

from collections.abc import Callable
from pathlib import Path

import pytest
from marking import slow_but

from alpacare_jax.hardware.chips import GIB
from alpacare_jax.plan import formulas
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.outcome import Compiled
from alpacare_jax.plan.program import make_program
from alpacare_jax.train import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
PLANNED = [path for path in sorted(CONFIGS.glob("*.yaml")) if load_config(path).topology]
QUICK = (
    "llama2_7b_v5e16",
    "llama3_8b_v6e8",
    "llama2_7b_2x_v5e16",
    "llama3.2_3b_h100",
    "llama2_7b_h100x8",
)
"""One of each TPU generation's slices that compile fastest, the one of two slices, and those of GPUs."""


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def test_the_promised_configurations_are_there() -> None:
    assert set(names(PLANNED)) >= {
        "llama2_7b_v5e16",
        "llama2_7b_v6e8",
        "llama2_13b_v5e32",
        "llama3_8b_v6e8",
        "llama2_70b_v5p128",
        "llama2_7b_2x_v5e16",
        "llama2_70b_lora_v5e16",
        "llama3.2_3b_h100",
        "llama2_7b_h100x8",
    }


@pytest.mark.parametrize(
    "path",
    slow_but(
        [path for path in PLANNED if path.stem == "llama2_7b_2x_v5e16"],
        [path for path in PLANNED if path.stem in QUICK],
    ),
    ids=lambda path: path.stem,
)
def test_two_layers_of_it_compile(path: Path) -> None:
    program = make_program(load_config(path), layers=2)
    outcome = Compiler().compile(program)
    assert isinstance(outcome, Compiled), str(outcome)
    assert outcome.arguments == pytest.approx(sum(formulas.state_bytes(program).values()), rel=0.02)
    kinds = " ".join(outcome.costs.collective_bytes)
    assert ("data" in kinds) == (program.place.slices > 1)


@pytest.mark.parametrize("path", PLANNED, ids=lambda path: path.stem)
def test_its_state_fits_with_room(path: Path) -> None:
    program = make_program(load_config(path))
    found = formulas.model_step(program)
    assert found.fits, f"{found.needed / GIB:.1f} of {found.limit / GIB:.1f} GiB by the model"


@pytest.mark.tpu_compile
@pytest.mark.parametrize("path", PLANNED, ids=lambda path: path.stem)
def test_it_fits_whole(path: Path) -> None:
    program = make_program(load_config(path))
    outcome = Compiler(cached=True, whole=True).compile(program)
    assert isinstance(outcome, Compiled), str(outcome)
    assert outcome.needed <= outcome.limit


@pytest.mark.tpu_compile
@pytest.mark.parametrize("remat", ["projections", "offload"])
def test_stopping_early_gives_the_figures_of_the_whole(
    remat: str, record_property: Callable[[str, object], None]
) -> None:
    """Sums over the buffers that were written down against the finished program's own account."""
    config = load_config(CONFIGS / "llama2_7b_v5e16.yaml", [f"compute.remat={remat}"])
    program = make_program(config, layers=2, rows=64)
    one, other = Compiler().compile(program), Compiler(whole=True).compile(program)
    assert isinstance(one, Compiled)
    assert isinstance(other, Compiled)
    for name, outcome in (("early", one), ("whole", other)):
        record_property(f"{name}_s", round(outcome.compile_s, 1))
        print(f"{name}: {outcome.compile_s:.1f} s, {outcome.needed:,} bytes, {outcome.host:,} on the host")
    assert one.needed == pytest.approx(other.needed, rel=1e-3)
    assert (one.arguments, one.temporaries) == pytest.approx((other.arguments, other.temporaries), rel=1e-3)
    assert one.host == other.host
    assert (one.host > 0) == (remat == "offload")
    assert one.costs == other.costs
    assert one.largest == other.largest
    assert one.compile_s < other.compile_s
