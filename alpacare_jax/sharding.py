"""Meshes and the one table that maps logical axes to mesh axes. No other file names a mesh axis.

The mesh has four axes: ``data`` (replicas, across slices), ``fsdp`` (parameters and batch), ``tensor`` (heads, MLP
width, vocabulary; between a layer's products the length of a row) and ``context`` (the length of a row). Every
parameter declares logical axes where it is created; ``RULES`` turns them into shardings, and
``WHERE_UNEVEN`` says what an axis becomes where the mesh does not divide it.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from alpacare_jax import distributed
from alpacare_jax.errors import ConfigError, ShardingError
from datagen.configuration import Range, check

MESH_AXES = ("data", "fsdp", "tensor", "context")
DEVICES = Range(1, 1_000_000, beside=-1)

RULES: Mapping[str, str | tuple[str, ...] | None] = {
    # activations
    "batch": ("data", "fsdp"),
    "length": "context",
    "residual_length": ("context", "tensor"),  # of what passes from one product over `tensor` to the next
    "width": None,
    # parameters
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "embed_whole": ("fsdp", "tensor"),  # of a weight whose other axis `tensor` does not divide
    "heads": "tensor",
    "kv_heads": "tensor",
    "head": None,
    "mlp": "tensor",
    "norm": None,
}

WHERE_UNEVEN: Mapping[str, str | None] = {
    "residual_length": "length",
    "vocab": None,
    "heads": None,
    "kv_heads": None,
    "mlp": None,
}
"""What takes the place of a logical axis whose size the mesh does not divide; others must divide."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each mesh axis; at most one may be -1, which takes all that remain.

    Examples:
        >>> MeshConfig(fsdp=-1, tensor=2).shape(8)
        (1, 4, 2, 1)
    """

    data: Annotated[int, DEVICES] = 1
    fsdp: Annotated[int, DEVICES] = -1
    tensor: Annotated[int, DEVICES] = 1
    context: Annotated[int, DEVICES] = 1

    def __post_init__(self) -> None:
        free = [axis for axis in MESH_AXES if getattr(self, axis) == -1]
        problems = [f"{' and '.join(free)}: at most one axis may be -1"] * (len(free) > 1)
        check(self, "mesh", problems)

    def shape(self, device_count: int) -> tuple[int, int, int, int]:
        """Return the mesh shape for a number of devices.

        Raises:
            ShardingError: The axes do not multiply to the number of devices.
        """
        sizes = [getattr(self, axis) for axis in MESH_AXES]
        named = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
        fixed = math.prod(size for size in sizes if size != -1)
        if -1 in sizes and device_count % fixed == 0:
            sizes[sizes.index(-1)] = device_count // fixed
        if math.prod(sizes) != device_count or -1 in sizes:
            raise ShardingError(
                "the mesh does not divide the devices",
                where="mesh",
                found=f"{named} on {device_count} devices",
                expected=f"sizes whose product is {device_count}",
                remedy="change the mesh, or set one axis to -1 so that it takes what remains",
            )
        return (sizes[0], sizes[1], sizes[2], sizes[3])


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Build the mesh over all devices of all processes, in the order that suits the interconnect.

    Args:
        config: Sizes of the axes.
        devices: Devices to use; all of them when None.

    Raises:
        ShardingError: The sizes do not multiply to the number of devices, or an axis other than ``data`` would cross
            from one slice to another.
    """
    devices = jax.devices() if devices is None else devices
    shape = config.shape(len(devices))
    # Explicit axes are the default of some jax versions; this code relies on automatic sharding.
    automatic = (AxisType.Auto,) * len(MESH_AXES)
    # GPUs have slice numbers too, of links between nodes; there the order of the devices says enough.
    slices = len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"})
    if slices <= 1:
        return jax.make_mesh(shape, MESH_AXES, axis_types=automatic, devices=devices)
    return Mesh(_across_slices(shape, slices, devices), MESH_AXES, axis_types=automatic)


def _across_slices(
    shape: tuple[int, int, int, int], slices: int, devices: Sequence[jax.Device]
) -> np.ndarray:
    """Arrange the devices of several slices so that only ``data`` crosses the network between them."""
    from jax.experimental import mesh_utils

    data, *inside = shape
    if data % slices:
        raise ShardingError(
            "only the axis `data` may cross from one slice to another",
            where="mesh",
            found=f"data={data} on {slices} slices",
            expected=f"data a multiple of {slices}",
            remedy=f"set mesh.data={slices} and let the other axes divide one slice's "
            f"{len(devices) // slices} devices",
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inside), (slices, 1, 1, 1), devices=devices, allow_split_physical_axes=True
    )


def abstract_mesh(config: MeshConfig, device_count: int) -> AbstractMesh:
    """Return a mesh of so many devices that are not there, to work out shapes and shardings by.

    Raises:
        ShardingError: The sizes do not multiply to the number of devices.
    """
    return AbstractMesh(config.shape(device_count), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def single_device_mesh() -> Mesh:
    """Return the mesh of one local device, for code that runs with or without sharding."""
    return make_mesh(MeshConfig(fsdp=1), jax.local_devices()[:1])


def read_mesh(text: str) -> MeshConfig:
    """Read sizes such as ``fsdp=4,tensor=2``; axes that are not named have one device.

    Raises:
        ConfigError: The text names no such axis, or a size is not a whole number.

    Examples:
        >>> read_mesh("fsdp=4,tensor=2")
        MeshConfig(data=1, fsdp=4, tensor=2, context=1)
    """
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis.strip() not in sizes or not size.strip().lstrip("-").isdigit():
            raise ConfigError(
                "the mesh cannot be read",
                where="mesh",
                found=part,
                expected=f"axis=size, the axes being {', '.join(MESH_AXES)}",
            )
        sizes[axis.strip()] = int(size)
    return MeshConfig(**sizes)


def resolve_mesh(mesh: MeshConfig | Mesh | str | None) -> Mesh:
    """Return a mesh of devices from its sizes, or as it is; for None one local device, under several processes all.

    Devices are started here if nothing has started them, with what ``alpacare_jax.distributed`` sets before that.
    """
    if isinstance(mesh, Mesh):
        return mesh
    distributed.initialize_from_environment()
    if isinstance(mesh, str):
        mesh = read_mesh(mesh)
    if mesh is None and jax.process_count() == 1:
        return single_device_mesh()
    return make_mesh(MeshConfig(data=-1, fsdp=1) if mesh is None else mesh)


def host_mesh() -> Mesh:
    """Return the mesh of one CPU device, to convert models that no single accelerator could hold.

    Where only an accelerator may be used (``JAX_PLATFORMS=cuda``), it is that of one local device.
    """
    try:
        devices = jax.local_devices(backend="cpu")[:1]
    except RuntimeError:
        return single_device_mesh()
    return make_mesh(MeshConfig(fsdp=1), devices)


def spec(axes: Sequence[str | None]) -> PartitionSpec:
    """Map logical axes to a partition spec.

    Examples:
        >>> spec(("embed", "heads", "head")) == PartitionSpec("fsdp", "tensor", None)
        True
    """
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def named(mesh: Mesh, axes: Sequence[str | None]) -> NamedSharding:
    """Map logical axes to a sharding on a mesh."""
    return NamedSharding(mesh, spec(axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a [batch, length] array."""
    return named(mesh, ("batch", "length"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shardings_of(tree: Any) -> Any:
    """Return the shardings of a tree of placed arrays or shape structs."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def fitted(
    mesh: Mesh | AbstractMesh, axes: Sequence[str | None], shape: Sequence[int]
) -> tuple[str | None, ...]:
    """Return logical axes with those that the mesh does not divide replaced as ``WHERE_UNEVEN`` says.

    A weight that loses an axis this way is split along its width by as many devices more, where that divides, so that
    no device holds more of it than of others.

    Examples:
        >>> mesh = abstract_mesh(MeshConfig(fsdp=2, tensor=4), 8)
        >>> fitted(mesh, ("batch", "residual_length", "width"), (8, 30, 64))
        ('batch', 'length', 'width')
        >>> fitted(mesh, ("embed", "heads", "head"), (576, 9, 64))
        ('embed_whole', None, 'head')
    """
    found = tuple(
        axis if axis is None or divides(mesh, axis, size) else WHERE_UNEVEN.get(axis, axis)
        for axis, size in zip(axes, shape, strict=True)
    )
    if found == tuple(axes):
        return found
    return tuple(
        "embed_whole" if axis == "embed" and divides(mesh, "embed_whole", size) else axis
        for axis, size in zip(found, shape, strict=True)
    )


def divides(mesh: Mesh | AbstractMesh, axis: str | None, size: int) -> bool:
    """Say whether a mesh splits a size evenly."""
    return axis is None or size % shards_on(mesh, axis) == 0


def placed(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
    """Return the sharding of an array of logical axes and a shape; axes may be uneven, see ``fitted``."""
    return named(mesh, fitted(mesh, axes, shape))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pin an activation to its logical axes inside jit; without a mesh in scope this does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(fitted(mesh, axes, x.shape)))


def per_device(
    function: Callable[..., Any], takes: Sequence[Sequence[str | None]], gives: Sequence[Any]
) -> Callable[..., Any]:
    """Let every device of the mesh in scope run a function on its own parts; without a mesh, return the function.

    Args:
        function: Of arrays.
        takes: The logical axes of each argument.
        gives: The logical axes of the result, or of each of several.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function
    several = not gives or not isinstance(gives[0], str)
    outs = tuple(map(spec, gives)) if several else spec(gives)
    return jax.shard_map(function, in_specs=tuple(map(spec, takes)), out_specs=outs, check_vma=False)


def split_over(*axes: str | None) -> tuple[str, ...]:
    """Return the axes of the mesh in scope that split logical axes over several devices, to name in collectives.

    Examples:
        >>> with use_mesh(make_mesh(MeshConfig(fsdp=4, tensor=2))):
        ...     split_over("batch", "length"), split_over("vocab")
        (('fsdp',), ('tensor',))
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = [name for axis in axes for name in _mesh_axes(axis)]
    return () if mesh.empty else tuple(name for name in dict.fromkeys(names) if mesh.shape[name] > 1)


def _mesh_axes(axis: str | None) -> tuple[str, ...]:
    rule = None if axis is None else RULES[axis]
    return () if rule is None else (rule,) if isinstance(rule, str) else tuple(rule)


def shards_of(axis: str) -> int:
    """Return over how many devices the mesh in scope splits a logical axis; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else shards_on(mesh, axis)


def splits_evenly(**sizes: int) -> bool:
    """Say whether the mesh in scope divides the size of every logical axis that is named; without a mesh it does.

    Examples:
        >>> with use_mesh(make_mesh(MeshConfig(fsdp=4, tensor=2))):
        ...     splits_evenly(heads=8, kv_heads=3)
        False
    """
    return all(size % shards_of(axis) == 0 for axis, size in sizes.items())


def shards_on(mesh: Mesh | AbstractMesh, axis: str) -> int:
    """Return over how many devices a mesh splits a logical axis."""
    return math.prod(mesh.shape[name] for name in _mesh_axes(axis))


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Put a mesh in scope for ``constrain`` and for jit."""
    with jax.set_mesh(mesh):
        yield mesh


def platform_here() -> str:
    """Return the platform of the devices of the mesh in scope, which need not be here: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.local_devices()[0].platform


def size_of(mesh_axes: Sequence[str]) -> int:
    """Return how many devices the named axes of the mesh in scope span.

    Examples:
        >>> with use_mesh(make_mesh(MeshConfig(fsdp=4, tensor=2))):
        ...     size_of(("fsdp", "tensor"))
        8
    """
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in mesh_axes)


def check_divides(mesh: Mesh, sizes: Mapping[str, int]) -> None:
    """Check that sizes by logical axis, such as ``{"batch": 128}``, divide over the mesh axes those map to.

    Raises:
        ShardingError: Names every size that does not divide.
    """
    problems = [
        f"{axis} ({size}) over {_over(mesh, axis)}"
        for axis, size in sizes.items()
        if size % shards_on(mesh, axis)
    ]
    if problems:
        raise ShardingError(
            "the mesh does not divide the model or the batch",
            where=_named_sizes(mesh),
            found="; ".join(problems),
            expected="every size a multiple of its shards",
            remedy="choose smaller mesh axes, or another batch size or sequence length",
        )


def check_enough(mesh: Mesh, axis: str, size: int) -> None:
    """Raise a ShardingError where an axis such as ``heads`` is smaller than the number of its shards."""
    if size < shards_on(mesh, axis):
        raise ShardingError(
            f"some devices would have none of the {axis}",
            where=_named_sizes(mesh),
            found=f"{size} {axis} over {_over(mesh, axis)}",
            expected=f"{' x '.join(_mesh_axes(axis))} at most {size}",
            remedy="give these devices to another axis",
        )


def _over(mesh: Mesh, axis: str) -> str:
    return f"{' x '.join(_mesh_axes(axis))} ({shards_on(mesh, axis)})"


def _named_sizes(mesh: Mesh) -> str:
    return "mesh " + ", ".join(f"{name}={mesh.shape[name]}" for name in MESH_AXES)
