"""Names of topologies: libtpu's, the clouds', several slices; the nearest where there is none."""

import dataclasses

import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.hardware.chips import CHIPS
from alpacare_jax.hardware.topology import parse_topology


@pytest.mark.parametrize(
    ("text", "name", "devices"),
    [
        ("v5e:4x4", "v5e:4x4", 16),
        ("v5e-16", "v5e:4x4", 16),
        ("V5litepod-16", "v5e:4x4", 16),
        ("v5p-128", "v5p:4x4x4", 64),
        ("v4-8", "v4:2x2x1", 4),
        ("v6e-8", "v6e:2x4", 8),
        ("tpu7x-16", "tpu7x:2x2x2", 16),
        ("v5e:4x4 x2", "v5e:4x4 x2", 32),
        ("v5e-16 x 2", "v5e:4x4 x2", 32),
        ("v5p:8x8x16", "v5p:8x8x16", 1024),
        ("h100-80gb x8", "h100-80gb x8", 8),
        ("h100-80gb x1", "h100-80gb", 1),
        ("H100-80GB X 16", "h100-80gb x16", 16),
    ],
)
def test_every_spelling_names_one_topology(text: str, name: str, devices: int) -> None:
    found = parse_topology(text)
    assert (found.name, found.devices) == (name, devices)
    assert parse_topology(found.name) == found


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("v5e-17", "v5e:4x4"),
        ("v5e:3x3", "v5e:2x4"),
        ("v5p:4x4", "v5p:2x2x4"),
        ("v6-8", "v6e:2x4"),
        ("h100", "h100-80gb"),
        ("v5e:4x4 x0", "v5e:4x4"),
        ("banana", "v5e:1x1"),
        ("", "v5e:1x1"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_that_do(text: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_topology(text)
    assert near in str(caught.value.expected)


def test_every_slice_that_is_named_can_be_read_back() -> None:
    for chip in CHIPS.values():
        for shape in chip.slices:
            place = parse_topology(f"{chip.name}:{shape}")
            counted = place.devices // chip.devices_per_chip * chip.cores_named
            assert parse_topology(f"{chip.name}-{counted}") == place


@pytest.mark.parametrize(
    ("name", "machine", "devices", "gb"),
    [
        ("v5e:1x1", "ct5lp-hightpu-1t", 1, 48),
        ("v5e:2x4", "ct5lp-hightpu-8t", 8, 384),
        ("v5e:4x4 x2", "ct5lp-hightpu-4t", 4, 192),
        ("v6e-8", "ct6e-standard-8t", 8, 1440),
        ("v5p-128", "ct5p-hightpu-4t", 4, 448),
        ("v4-32", "ct4p-hightpu-4t", 4, 407),
        ("tpu7x-16", "tpu7x-standard-4t", 8, 960),  # two devices a chip
        ("h100-80gb x8", "a3-highgpu-8g", 8, 1872),
        ("h100-80gb x32", "a3-highgpu-8g", 8, 1872),
    ],
)
def test_the_hosts_of_a_topology_are_known(name: str, machine: str, devices: int, gb: int) -> None:
    place = parse_topology(name)
    assert place.host is not None
    assert (place.host.machine, place.devices_per_host, place.host_memory) == (machine, devices, gb * 10**9)
    assert place.host_limit == (gb - 16) * 10**9 // devices


def test_another_host_may_be_named_and_one_may_be_unknown() -> None:
    place = parse_topology("v5e:4x4")
    assert dataclasses.replace(place, host_bytes=400 * 10**9).host_limit == 96 * 10**9
    unknown = parse_topology("l4-24gb x4")
    assert (unknown.host, unknown.host_limit, unknown.devices_per_host) == (None, None, 4)


def test_several_machines_of_gpus_are_whole() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        parse_topology("h100-80gb x12")
