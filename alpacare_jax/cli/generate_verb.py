"""``alpacare generate``: a file of prompts to a file of responses."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from alpacare_jax.generate import Engine

DEFAULT_CONTEXT = 2048


def open_engine(
    reference: str,
    *,
    slots: int,
    max_len: int | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
) -> "tuple[Engine, str]":
    """Open a model and build the engine over it.

    Args:
        reference: What names the model.
        slots: Requests answered at the same time.
        max_len: Context in tokens; the model's own, at most 2048, when None.
        dtype: "float32" or "bfloat16"; float32 on CPUs and bfloat16 elsewhere when None.
        mesh: Such as ``fsdp=4,tensor=2``; one device when None, all of them under several processes.

    Returns:
        The engine and the model's name.

    Raises:
        ConfigError: An option has an impossible value.
        ShardingError: The mesh does not fit the devices or the model.
    """
    import jax

    from alpacare_jax import convert, distributed
    from alpacare_jax.errors import ConfigError
    from alpacare_jax.generate import Engine
    from alpacare_jax.model import Architecture

    distributed.initialize_from_environment()
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError("unknown dtype", where="--dtype", found=dtype, expected="float32 or bfloat16")
    devices = build_mesh(mesh)
    loaded = convert.open_model(reference, mesh=devices, dtype=dtype)
    longest = loaded.config.max_position_embeddings
    if max_len is not None and max_len > longest:
        raise ConfigError(
            "the context is longer than the model's",
            where="--max-len",
            found=max_len,
            expected=f"at most {longest}",
        )
    architecture = Architecture(loaded.config, loaded.model.compute)
    length = min(longest, DEFAULT_CONTEXT) if max_len is None else max_len
    tokenizer, name = loaded.tokenizer, loaded.name
    return Engine(architecture, loaded.params, tokenizer, mesh=devices, slots=slots, max_len=length), name


def build_mesh(text: str | None) -> "Mesh":
    """Read a mesh such as ``fsdp=4,tensor=2``; axes that are not named have one device.

    Raises:
        ConfigError: The text names no such axis, or a size is not a whole number.
        ShardingError: The sizes do not fit the devices.
    """
    import jax

    from alpacare_jax import sharding
    from alpacare_jax.errors import ConfigError

    if text is None:
        if jax.process_count() == 1:
            return sharding.single_device_mesh()
        return sharding.make_mesh(sharding.MeshConfig(data=-1, fsdp=1))
    sizes = dict.fromkeys(sharding.MESH_AXES, 1)
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis.strip() not in sizes or not size.strip().lstrip("-").isdigit():
            raise ConfigError(
                "the mesh cannot be read",
                where="--mesh",
                found=part,
                expected=f"axis=size, the axes being {', '.join(sharding.MESH_AXES)}",
            )
        sizes[axis.strip()] = int(size)
    return sharding.make_mesh(sharding.MeshConfig(**sizes))
