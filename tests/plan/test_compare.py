"""What a comparison lists, what it compiles, and what it chooses, with a compiler that answers from a table."""

import dataclasses
from pathlib import Path

import pytest

from alpacare_jax.errors import ServiceError
from alpacare_jax.hardware.chips import GIB
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.costs import Cost, StepCosts
from alpacare_jax.plan.outcome import Compiled, Outcome, TooLarge
from alpacare_jax.plan.plans import LAYER_ROWS, MICROBATCHES, REMAT, Comparison, Plan, compare, list_plans
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.train import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
PROGRAM = make_program(load_config(CONFIGS / "llama2_7b_v5e16.yaml"), rows=128)
PLACE = PROGRAM.place
LIMIT = PLACE.chip.memory_bytes


def compiled(seconds: float = 1.0, gib: float = 10.0, host_gib: float = 0.0) -> Compiled:
    """An outcome whose estimate is so many seconds, cores alone."""
    costs = StepCosts.of({"all": Cost(busy_s=0.8 * seconds, flops=1e15, links={"all-gather over fsdp": 1e9})})
    size = int(gib * GIB)
    return Compiled(size, 0, 0, 0, 0, LIMIT, int(host_gib * GIB), 1.0, costs, host_limit=PLACE.host_limit)


class Table(Compiler):
    """Answers by a function in place of libtpu, and keeps what it was asked."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.asked = answer, list[Program]()

    def compile(self, program: Program, name: str = "") -> Outcome:
        self.asked.append(program)
        found = self.answer(program)
        if isinstance(found, Exception):
            raise found
        return found


def way(seconds: float, gib: float = 10.0, outcome: Outcome | None = None) -> Plan:
    return dataclasses.replace(list_plans(PROGRAM)[0], outcome=outcome or compiled(seconds, gib))


@pytest.fixture(scope="module")
def ways() -> list[Plan]:
    return list_plans(PROGRAM)


def test_every_microbatch_count_policy_and_part_of_a_layer_is_listed(ways):
    found = {
        (
            one.program.config.train.microbatches,
            one.program.config.compute.remat,
            one.program.config.compute.layer_rows,
        )
        for one in ways
        if one.program.config.mesh.fsdp == 16
    }
    # Eight rows a device: at most as many microbatches; parts of them only where a layer is computed again.
    expected = {
        (micro, remat, at_once)
        for micro in MICROBATCHES
        if micro <= 8
        for remat in REMAT
        for at_once in LAYER_ROWS
        if at_once is None or (remat in ("full", "offload") and at_once < 8 // micro)
    }
    assert found == expected
    assert len({str(one.program.identity()) for one in ways}) == len(ways)


def test_meshes_use_every_device_and_only_data_spans_slices():
    program = make_program(load_config(CONFIGS / "llama2_7b_2x_v5e16.yaml"), rows=256)
    sizes = [one.program.mesh.values() for one in list_plans(program)]
    assert sizes
    for data, fsdp, tensor, context in sizes:
        assert data * fsdp * tensor * context == 32
        assert data % 2 == 0


def test_the_fastest_by_formulas_come_first_and_what_cannot_fit_last(ways):
    fits = [one.fits for one in ways]
    assert fits == sorted(fits, reverse=True)
    speeds = [one.step_s for one in ways if one.fits]
    assert speeds == sorted(speeds)


def test_the_compiler_judges_the_most_promising_and_the_fastest_that_fits_is_chosen():
    def answer(program: Program) -> Outcome:
        if program.config.compute.remat in ("projections", "products"):
            return TooLarge(20 * GIB, LIMIT, 1.0)
        return compiled(2.0 if program.config.compute.remat == "attention" else 3.0)

    table = Table(answer)
    found = compare(PROGRAM, table, most=12)
    *refused, taken = [program.config.compute.remat for program in table.asked]
    # The formulas hope for projections; once a way fits, what they find slower is not asked for.
    assert set(refused) == {"projections", "products"}
    assert taken == "attention"
    assert len({str(program.identity()) for program in table.asked}) == len(table.asked)
    assert [one.judged for one in found.plans[: len(table.asked)]] == [True] * len(table.asked)
    best = found.choice
    assert best == found.plans[0]
    assert best.program.config.compute.remat == "attention"
    assert best.row()["compiled"]


def test_what_formulas_find_slower_than_a_compiled_way_is_not_compiled():
    table = Table(lambda _: compiled(0.001))
    compare(PROGRAM, table, most=12)
    assert len(table.asked) == 1


def test_on_the_configurations_mesh_alone_everything_is_compiled():
    table = Table(lambda _: compiled(0.001))
    found = compare(PROGRAM, table, most=50, this_mesh=True)
    assert {one.program.mesh_name for one in found.plans} == {"fsdp 16"}
    assert len(table.asked) > 20


def test_equally_fast_ways_leave_the_choice_to_memory():
    assert Comparison([way(1.0, 15.0), way(1.005, 9.0), way(1.2, 5.0)]).choice.outcome.needed == 9 * GIB
    assert Comparison([way(1.0, 15.0), way(1.02, 9.0)]).choice.outcome.needed == 15 * GIB


def test_a_way_that_was_not_compiled_is_not_chosen_where_others_were(ways):
    slow = way(1000.0)
    assert Comparison([*ways, slow]).choice == slow
    assert Comparison(ways).choice == min(
        (one for one in ways if one.fits and one.step_s <= 1.01 * ways[0].step_s),
        key=lambda one: one.modelled.needed,
    )


def test_nothing_fits():
    table = Table(lambda _: TooLarge(20 * GIB, LIMIT, 1.0))
    found = compare(PROGRAM, table, most=3)
    assert len(table.asked) == 3
    assert found.choice is None
    assert str(found).endswith("none of them fits")


def test_what_does_not_fit_the_hosts_memory_is_not_chosen():
    more_than_a_host = PLACE.host_limit / GIB + 1
    assert (
        Comparison([way(1.0, outcome=compiled(1.0, host_gib=more_than_a_host)), way(2.0)]).choice.step_s
        == 2.0
    )


def test_a_way_the_compiler_cannot_make_is_told_and_passed_over():
    def answer(program: Program) -> Outcome | Exception:
        if program.config.mesh.tensor > 1:
            return ServiceError("the TPU compiler failed", found="a check failed")
        return compiled(5.0)

    found = compare(PROGRAM, Table(answer), most=40)
    refused = [one for one in found.plans if one.refused]
    assert refused
    assert not any(one.fits for one in refused)
    assert found.choice.program.config.mesh.tensor == 1
    assert "refused: " in str(found)
    assert "a check failed" in str(found)


def test_where_the_compiler_can_make_none_its_words_are_the_answer():
    table = Table(lambda _: ServiceError("the TPU compiler failed", found="no such flag"))
    with pytest.raises(ServiceError, match="no such flag"):
        compare(PROGRAM, table, most=3)


def test_the_table_names_the_choice_as_it_is_set():
    found = compare(PROGRAM, Table(lambda _: compiled(5.0)), most=3)
    text = str(found)
    best = found.choice
    config = best.program.config
    assert f"train.microbatches={config.train.microbatches} compute.remat={config.compute.remat}" in text
    assert f"mesh.fsdp={config.mesh.fsdp}" in text
