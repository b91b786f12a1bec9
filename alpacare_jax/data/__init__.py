"""From instructions to packed rows on disk, and from there to batches on the mesh."""
