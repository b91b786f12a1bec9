"""The state of a run and the one jitted, donated step that moves it on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from alpacare_jax import optim, sharding
from alpacare_jax.loss import Batch, loss_sum, supervised_tokens
from alpacare_jax.model import Architecture, Params

TrainState = dict[str, Any]
"""``{"params": nested dict, "optimizer": optax state, "step": int32 scalar}``"""


@dataclasses.dataclass(frozen=True)
class Stepper:
    """What does not change during a run, and the functions made from it.

    Args:
        architecture: The model without values.
        optimizer: The gradient transformation.
        schedule: Learning rate by step, for the log.
        mesh: The devices.
        microbatches: Into how many parts a batch is split, one after another, to save memory.
    """

    architecture: Architecture
    optimizer: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    mesh: Mesh
    microbatches: int = 1

    def abstract_state(self) -> TrainState:
        """Return the state as shape structs with shardings, as a restore wants it."""
        params = self.architecture.abstract_on(self.mesh)
        where = optim.state_shardings(
            self.optimizer, params, self.architecture.shardings(self.mesh), self.mesh
        )
        moments = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            jax.eval_shape(self.optimizer.init, params),
            where,
        )
        step = jax.ShapeDtypeStruct((), jnp.int32, sharding=sharding.replicated(self.mesh))
        return {"params": params, "optimizer": moments, "step": step}

    def start(self, params: Params) -> TrainState:
        """Return the state before the first step, the optimiser's part made where it belongs."""
        places = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state())

        def begin(params: Params) -> TrainState:
            return {"params": params, "optimizer": self.optimizer.init(params), "step": jnp.int32(0)}

        return jax.jit(begin, out_shardings=places, donate_argnums=0)(params)

    def compile_step(self) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
        """Return the jitted step: state and batch -> next state and metrics.

        The state is donated. Metrics, each a scalar: ``loss`` (nats per supervised token), ``supervised_tokens``,
        ``tokens`` (without padding), ``fill`` (their share of the slots), ``grad_norm`` (before clipping) and
        ``learning_rate`` of this step.
        """
        places = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state())
        return jax.jit(self._step, donate_argnums=0, out_shardings=(places, sharding.replicated(self.mesh)))

    def loss_and_grads(self, params: Params, batch: Batch) -> tuple[jax.Array, Params]:
        """Return the mean loss per supervised token over the whole batch, and its gradients.

        Microbatches are summed and divided once, so their number does not change the result.
        """
        tokens = jnp.maximum(supervised_tokens(batch), 1)

        def summed(params: Params, part: Batch) -> jax.Array:
            return loss_sum(self.architecture.model(params), part)

        if self.microbatches == 1:
            loss, grads = jax.value_and_grad(summed)(params, batch)
        else:

            def add(carry: Any, part: Batch) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, carry, jax.value_and_grad(summed)(params, part)), None

            zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
            (loss, grads), _ = jax.lax.scan(add, zeros, split_rows(batch, self.microbatches))
        return loss / tokens, jax.tree.map(lambda grad: grad / tokens, grads)

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, grads = self.loss_and_grads(state["params"], batch)
        updates, moments = self.optimizer.update(grads, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        metrics = {
            "loss": loss,
            "supervised_tokens": supervised_tokens(batch),
            "tokens": (batch["segment_ids"] > 0).sum(),
            "fill": (batch["segment_ids"] > 0).mean(),
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(self.schedule(state["step"]), jnp.float32),
        }
        return {"params": params, "optimizer": moments, "step": state["step"] + 1}, metrics


def split_rows(batch: Batch, parts: int) -> Batch:
    """Deal a batch's rows out to ``parts`` microbatches in turn, so that every device keeps its own rows.

    Returns:
        Arrays of shape [parts, B / parts, T].
    """
    return jax.tree.map(
        lambda rows: jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0), dict(batch)
    )
