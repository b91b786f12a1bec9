"""Names of topologies: libtpu's, the clouds', several slices; the nearest where there is none."""

import pytest

from alpacare_jax.errors import ConfigError
from alpacare_jax.plan.chips import CHIPS
from alpacare_jax.plan.topology import known_slices, parse_topology


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
        ("h100-80gb x8", "h100-80gb:8", 8),
    ],
)
def test_every_spelling_names_one_topology(text: str, name: str, devices: int) -> None:
    found = parse_topology(text)
    assert (found.name, found.devices) == (name, devices)
    if found.chip.platform == "tpu":
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
        for shape in known_slices(chip) if chip.platform == "tpu" else ():
            place = parse_topology(f"{chip.name}:{shape}")
            counted = place.devices // chip.devices_per_chip * chip.cores_named
            assert parse_topology(f"{chip.name}-{counted}") == place
