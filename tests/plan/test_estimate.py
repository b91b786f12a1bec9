"""What an estimate makes of a program's counts: seconds by the shares of each peak, and what bounds a stretch."""

import pytest

from alpacare_jax.hardware.chips import CHIPS
from alpacare_jax.plan.costs import Cost
from alpacare_jax.plan.estimate import REACHED, Stretch

CORES, LINKS, NETWORK = REACHED["cores"], REACHED["links"], REACHED["network"]


def part(**seconds: float) -> Stretch:
    """A stretch whose counts are so many seconds at the published peaks."""
    return Stretch.of("all", Cost(**seconds), CHIPS["v5e"])


def test_waits_take_the_share_of_what_is_waited_for():
    found = part(busy_s=1.0, link_s=2.0, link_wait_s=2.0, network_s=4.0, network_wait_s=4.0)
    assert found.waits_s == pytest.approx(2.0 / LINKS + 4.0 / NETWORK)
    assert found.seconds == pytest.approx(1.0 / CORES + 2.0 / LINKS + 4.0 / NETWORK)


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        ({"busy_s": 2.0, "link_s": 1.0, "link_wait_s": 1.0}, "cores"),
        ({"busy_s": 1.0, "link_s": 2.0, "link_wait_s": 2.0}, "links"),
        ({"busy_s": 1.0, "link_s": 2.0}, "links"),
        ({"busy_s": 1.0, "network_s": 2.0, "network_wait_s": 2.0}, "network"),
        ({"busy_s": 1.0, "network_s": 2.0}, "network"),
        # Both are waited for, one after the other: neither alone is longer than the cores' work, nor is all of it.
        (
            {"busy_s": 2.0, "link_s": 1.5, "link_wait_s": 1.5, "network_s": 1.5, "network_wait_s": 1.5},
            "cores",
        ),
        ({"busy_s": 1.0, "host_bytes": 1e15}, "host"),
    ],
)
def test_what_takes_most_of_the_slowest_bounds_a_stretch(seconds, bound):
    assert part(**seconds).bound == bound
