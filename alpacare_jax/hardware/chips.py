"""The accelerators that a run may be planned for, as the table ``chips.yaml`` beside this file describes them."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import yaml

from alpacare_jax.flags import gpu_memory_share

GIB = 1 << 30
HOST_RESERVED = 16 * 10**9
"""Bytes of a host's memory left to the system, the process and the reading of data; a step may not take them."""


class Host(NamedTuple):
    """A machine type: its name, the chips attached to it and its main memory."""

    machine: str
    chips: int
    memory_bytes: int


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator; figures are per device as jax counts devices, bandwidths each way.

    Args:
        name: Its name here and in topologies: ``v5e``, ``h100-80gb``.
        platform: ``tpu`` or ``gpu``.
        tflops: Peak of dense bf16 matrix products, 10^12 FLOP/s.
        memory_gb_s: Bandwidth of the device's memory.
        link_gb_s: Bandwidth of one link to a neighbour (TPU), or of all links together (GPU).
        network_gb_s: Share of the data centre's network: between slices, or between GPU nodes.
        host_gb_s: Share of the link to the host's memory, which offloading uses.
        usable_gib: Memory that a program may use (TPU).
        reported_bytes: Memory that the device reports (GPU).
        links: Links of a chip; a two-dimensional torus has four.
        cores_named: Devices that one unit of an accelerator's name stands for: ``v5p-128`` counts two a chip.
        devices_per_chip: Devices that jax sees on a chip.
        node_devices: Devices that are joined by links (GPU); TPU slices are as large as their topology.
        compute_capability: Of a GPU, which says what kernels it runs.
        slices: Slices that can be rented, smallest first, as ``4x4`` (TPU).
        aliases: Other names of the same chip.
        device_kinds: Parts of the name that jax reports.
        machine: Name of the machine types, with ``{}`` for the number of chips.
        hosts: Main memory of the machine types in GB, by number of chips; empty where it is not known.
        processor: What the compiler for GPUs needs to know besides (see ``gpus.py`` of the room ``plan``).
    """

    name: str
    platform: str
    tflops: float
    memory_gb_s: float
    link_gb_s: float
    network_gb_s: float
    host_gb_s: float
    usable_gib: float = 0.0
    reported_bytes: int = 0
    links: int = 1
    cores_named: int = 1
    devices_per_chip: int = 1
    node_devices: int = 8
    compute_capability: tuple[int, int] | None = None
    slices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    device_kinds: tuple[str, ...] = ()
    machine: str = ""
    hosts: dict[int, int] = dataclasses.field(default_factory=dict, hash=False)
    processor: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def memory_bytes(self) -> int:
        """Memory a program may use: what the TPU compiler allows, or the share of a GPU's that a run would take."""
        return int(self.usable_gib * GIB) or int(gpu_memory_share() * self.reported_bytes)

    @property
    def bf16_flops(self) -> float:
        """Peak of dense bf16 matrix products, FLOP/s."""
        return self.tflops * 1e12


def _read_chips() -> dict[str, Chip]:
    table = yaml.safe_load(Path(__file__).with_name("chips.yaml").read_text(encoding="utf-8"))
    chips = {name: {"name": name, **entry} for name, entry in table.items()}
    return pydantic.TypeAdapter(dict[str, Chip]).validate_python(chips)


CHIPS = _read_chips()
"""Every chip by name."""
NAMES = {alias: chip.name for chip in CHIPS.values() for alias in (chip.name, *chip.aliases)}
"""Every name and alias of a chip -> its name."""


def chip_of(device_kind: str) -> Chip | None:
    """Find the chip by the name that jax reports for a device; None if the table lacks it.

    Example:
        >>> chip_of("NVIDIA H100 80GB HBM3").name, chip_of("TPU v5 lite").name, chip_of("cpu")
        ('h100-80gb', 'v5e', None)
    """
    kind = device_kind.lower()
    platform = "tpu" if kind.startswith("tpu") else "gpu" if kind.startswith("nvidia") else ""
    found = (
        chip
        for chip in CHIPS.values()
        if chip.platform == platform and any(part in kind for part in chip.device_kinds)
    )
    return next(found, None)
