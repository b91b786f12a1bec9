"""Names of device topologies: ``v5e:4x4``, ``v5e-16``, ``v5p-128`` (64 chips), ``v5e:4x4 x2`` (two slices)."""

import dataclasses
import math
import re
from collections.abc import Sequence

from alpacare_jax.errors import ConfigError
from alpacare_jax.errors import nearest as nearest_names
from alpacare_jax.hardware.chips import CHIPS, HOST_RESERVED, NAMES, Chip, Host


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that need not be present.

    Args:
        chip: What each device is.
        shape: Chips along each dimension of a slice; for GPUs one number, how many.
        slices: How many such slices.
        host_bytes: Memory of one host, if it differs from what is published for its machine type.

    Example:
        >>> parse_topology("v5p-128").devices
        64
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1
    host_bytes: int | None = None

    @property
    def slice_name(self) -> str:
        """One slice in libtpu's spelling: ``v5e:4x4``."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def name(self) -> str:
        """The spelling that is printed and cached under: ``v5e:4x4 x2``, ``h100-80gb x8``."""
        gpu = self.chip.platform == "gpu"
        base, count = (self.chip.name, self.devices) if gpu else (self.slice_name, self.slices)
        return base if count == 1 else f"{base} x{count}"

    @property
    def devices_per_slice(self) -> int:
        """Devices of one slice, as jax counts them."""
        return math.prod(self.shape) * self.chip.devices_per_chip

    @property
    def devices(self) -> int:
        """Devices of all slices."""
        return self.devices_per_slice * self.slices

    @property
    def nodes(self) -> int:
        """GPU machines, each with links of its own; 1 for TPU slices, whose links span machines."""
        return -(-self.devices // self.chip.node_devices) if self.chip.platform == "gpu" else 1

    @property
    def host(self) -> Host | None:
        """The machine type that such a slice consists of; None if it is not known.

        A slice of one machine takes the one that holds it, a larger one machines of four chips (GPUs: of eight).

        Example:
            >>> [parse_topology(name).host.machine for name in ("v5e:1x1", "v5e:2x4", "v5e:4x4")]
            ['ct5lp-hightpu-1t', 'ct5lp-hightpu-8t', 'ct5lp-hightpu-4t']
        """
        known, usual = self.chip.hosts, 4 if self.chip.platform == "tpu" else 8
        chips = next((chips for chips in known if chips >= math.prod(self.shape)), usual)
        return Host(self.chip.machine.format(chips), chips, known[chips] * 10**9) if chips in known else None

    @property
    def devices_per_host(self) -> int:
        """Devices that share one host's memory; all of a slice if no host is known."""
        chips = min(self.host.chips, math.prod(self.shape)) if self.host else math.prod(self.shape)
        return chips * self.chip.devices_per_chip

    @property
    def host_memory(self) -> int | None:
        """Bytes of one host's memory; None if it is not known."""
        return self.host_bytes or (self.host.memory_bytes if self.host else None)

    @property
    def host_limit(self) -> int | None:
        """Bytes of its host's memory that a step may take for each device; None if it is not known.

        Example:
            >>> parse_topology("v5e:4x4").host_limit  # 192 GB, 16 of them left alone, for four chips
            44000000000
        """
        memory = self.host_memory
        return max(0, memory - HOST_RESERVED) // self.devices_per_host if memory else None


def parse_topology(text: str) -> Topology:
    """Read a topology's name.

    Args:
        text: ``GENERATION:SHAPE`` as libtpu writes it, ``GENERATION-N`` as clouds write it (``N`` counts cores for
            v4, v5p and TPU7x, chips for the others), either followed by `` xN`` for several slices; for GPUs
            ``h100-80gb`` or ``h100-80gb x8``.

    Raises:
        ConfigError: There is no such topology; the message names the nearest that exist.

    Example:
        >>> parse_topology("v5e-16").name, parse_topology("v5e:4x4 x2").devices
        ('v5e:4x4', 32)
    """
    cleaned = " ".join(text.lower().replace("×", "x").split())
    match = re.fullmatch(r"([a-z0-9-]+?)(?:\s*[:=]\s*(\d+(?:x\d+)*)|-(\d+))?(?:\s+x\s*(\d+))?", cleaned)
    name, shape, number, times = match.groups() if match else ("", None, None, None)
    chip, count = CHIPS.get(NAMES.get(name, "")), int(times or 1)
    if chip is None or count < 1 or (chip.platform == "gpu") != (shape is None and number is None):
        raise _unknown(text)
    if chip.platform == "gpu":
        if count > chip.node_devices and count % chip.node_devices:
            raise ConfigError(
                "multi-node topologies must use all GPUs of every node",
                where="topology",
                found=text,
                expected=f"a multiple of {chip.node_devices} from {chip.node_devices} on",
            )
        return Topology(chip, (count,))
    if number:
        named = (known for known in chip.slices if _product(known) * chip.cores_named == int(number))
        shape = next(named, None)
    sizes = _sizes(shape or "0")
    # Generations in three dimensions come in whole cubes of 4x4x4 beyond the smallest slices.
    cubes = chip.links == 6 and len(sizes) == 3 and not any(size % 4 for size in sizes)
    if shape in chip.slices or (cubes and sorted(sizes) == list(sizes)):
        return Topology(chip, sizes, count)
    raise _unknown(text)


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(map(int, shape.split("x")))


def _product(shape: str) -> int:
    return math.prod(_sizes(shape))


def _unknown(text: str) -> ConfigError:
    return ConfigError(
        "there is no such topology",
        where="topology",
        found=text,
        expected=", ".join(nearest(text))
        + "; several slices as `v5e:4x4 x2`, several GPUs as `h100-80gb x8`",
        remedy="name one of these, or another of " + ", ".join(CHIPS),
    )


def nearest(text: str, most: int = 6) -> list[str]:
    """Name the topologies nearest to a text: of the same generation and nearest size if those can be told."""
    lowered = text.lower()
    generation = re.split(r"[:=\-\s]", lowered, maxsplit=1)[0]
    if generation not in NAMES:
        families = [name for name in CHIPS if generation and name.startswith(generation)]
        close = nearest_names(generation, NAMES)
        generation = (close or families or ["v5e"])[0]
    chip = CHIPS[NAMES[generation]]
    if chip.platform == "gpu":
        return nearest_names(lowered, CHIPS, most=most) or [chip.name]
    shapes: Sequence[str] = chip.slices
    size = re.search(r"[:=]\s*(\d+(?:x\d+)*)|-(\d+)", lowered)
    if size:
        wanted = max(1, _product(size[1]) if size[1] else int(size[2]) // chip.cores_named)
        shapes = sorted(shapes, key=lambda shape: abs(math.log(_product(shape) / wanted)))
    return [
        f"{chip.name}:{shape} ({chip.name}-{_product(shape) * chip.cores_named})" for shape in shapes[:most]
    ]
