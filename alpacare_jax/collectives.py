"""Loops and sums over devices that also several processes on CPUs, joined by Gloo, carry out rightly.

Two things are wrong there (jaxlib 0.10), and neither with one process nor on GPUs and TPUs:

- XLA's CPU runtime starts collectives in the order of the program, but only *starts* a loop in its turn: what comes
  after it and does not need its results runs beside it. A gather of the projection then meets the gathers of the
  layers' loop, at another moment in every process; Gloo pairs messages by their order, and the run dies of "Received
  data size doesn't match expected size", or adds up what does not belong together where the sizes agree. Without a
  loop there is nothing to run beside: such loops are unrolled here.
- Gloo's reduce-scatter overwrites what it is still sending, so that large sums come out wrong now and then on the
  first process, silently. Here it is a sum of which every device takes its part.

Every loop whose body may communicate goes through :func:`scan` or :func:`repeat`, every reduce-scatter through
:func:`sum_scatter`, and every gather that gradients pass through :func:`gather`, whose gradient is one.

Source: ``xla/backends/cpu/runtime/while_thunk.cc`` and ``xla/runtime/execution_graph.h`` of XLA (scheduling edges),
and jax's issue 40830.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax


def over_gloo() -> bool:
    """Tell whether this process computes on CPUs together with others."""
    joined = jax.distributed.is_initialized()  # asked first: the others start the devices
    return joined and jax.process_count() > 1 and jax.default_backend() == "cpu"


def scan(step: Callable[[Any, Any], tuple[Any, Any]], start: Any, xs: Any) -> tuple[Any, Any]:
    """Run ``jax.lax.scan`` with a step in which devices may communicate.

    Args:
        step: From the carry and one slice to the next carry and one output.
        start: The first carry.
        xs: What is sliced along its first axis.
    """
    return jax.lax.scan(step, start, xs, unroll=over_gloo() or 1)


def repeat(times: int, step: Callable[[Any, Any], Any], start: Any) -> Any:
    """Run ``jax.lax.fori_loop`` from 0 with a step in which devices may communicate.

    Args:
        times: How often.
        step: From the number of the round and the carry to the next carry.
        start: The first carry.
    """
    return jax.lax.fori_loop(0, times, step, start, unroll=over_gloo() or None)


def sum_scatter(x: jax.Array, over: Hashable, dimension: int) -> jax.Array:
    """Sum over the devices of mesh axes, each keeping its own part along a dimension; within ``shard_map``."""
    if not over_gloo():
        return jax.lax.psum_scatter(x, over, scatter_dimension=dimension, tiled=True)
    size = x.shape[dimension] // jax.lax.axis_size(over)
    total = jax.lax.psum(x, over)
    return jax.lax.dynamic_slice_in_dim(total, jax.lax.axis_index(over) * size, size, dimension)


def gather(x: jax.Array, over: Hashable, dimension: int) -> jax.Array:
    """Join the parts that the devices of mesh axes hold along a dimension; within ``shard_map``."""
    if not over_gloo():
        return jax.lax.all_gather(x, over, axis=dimension, tiled=True)
    return _gather(x, over, dimension)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, over: Hashable, dimension: int) -> jax.Array:
    return jax.lax.all_gather(x, over, axis=dimension, tiled=True)


def _gather_forward(x: jax.Array, over: Hashable, dimension: int) -> tuple[jax.Array, None]:
    return _gather(x, over, dimension), None


def _gather_backward(over: Hashable, dimension: int, _: None, d_gathered: jax.Array) -> tuple[jax.Array]:
    return (sum_scatter(d_gathered, over, dimension),)


_gather.defvjp(_gather_forward, _gather_backward)
