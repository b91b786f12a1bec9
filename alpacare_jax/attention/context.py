"""Context parallelism: rows whose length is split over devices, each attending to the whole row.

Keys, values and segment ids are gathered, and every device lets its own queries meet them all, so that segments may
cross from one device to the next without any loss of exactness. The later a query stands, the more keys it sees;
devices therefore exchange half of their queries first, after which each holds one piece from the front of the row and
the matching one from its end, and all have the same work.

Source: Dubey et al. 2024, section 3.3.2 (context parallelism by all-gather, with 2 x shards chunks of the sequence).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from alpacare_jax import collectives, sharding
from alpacare_jax.attention import splash
from alpacare_jax.attention.chunked import attend_chunked
from alpacare_jax.attention.mask import SegmentMask
from alpacare_jax.attention.plain import attend_masked
from alpacare_jax.errors import ConfigError

KERNELS = ("xla", "chunked", "splash")
"""Kernels whose queries may be a part of the row that the keys are."""


def attend_across(
    kernel: str, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Attend where the mesh in scope splits the length of rows.

    Args:
        kernel: One of :data:`KERNELS`.
        q: Queries [B, T, N, H].
        k: Keys [B, T, K, H].
        v: Values [B, T, K, H].
        segment_ids: Segment of each token [B, T].
        interpret: See :func:`alpacare_jax.attention.splash.attend_splash`.

    Raises:
        ConfigError: The kernel does not support a split length.
    """
    if kernel not in KERNELS:
        raise ConfigError(
            "the attention kernel does not split the length of rows",
            where="compute.attention",
            found=kernel,
            expected=", ".join(KERNELS),
        )
    shards, length = sharding.shards_of("length"), q.shape[1]
    balanced = is_balanced(kernel, length, shards)
    places = places_of_queries(length, shards, balanced)
    prepared, prepared_spec = None, None
    if kernel == "splash":
        prepared = splash.make_kernel(
            places, q.shape[2] // sharding.shards_of("heads"), shards=shards, interpret=interpret
        )
        mesh = jax.sharding.get_abstract_mesh()
        prepared_spec = prepared.manual_sharding_spec(NamedSharding(mesh, sharding.spec((None, "length"))))
    axis = sharding.RULES["length"]

    def body(
        prepared: Any, places: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array
    ) -> Any:
        k, v = (collectives.gather(x, axis, 1) for x in (k, v))
        all_ids = lax.all_gather(ids, axis, axis=1, tiled=True)
        if balanced:
            q, ids = exchange(q, axis, shards), exchange(ids, axis, shards)
        if kernel == "splash":
            out = splash.run_kernel(prepared, q, k, v, ids, all_ids)
        else:
            mask = SegmentMask(ids, all_ids, places, jnp.arange(length, dtype=jnp.int32))
            out = (
                attend_chunked(q, k, v, mask) if kernel == "chunked" else attend_masked(q, k, v, mask.dense())
            )
        return exchange_back(out, axis, shards) if balanced else out

    queries = sharding.spec(("batch", "length", "heads", None))
    keys = sharding.spec(("batch", "length", "kv_heads", None))
    rows = sharding.spec(("batch", "length"))
    run = jax.shard_map(
        body,
        in_specs=(prepared_spec, sharding.spec(("length",)), queries, keys, keys, rows),
        out_specs=queries,
        check_vma=False,
    )
    return run(prepared, jnp.asarray(places), q, k, v, segment_ids)


def is_balanced(kernel: str, length: int, shards: int) -> bool:
    """Say whether devices exchange queries: plain attention scores all keys anyway, and blocks must not be cut."""
    unit = splash.LANES if kernel == "splash" else 1
    return kernel != "xla" and length % (2 * shards * unit) == 0


def places_of_queries(length: int, shards: int, balanced: bool) -> np.ndarray:
    """Return the place in the row of each query, device after device.

    Example:
        >>> places_of_queries(8, 2, balanced=True)
        array([0, 1, 6, 7, 2, 3, 4, 5], dtype=int32)
    """
    places = np.arange(length, dtype=np.int32)
    if not balanced:
        return places
    pieces = places.reshape(2 * shards, -1)
    return np.concatenate([pieces[[device, 2 * shards - 1 - device]].ravel() for device in range(shards)])


def _routes(shards: int) -> list[list[tuple[int, int]]]:
    """Return, for the first and the second half of each device's queries, from where to where they go.

    Device d holds pieces 2d and 2d + 1 of 2 x shards; piece p belongs to device p, counted back from the end where
    there are no more devices. Each half's routes reach every device once.
    """
    return [
        [(device, min(2 * device + half, 2 * shards - 1 - 2 * device - half)) for device in range(shards)]
        for half in (0, 1)
    ]


def exchange(x: jax.Array, axis: Any, shards: int) -> jax.Array:
    """Deal the pieces of axis 1 out so that each device holds one from the front and the matching one from the end."""
    halves = jnp.split(x, 2, axis=1)
    first, second = (
        lax.ppermute(half, axis, route) for half, route in zip(halves, _routes(shards), strict=True)
    )
    return jnp.concatenate(_swapped(first, second, axis), axis=1)


def exchange_back(x: jax.Array, axis: Any, shards: int) -> jax.Array:
    """Undo :func:`exchange`."""
    front, end = jnp.split(x, 2, axis=1)
    halves = _swapped(front, end, axis)
    returned = [
        lax.ppermute(half, axis, [(there, here) for here, there in route])
        for half, route in zip(halves, _routes(shards), strict=True)
    ]
    return jnp.concatenate(returned, axis=1)


def _swapped(first: jax.Array, second: jax.Array, axis: Any) -> tuple[jax.Array, jax.Array]:
    """Swap two halves on odd devices: what arrives there as a first half is the piece from the end."""
    odd = lax.axis_index(axis) % 2 == 1
    return jnp.where(odd, second, first), jnp.where(odd, first, second)
