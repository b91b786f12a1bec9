"""What is published about the chips a run may be planned for: one table, the sources named beside it.

Everything is per device as jax counts devices: a chip of v4, v5e, v5p and v6e is one device, a chip of TPU7x is two.
"""

import dataclasses

from alpacare_jax.flags import gpu_memory_share

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine that chips are attached to.

    Args:
        machine: Its type, as the cloud names it.
        chips: Chips attached to it.
        memory_bytes: Its main memory.
    """

    machine: str
    chips: int
    memory_bytes: int


HOST_RESERVED = 16 * 10**9
"""Bytes of a host's memory left to the system, the process and the reading of data; a step may not take them."""

HOSTS: dict[str, tuple[Host, ...]] = {
    name: tuple(Host(machine.format(chips), chips, gb * 10**9) for chips, gb in sizes)
    for name, machine, sizes in (
        # cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, "VM types": RAM in GB of each machine type.
        ("v4", "ct4p-hightpu-{}t", ((4, 407),)),
        ("v5e", "ct5lp-hightpu-{}t", ((1, 48), (4, 192), (8, 384))),
        ("v5p", "ct5p-hightpu-{}t", ((4, 448),)),
        ("v6e", "ct6e-standard-{}t", ((1, 176), (4, 720), (8, 1440))),
        ("tpu7x", "tpu7x-standard-{}t", ((4, 960),)),
        # cloud.google.com/compute/docs/gpus: memory of the machine types with eight GPUs.
        ("a100-40gb", "a2-highgpu-{}g", ((8, 680),)),
        ("a100-80gb", "a2-ultragpu-{}g", ((8, 1360),)),
        ("h100-80gb", "a3-highgpu-{}g", ((8, 1872),)),
        ("h200-141gb", "a3-ultragpu-{}g", ((8, 2952),)),
        ("b200-180gb", "a4-highgpu-{}g", ((8, 3968),)),
    )
}
"""Machine types by chip, the fewest chips first; a chip that is missing here has hosts of no known size."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator, per device.

    Args:
        name: What it is called here and in topologies: ``v5e``, ``h100-80gb``.
        platform: ``tpu`` or ``gpu``.
        memory_bytes: Memory a program may use. For TPUs what the compiler allows, for GPUs the share of the device's
            memory that a run started from here would take (:func:`alpacare_jax.flags.gpu_memory_share`).
        bf16_flops: Peak of dense bf16 matrix products, FLOP/s.
        memory_bytes_per_s: Bandwidth of that memory.
        link_bytes_per_s: Bandwidth of one link to a neighbour (TPU), or of all links together (GPU), each way.
        links: Links a chip has; a torus of two dimensions has four.
        network_bytes_per_s: Share of the data centre's network, each way: between slices, or between GPU nodes.
        host_bytes_per_s: Share of the link to the host's memory, each way; what offloading moves over.
        compiler_name: How libtpu names the generation; empty for GPUs.
        cores_named: Devices that one unit of an accelerator's name stands for: ``v5p-128`` counts two a chip.
        devices_per_chip: How many devices jax sees on a chip.
        node_devices: Devices that are joined by links (GPU); TPU slices are as large as their topology.
        compute_capability: Of a GPU, which says what kernels it runs.
        nominal_bytes: Memory that a GPU says it has; 0 for TPUs.
    """

    name: str
    platform: str
    memory_bytes: int
    bf16_flops: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    links: int
    network_bytes_per_s: float
    host_bytes_per_s: float
    compiler_name: str = ""
    cores_named: int = 1
    devices_per_chip: int = 1
    node_devices: int = 8
    compute_capability: tuple[int, int] | None = None
    nominal_bytes: int = 0


def _tpu(name: str, usable_gib: float, tflops: float, gbps: float, link: float, **more: float | str) -> Chip:
    return Chip(name, "tpu", int(usable_gib * GIB), tflops * 1e12, gbps * 1e9, link * 1e9, **more)  # type: ignore[arg-type]


def _gpu(
    name: str,
    nominal: int,
    tflops: float,
    gbps: float,
    link: float,
    network: float,
    capability: tuple[int, int],
) -> Chip:
    usable, speed = int(gpu_memory_share() * nominal), (tflops * 1e12, gbps * 1e9, link * 1e9)
    return Chip(
        name,
        "gpu",
        usable,
        *speed,
        1,
        network * 1e9,
        25e9,
        compute_capability=capability,
        nominal_bytes=nominal,
    )


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        # TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}: peak, HBM, interconnect (bidirectional figure over
        # two and over the ports), network (a pod's over its chips). PCIe: jax-ml.github.io/scaling-book, "TPUs".
        _tpu(
            "v4",
            31.75,
            275,
            1200,
            50,
            links=6,
            network_bytes_per_s=6.25e9,
            host_bytes_per_s=16e9,
            compiler_name="v4",
            cores_named=2,
        ),
        _tpu(
            "v5e",
            15.75,
            197,
            819,
            50,
            links=4,
            network_bytes_per_s=3.125e9,
            host_bytes_per_s=16e9,
            compiler_name="v5e",
        ),
        _tpu(
            "v5p",
            95.73,
            459,
            2765,
            100,
            links=6,
            network_bytes_per_s=6.25e9,
            host_bytes_per_s=16e9,
            compiler_name="v5p",
            cores_named=2,
        ),
        _tpu(
            "v6e",
            31.24,
            918,
            1638,
            100,
            links=4,
            network_bytes_per_s=12.5e9,
            host_bytes_per_s=32e9,
            compiler_name="v6e",
        ),
        _tpu(
            "tpu7x",
            94.75,
            2307 / 2,
            7380 / 2,
            100,
            links=6,
            network_bytes_per_s=6.25e9,
            host_bytes_per_s=16e9,
            compiler_name="tpu7x",
            cores_named=2,
            devices_per_chip=2,
        ),
        # GPUs: NVIDIA's data sheets (dense bf16, without sparsity; NVLink each way; 400 Gb/s a GPU between nodes for
        # Hopper and newer, 200 for Ampere).
        # What each says it has, from xla/backends/gpu/target_config/specs; L4 and L40S from nvidia-smi's MiB.
        _gpu("a100-40gb", 42_331_013_120, 312, 1555, 300, 25, (8, 0)),
        _gpu("a100-80gb", 85_100_068_864, 312, 2039, 300, 25, (8, 0)),
        _gpu("h100-80gb", 84_942_979_072, 989, 3350, 450, 50, (9, 0)),
        _gpu("h200-141gb", 151_397_597_184, 989, 4800, 450, 50, (9, 0)),
        _gpu("b200-180gb", 191_514_411_008, 2250, 8000, 900, 50, (10, 0)),
        _gpu("l4-24gb", 23_034 << 20, 121, 300, 32, 12.5, (8, 9)),
        _gpu("l40s-48gb", 46_068 << 20, 362, 864, 32, 25, (8, 9)),
    )
}
"""Every chip by name."""

ALIASES = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "trillium": "v6e",
    "v7x": "tpu7x",
    "7x": "tpu7x",
    "ironwood": "tpu7x",
}
"""Other names of the same chips."""

_KINDS = (
    ("v6 lite", "v6e"),
    ("v6e", "v6e"),
    ("v5 lite", "v5e"),
    ("v5e", "v5e"),
    ("v5", "v5p"),
    ("v4", "v4"),
    ("7x", "tpu7x"),
    ("a100-sxm4-40gb", "a100-40gb"),
    ("a100-pcie-40gb", "a100-40gb"),
    ("a100", "a100-80gb"),
    ("h100", "h100-80gb"),
    ("h200", "h200-141gb"),
    ("b200", "b200-180gb"),
    ("l40s", "l40s-48gb"),
    ("l4", "l4-24gb"),
)


def chip_of(device_kind: str) -> Chip | None:
    """Find the chip by what a device calls itself; None where the table lacks it.

    Example:
        >>> chip_of("NVIDIA H100 80GB HBM3").name, chip_of("TPU v5 lite").name, chip_of("cpu")
        ('h100-80gb', 'v5e', None)
    """
    words = device_kind.lower()
    platform = "tpu" if words.startswith("tpu") else "gpu" if words.startswith("nvidia") else ""
    for part, name in _KINDS:
        if CHIPS[name].platform == platform and part in words:
            return CHIPS[name]
    return None
