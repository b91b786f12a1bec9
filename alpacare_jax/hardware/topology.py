"""Names of device topologies: ``v5e:4x4``, ``v5e-16``, ``v5p-128`` (64 chips), ``v5e:4x4 x2`` (two slices)."""

import dataclasses
import math
import re

from alpacare_jax.errors import ConfigError
from alpacare_jax.errors import nearest as nearest_names
from alpacare_jax.hardware.chips import ALIASES, CHIPS, HOST_RESERVED, HOSTS, Chip, Host

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
"""Slices of the generations whose chips form a two-dimensional torus."""
CUBES = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x8x8",
    "8x8x8",
    "8x8x16",
    "8x16x16",
    "16x16x16",
)
"""Common slices of the generations whose chips form a three-dimensional torus."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that may not be there.

    Args:
        chip: What each device is.
        shape: Chips along each dimension of a slice; for GPUs one number, how many.
        slices: How many such slices.
        host_bytes: Memory of one host, where it is not what is published for its machine type.

    Example:
        >>> parse_topology("v5p-128").devices
        64
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1
    host_bytes: int | None = None

    @property
    def name(self) -> str:
        """The one spelling that is printed and cached under: ``v5e:4x4 x2``, ``h100-80gb x8``."""
        if self.chip.platform == "gpu":
            return self.chip.name if self.devices == 1 else f"{self.chip.name} x{self.devices}"
        once = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        return once if self.slices == 1 else f"{once} x{self.slices}"

    @property
    def devices_per_slice(self) -> int:
        """Devices of one slice, as jax counts them."""
        return math.prod(self.shape) * self.chip.devices_per_chip

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.devices_per_slice * self.slices

    @property
    def nodes(self) -> int:
        """Machines that GPUs stand in, each with links of its own; 1 for TPU slices, whose links span machines."""
        return -(-self.devices // self.chip.node_devices) if self.chip.platform == "gpu" else 1

    @property
    def host(self) -> Host | None:
        """The machine type that such a slice consists of; None where it is not known.

        A slice of one machine takes the one that holds it, a larger one machines of four chips (GPUs: of eight).

        Example:
            >>> [parse_topology(name).host.machine for name in ("v5e:1x1", "v5e:2x4", "v5e:4x4")]
            ['ct5lp-hightpu-1t', 'ct5lp-hightpu-8t', 'ct5lp-hightpu-4t']
        """
        known = HOSTS.get(self.chip.name, ())
        chips = math.prod(self.shape)
        whole = next((host for host in known if host.chips >= chips), None)
        usual = 4 if self.chip.platform == "tpu" else 8
        return whole or next((host for host in known if host.chips == usual), None)

    @property
    def devices_per_host(self) -> int:
        """Devices that share one host's memory; all of a slice where no host is known."""
        chips = min(self.host.chips, math.prod(self.shape)) if self.host else math.prod(self.shape)
        return chips * self.chip.devices_per_chip

    @property
    def host_memory(self) -> int | None:
        """Bytes of one host's memory; None where it is not known."""
        return self.host_bytes or (self.host.memory_bytes if self.host else None)

    @property
    def host_limit(self) -> int | None:
        """Bytes of its host's memory that a step may take for each device; None where it is not known.

        Example:
            >>> parse_topology("v5e:4x4").host_limit  # 192 GB, 16 of them left alone, for four chips
            44000000000
        """
        memory = self.host_memory
        return max(0, memory - HOST_RESERVED) // self.devices_per_host if memory else None

    @property
    def compiler_name(self) -> str:
        """How libtpu names one slice."""
        return f"{self.chip.compiler_name}:{'x'.join(map(str, self.shape))}"


def known_slices(chip: Chip) -> tuple[str, ...]:
    """Return the slices of a TPU generation that can be rented, smallest first, as ``4x4``."""
    return FLAT if chip.links == 4 else CUBES


def parse_topology(text: str) -> Topology:
    """Read a topology's name.

    Args:
        text: ``GENERATION:SHAPE`` as libtpu writes it, ``GENERATION-N`` as clouds write it (``N`` counts cores for
            v4, v5p and TPU7x, chips for the others), either with `` xN`` behind it for several slices; for GPUs
            ``h100-80gb`` or ``h100-80gb x8``.

    Raises:
        ConfigError: There is no such topology; the message names the nearest that exist.

    Example:
        >>> parse_topology("v5e-16").name, parse_topology("v5e:4x4 x2").devices
        ('v5e:4x4', 32)
    """
    cleaned = " ".join(text.lower().replace("×", "x").split())
    counted = re.fullmatch(r"(.+?)\s+x\s*(\d+)", cleaned)
    base, count = (counted[1], int(counted[2])) if counted else (cleaned, 1)
    if count < 1:
        raise _unknown(text)
    if base in CHIPS and CHIPS[base].platform == "gpu":
        if count > CHIPS[base].node_devices and count % CHIPS[base].node_devices:
            raise ConfigError(
                "several machines of GPUs are whole ones",
                where="topology",
                found=text,
                expected=f"a multiple of {CHIPS[base].node_devices} from {CHIPS[base].node_devices} on",
            )
        return Topology(CHIPS[base], (count,))
    shaped = re.fullmatch(r"([a-z0-9]+)\s*[:=]\s*(\d+(?:x\d+)*)", base)
    named = re.fullmatch(r"([a-z0-9]+)-(\d+)", base)
    match = shaped or named
    chip = CHIPS.get(ALIASES.get(match[1], match[1])) if match else None
    if chip is None or chip.platform != "tpu":
        raise _unknown(text)
    if shaped:
        return Topology(chip, _shape(text, chip, shaped[2]), count)
    assert named
    for slice_shape in known_slices(chip):
        if _product(slice_shape) * chip.cores_named == int(named[2]):
            return Topology(chip, _sizes(slice_shape), count)
    raise _unknown(text)


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(map(int, shape.split("x")))


def _product(shape: str) -> int:
    return math.prod(_sizes(shape))


def _shape(text: str, chip: Chip, shape: str) -> tuple[int, ...]:
    sizes = _sizes(shape)
    flat = chip.links == 4
    if len(sizes) != (2 if flat else 3):
        raise _unknown(text)
    if shape in known_slices(chip):
        return sizes
    # Generations in three dimensions come in whole cubes of 4x4x4 beyond the smallest slices.
    if not flat and all(size % 4 == 0 for size in sizes) and sorted(sizes) == list(sizes):
        return sizes
    raise _unknown(text)


def _unknown(text: str) -> ConfigError:
    near = nearest(text)
    return ConfigError(
        "there is no such topology",
        where="topology",
        found=text,
        expected=", ".join(near) + "; several slices as `v5e:4x4 x2`, several GPUs as `h100-80gb x8`",
        remedy="name one of these, or another of " + ", ".join(CHIPS),
    )


def nearest(text: str, most: int = 6) -> list[str]:
    """Name the topologies nearest to a text: of the same generation and nearest size where those can be told."""
    lowered = text.lower()
    generation = re.split(r"[:=\-\s]", lowered, maxsplit=1)[0]
    generation = ALIASES.get(generation, generation)
    if generation not in CHIPS:
        close = nearest_names(generation, [*CHIPS, *ALIASES])
        families = [name for name in CHIPS if name.startswith(generation)] if generation else []
        generation = ALIASES.get(close[0], close[0]) if close else (families or ["v5e"])[0]
    chip = CHIPS[generation]
    if chip.platform == "gpu":
        return nearest_names(lowered, CHIPS, most=most) or [chip.name]
    wanted = _wanted_chips(lowered, chip)
    shapes = known_slices(chip)
    if wanted is not None:
        shapes = tuple(sorted(shapes, key=lambda shape: abs(math.log(_product(shape) / wanted))))
    return [
        f"{chip.name}:{shape} ({chip.name}-{_product(shape) * chip.cores_named})" for shape in shapes[:most]
    ]


def _wanted_chips(text: str, chip: Chip) -> int | None:
    shape = re.search(r"[:=]\s*(\d+(?:x\d+)*)", text)
    if shape:
        return max(1, _product(shape[1]))
    count = re.search(r"-(\d+)", text)
    return max(1, int(count[1]) // chip.cores_named) if count else None
