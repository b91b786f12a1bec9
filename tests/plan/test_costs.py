"""What a program does, counted from its text: loops multiplied in, slices as slices, padding left out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax.hardware.chips import CHIPS
from alpacare_jax.plan import costs, hlo, loops, products
from alpacare_jax.plan.collectives import Places
from alpacare_jax.plan.costs import StepCosts


def places(count: int = 1, **sizes: int) -> Places:
    return Places(
        coordinates=tuple((index, 0) for index in range(count)),
        slices=(0,) * count,
        sizes={"data": 1, "fsdp": count, "tensor": 1, "context": 1} | sizes,
        extent=(count, 1),
    )


def count(function, *arguments) -> StepCosts:
    return counted(jax.jit(function).lower(*arguments).compile().as_text())


def counted(text: str, where: Places | None = None, chip: str = "v5e") -> StepCosts:
    return costs.count(hlo.read_module(text), where or places(), CHIPS[chip])


def test_a_scan_counts_as_often_as_it_runs():
    weights = jnp.ones((6, 32, 32))

    def layers(x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    once = 2 * 16 * 32 * 32
    found = count(layers, jnp.ones((16, 32)))
    assert found.flops == 6 * once


def test_scans_within_scans_multiply():
    def inner(x, _):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=3)[0], None

    found = count(lambda x: jax.lax.scan(inner, x, length=5)[0], jnp.ones((8, 8)))
    assert found.flops == 15 * 2 * 8**3


def test_a_slice_of_a_stacked_array_counts_as_a_slice():
    stacked = jnp.ones((64, 256, 256))

    def total(x):
        return jax.lax.scan(lambda x, w: (x + w, None), x, stacked)[0]

    moved = count(total, jnp.ones((256, 256))).memory_bytes
    # Read the slice and the sum, write the sum, 64 times; never 64 times the whole stack.
    assert moved < 8 * 64 * 3 * 256 * 256 * 4


PADDED = "window={size=1x32x2 pad=0_0x31_31x0_0 rhs_reversal=0x1x0}"


@pytest.mark.parametrize(
    ("length", "results", "window", "expected"),
    [
        (1, 32, {"size": 32, "pad": 31}, 32),  # heads written as padding: each result meets one element
        (7, 7, {"size": 3, "pad": 1}, 19),  # 3 for each inner result, 2 at either end
        (4, 4, {"size": 1}, 4),
        (4, 7, {"size": 2, "lhs_dilate": 2, "pad": 0}, 7),  # holes between the elements count for nothing
    ],
)
def test_only_elements_count_in_a_convolution(length, results, window, expected):
    given = {"size": 1, "stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1} | window
    assert products.valid_taps(length, results, **given) == expected
    brute = sum(
        (result * given["stride"] + tap * given["rhs_dilate"] - given["pad"])
        in range(0, length * given["lhs_dilate"])
        and (result * given["stride"] + tap * given["rhs_dilate"] - given["pad"]) % given["lhs_dilate"] == 0
        for tap in range(given["size"])
        for result in range(results)
    )
    assert brute == expected


def test_windows_are_read():
    window = products.read_window(PADDED, 3)
    assert window["size"] == [1, 32, 2]
    assert window["pad"] == [0, 31, 0]
    assert window["stride"] == [1, 1, 1]


GATHER = """
HloModule step

%body (p: (s32[], bf16[64,8])) -> (s32[], bf16[64,8]) {
  %p = (s32[], bf16[64,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = bf16[64,8]{1,0} get-tuple-element(%p), index=1
  %part = bf16[8,8]{1,0} slice(%x), slice={[0:8], [0:8]}
  %all = bf16[64,8]{1,0} all-gather(%part), channel_id=3, GROUPS, dimensions={0}
  ROOT %t = (s32[], bf16[64,8]{1,0}) tuple(%next, %all)
}

%condition (p.1: (s32[], bf16[64,8])) -> pred[] {
  %p.1 = (s32[], bf16[64,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %end = s32[] constant(10)
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (x.2: bf16[64,8]) -> bf16[64,8] {
  %x.2 = bf16[64,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[64,8]{1,0}) tuple(%zero, %x.2)
  %loop = (s32[], bf16[64,8]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %out = bf16[64,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("groups", "members", "axes"),
    [
        ("replica_groups={{0,1,2,3,4,5,6,7}}", 8, "fsdp x tensor"),
        ("replica_groups=[4,2]<=[8]", 2, "tensor"),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4, "fsdp"),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", 2, "tensor"),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", 4, "fsdp"),
    ],
)
def test_collectives_count_by_mesh_axis_in_every_trip(groups, members, axes):
    found = counted(GATHER.replace("GROUPS", groups), places(8, fsdp=4, tensor=2))
    received = 64 * 8 * 2 * (members - 1) / members
    assert found.collective_bytes == {f"all-gather over {axes}": pytest.approx(10 * received)}


PIECES = """HloModule step

%begin (a: bf16[8,8]) -> bf16[64,8] {
  %a = bf16[8,8]{1,0} parameter(0)
  ROOT %all.0 = bf16[64,8]{1,0} all-gather(%a), channel_id=7, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}

%carry_on (b: bf16[8,8]) -> bf16[64,8] {
  %b = bf16[8,8]{1,0} parameter(0)
  ROOT %all.1 = bf16[64,8]{1,0} all-gather(%b), channel_id=7, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}

%all-reduce-scatter.3 (c: bf16[64,8]) -> bf16[8,8] {
  %c = bf16[64,8]{1,0} parameter(0)
  %sum = bf16[64,8]{1,0} all-reduce(%c), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %kept = bf16[8,8]{1,0} slice(%sum), slice={[0:8], [0:8]}
}

ENTRY %main (x: bf16[8,8]) -> bf16[8,8] {
  %x = bf16[8,8]{1,0} parameter(0)
  %async-collective-start.1 = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%begin
  %fusion.1 = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%carry_on
  %async-collective-done.1 = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%carry_on
  ROOT %fusion.2 = bf16[8,8]{1,0} fusion(%fusion.1), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


def test_a_collective_in_pieces_counts_where_it_starts_and_only_the_others_are_waited_for():
    found = counted(PIECES, places(8))
    received = 64 * 8 * 2 * 7 / 8
    assert found.collective_bytes == {
        "all-gather over fsdp": received,
        "reduce-scatter over fsdp": received,
    }
    region = found.regions["outside loops"]
    assert region.link_wait_s == pytest.approx(region.link_s / 2)


def test_a_collective_of_two_copies_of_a_loop_counts_in_both():
    """The compiler splits a first trip off a loop; both copies name the same channel."""
    text = GATHER.replace("GROUPS", "replica_groups={{0,1,2,3,4,5,6,7}}")
    once = counted(text, places(8)).collective_bytes["all-gather over fsdp"]
    lines = (
        "%part.0 = bf16[8,8]{1,0} slice(%x.2), slice={[0:8], [0:8]}",
        "%all.0 = bf16[64,8]{1,0} all-gather(%part.0), channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}",
        "%zero =",
    )
    first = "\n  ".join(lines)
    found = counted(text.replace("%zero =", first), places(8))
    assert found.collective_bytes["all-gather over fsdp"] == pytest.approx(1.1 * once)


def test_a_loop_without_a_name_is_told_by_its_lines():
    text = GATHER.replace("GROUPS", "replica_groups={{0,1}}")
    assert "other loops" in counted(text, places(8, fsdp=4, tensor=2)).regions
    named = text.replace(
        "dimensions={0}", 'dimensions={0}, metadata={op_name="jit(_step)/transpose(jvp())/while/body/dot"}'
    )
    regions = counted(named, places(8, fsdp=4, tensor=2)).regions
    assert regions["backward through the layers"].links


FORWARD = "jvp()/while/body/closed_call"
BACKWARD = "transpose(jvp())/while/body/closed_call/checkpoint"


@pytest.mark.parametrize("around", ["jit(_step)/", "jit(_step)/while/body/closed_call/"])
@pytest.mark.parametrize(
    ("loop", "stretch"),
    [
        ("jvp()/shard_map/while", "loss"),
        (f"{FORWARD}/shard_map/closed_call/while", "forward through the layers"),
        (f"{BACKWARD}/rematted_computation/shard_map/while", "backward through the layers"),
        (f"{BACKWARD}/shard_map/while", "backward through the layers"),
        (f"{BACKWARD}/while/body/closed_call/checkpoint/shard_map/while", "backward through the layers"),
        (
            "transpose(jvp())/while/body/eval_jaxpr/checkpoint/shard_map/while/body/eval_jaxpr/while",
            "backward through the layers",
        ),
    ],
)
def test_loops_of_attention_are_of_the_layers_and_only_the_losss_of_the_loss(around, loop, stretch):
    """A device's own loops: with microbatches and without, rows in parts, as jax 0.10 and 0.12 name them."""
    assert costs.top_loop(around + loop) == stretch


def test_parts_of_tuples_may_be_named_without_an_instruction():
    """jax 0.12 writes ``%p#0`` where older ones write a ``get-tuple-element``: the same loops, the same counts."""
    text = GATHER.replace("GROUPS", "replica_groups=[4,2]<=[8]")
    short = text
    for name, part in (("i", "p#0"), ("x", "p#1"), ("i.1", "p.1#0")):
        short = re.sub(rf"  %{re.escape(name)} = .*get-tuple-element.*\n", "", short)
        short = re.sub(rf"%{re.escape(name)}([,)])", rf"%{part}\1", short)
    assert short.count("get-tuple-element") == 1
    found = counted(short, places(8, fsdp=4, tensor=2))
    assert found == counted(text, places(8, fsdp=4, tensor=2))


def test_parts_of_parts_have_shapes_of_their_own():
    module = hlo.read_module("""HloModule step

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = ((f32[8]{0:T(8,128)}, s32[]), /*index=1*/(bf16[4]{0}, bf16[2,3])) parameter(0)
  ROOT %twice = bf16[2,3] add(%x#1#1, %x#1#1)
}
""")
    lines = module.computations["main"].lines
    assert lines["x#1#1"].shapes == hlo.read_shapes("bf16[2,3]")
    assert [shape.sizes for shape in lines["x#1"].shapes] == [(4,), (2, 3)]


def test_what_crosses_slices_takes_the_network():
    place = places(8, data=2, fsdp=4, tensor=1)
    apart = Places(place.coordinates, (0, 0, 0, 0, 1, 1, 1, 1), place.sizes, place.extent)
    text = GATHER.replace("GROUPS", "replica_groups=[4,2]<=[2,4]T(1,0)")
    region = next(cost for cost in counted(text, apart).regions.values() if cost.links)
    assert region.network_s > 0
    assert region.network_wait_s == region.network_s  # nothing runs beside it
    assert region.link_s == region.link_wait_s == 0


def test_a_loops_end_may_be_counted_from_elsewhere_and_in_larger_steps():
    text = GATHER.replace("constant(1)", "constant(4)").replace("GROUPS", "replica_groups={{0,1}}")
    module = hlo.read_module(text)
    times = {computation.name: runs for computation, runs, _ in loops.walk(module)}
    assert times == {"main": 1, "body": 3}  # 0, 4, 8


def test_shapes_are_read_with_the_memory_they_lie_in():
    device, vector = hlo.read_shapes("(bf16[2,1024]{1,0:T(8,128)(2,1)}, f32[3]{0:T(128)S(1)})")
    assert (device.bytes, device.memory) == (4096, hlo.DEVICE)
    assert (vector.bytes, vector.memory) == (12, hlo.VECTOR)
    assert hlo.read_shapes("s4[10]")[0].bytes == 5
    assert np.prod(hlo.read_shapes("pred[]")[0].sizes) == 1


def test_work_that_another_core_starts_without_operands_moves_nothing_here():
    text = """HloModule step

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %start = ((), (), (s32[4]{0})) async-start(), async_execution_thread="sparsecore", calls=%elsewhere
  ROOT %twice = f32[8]{0} add(%x, %x)
}
"""
    assert counted(text, chip="v6e").memory_bytes == 3 * 8 * 4
