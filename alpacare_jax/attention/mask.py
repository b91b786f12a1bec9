"""Which keys a query may see: those of its own segment that stand at or before its place in the row."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentMask:
    """Segments and places of queries and keys, which may be different parts of one row.

    Args:
        query_segments_BT: Segment of each query.
        key_segments_BS: Segment of each key.
        query_places_T: Where in the row each query stands, the same for all rows.
        key_places_S: Where in the row each key stands.

    Example:
        The second half of the row ``[1 1 2 2]``, as queries that see the whole row:
        ``SegmentMask([[2 2]], [[1 1 2 2]], [2 3], [0 1 2 3])`` has the mask ``0010 / 0011``.
    """

    query_segments_BT: Int[Array, "B T"]
    key_segments_BS: Int[Array, "B S"]
    query_places_T: Int[Array, " T"]
    key_places_S: Int[Array, " S"]

    @classmethod
    def whole(cls, segment_ids_BT: Int[Array, "B T"]) -> "SegmentMask":
        """Describe whole rows, whose tokens are queries and keys alike."""
        places_T = jnp.arange(segment_ids_BT.shape[1], dtype=jnp.int32)
        return cls(segment_ids_BT, segment_ids_BT, places_T, places_T)

    def dense(self) -> Bool[Array, "B T S"]:
        """Return True where a query may see a key."""
        same_BTS = self.query_segments_BT[:, :, None] == self.key_segments_BS[:, None, :]
        return same_BTS & (self.query_places_T[:, None] >= self.key_places_S[None, :])[None]
