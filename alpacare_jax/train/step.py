"""The state of a run and the one jitted, donated step that moves it on."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from alpacare_jax import collectives, optim, sharding
from alpacare_jax.adapters import AdapterConfig, Partition
from alpacare_jax.data.packing import COLUMNS
from alpacare_jax.loss import Batch, loss_sum, supervised_tokens
from alpacare_jax.model import Architecture, Llama, Params
from alpacare_jax.model.llama import split_microbatches
from alpacare_jax.train.guard import GuardConfig, GuardState
from alpacare_jax.train.inputs import second_moments
from alpacare_jax.train.noise import neftune, row_keys


class TrainState(flax.struct.PyTreeNode):
    """The state of a run: parameters, optimiser state and step.

    Args:
        params: What is trained.
        optimizer: The optimiser's state.
        step: Steps taken, int32.
        frozen: Parameters that the step hands on unchanged; empty where everything is trained.
        guard: What the guard remembers; None where there is none.
    """

    params: Params
    optimizer: Any
    step: jax.Array
    frozen: Params = flax.struct.field(default_factory=dict)
    guard: GuardState | None = None


StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
"""State and batch -> next state and metrics; the state is donated, but for what is frozen."""


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A jitted or compiled step. Frozen parameters are an argument of their own, since they are read and not donated.

    Args:
        program: State without them, frozen parameters and batch -> next state without them, and metrics.
    """

    program: Any

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """Take a step."""
        after, metrics = self.program(state.replace(frozen={}), state.frozen, batch)
        return after.replace(frozen=state.frozen), metrics

    def trace(self, state: TrainState, batch: Any) -> Any:
        """Trace the step, as that of :func:`jax.jit`."""
        return self.program.trace(state.replace(frozen={}), state.frozen, batch)


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The training step of a run, with everything that does not change during the run.

    Args:
        architecture: The model without values.
        optimizer: The gradient transformation.
        schedule: Learning rate by step, for the log.
        mesh: The devices.
        microbatches: Into how many parts a batch is split, one after another, to save memory.
        rounding: How parameters in bfloat16 take an update, "nearest" or "stochastic".
        adapter: What is trained beside the model; kind "none" trains the model itself.
        freeze: Patterns of the parameters that keep their values.
        neftune_alpha: Strength of the noise on embeddings; 0 for none.
        guard: What happens at a gradient that is not finite or far too large.
        seed: Of what a run draws besides its data: the adapters' first values, dropout, noise, rounding.
    """

    architecture: Architecture
    optimizer: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    mesh: Mesh
    microbatches: int = 1
    rounding: str = "nearest"
    adapter: AdapterConfig = AdapterConfig()
    freeze: Sequence[str] = ()
    neftune_alpha: float = 0.0
    guard: GuardConfig = GuardConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.partition, "made here, so that what does not fit is refused before a run writes anything"

    @functools.cached_property
    def partition(self) -> Partition:
        """The partition into trained and frozen parameters."""
        return Partition(self.architecture, self.adapter, self.freeze)

    def abstract_state(self) -> TrainState:
        """Return the state as shape structs with shardings."""
        params, frozen = self.partition.abstract_on(self.mesh)
        rest = jax.eval_shape(self._begin, params)
        whole = functools.partial(jax.ShapeDtypeStruct, sharding=sharding.replicated(self.mesh))
        step, guard = jax.tree.map(lambda leaf: whole(leaf.shape, leaf.dtype), (rest.step, rest.guard))
        moments = optim.place_state(rest.optimizer, params, self.mesh)
        return TrainState(params, moments, step, frozen, guard)

    def start(self, params: Params, batches: Iterable[Batch] = ()) -> TrainState:
        """Return the state before the first step, the optimiser's part made where it belongs.

        Args:
            params: The model's parameters; not to be used afterwards.
            batches: Rows that adapters which start as the residual of quantising are fitted to.
        """
        moments = None
        if self.adapter.start == "residual":
            places = self.partition.abstract_moments(self.mesh)
            moments = second_moments(self.partition.base, params, batches, places)
        trained, frozen = self.partition.split(params, self.seed, self.mesh, moments)
        places = sharding.shardings_of(self.abstract_state().replace(frozen={}))
        return jax.jit(self._begin, out_shardings=places, donate_argnums=0)(trained).replace(frozen=frozen)

    def _begin(self, params: Params) -> TrainState:
        guard = self.guard.start() if self.guard.on else None
        return TrainState(params, self.optimizer.init(params), jnp.int32(0), guard=guard)

    def saved(self, state: TrainState) -> dict[str, Any]:
        """Return what a checkpoint keeps: the whole model or adapters without their base, and all else by name."""
        return _kept(state, self.partition.saved(state.params, state.frozen))

    def abstract_saved(self, guard: GuardConfig | None = None) -> dict[str, Any]:
        """Return what a checkpoint keeps, as shape structs with shardings.

        Args:
            guard: The guard of the run that wrote it; this one's when None.
        """
        writer = self if guard is None else dataclasses.replace(self, guard=guard)
        return _kept(writer.abstract_state(), self.partition.abstract_saved(self.mesh))

    def resume(self, saved: dict[str, Any], base: Callable[[], Params]) -> TrainState:
        """Return the state that goes on from a checkpoint.

        Args:
            saved: What was kept of a state, read onto the shardings of :meth:`abstract_saved`. Where the guard was
                another, or none, it begins anew.
            base: Gives the parameters the run started from; called only where a checkpoint lacks the frozen ones.
        """
        if self.adapter.on:
            trained, frozen = saved["params"], self.partition.freeze_base(base(), self.mesh)
        else:
            trained, frozen = self.partition.split(saved["params"], self.seed, self.mesh)
        guard = saved.get("guard") if self.guard.on else None
        if self.guard.on and (guard is None or guard["norms"].shape != (self.guard.window,)):
            begin = functools.partial(self.guard.start, guard)
            guard = jax.jit(begin, out_shardings=sharding.replicated(self.mesh))()
        return TrainState(trained, saved["optimizer"], saved["step"], frozen, guard)

    def model_params(self, state: TrainState) -> Params:
        """Return the parameters that the state's model computes with, for :meth:`Architecture.model`."""
        return self.partition.join(state.params, state.frozen)

    def compile_step(self) -> StepProgram:
        """Return the jitted step: state and batch -> next state and metrics.

        The state is donated, but for what is frozen. Metrics, each a scalar: ``loss`` (nats per supervised token),
        ``supervised_tokens``, ``tokens`` (without padding), ``fill`` (their share of the slots), ``grad_norm`` (before
        clipping) and ``learning_rate`` of this step; with a guard also ``sound`` (1 or 0), ``norm_median`` (of the
        steps before), ``skipped`` and ``skipped_in_a_row``.
        """
        places = sharding.shardings_of(self.abstract_state().replace(frozen={}))
        whole = sharding.replicated(self.mesh)
        return StepProgram(jax.jit(self._step, donate_argnums=0, out_shardings=(places, whole)))

    def trace(self, rows: int, length: int) -> Any:
        """Trace the step for a batch of rows of a length, neither of them here yet; to be lowered and compiled."""
        places = sharding.batch_sharding(self.mesh)
        batch = dict.fromkeys(COLUMNS, jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=places))
        return self.compile_step().trace(self.abstract_state(), batch)

    def loss_and_grads(
        self, params: Params, batch: Batch, frozen: Params | None = None, step: jax.Array | None = None
    ) -> tuple[jax.Array, Params]:
        """Return the mean loss per supervised token over the whole batch, and its gradients by what is trained.

        Microbatches are summed and divided once, so their number does not change the result.

        Args:
            params: What is trained.
            batch: The whole batch.
            frozen: What is not.
            step: Steps done before, to draw noise and dropout by; None for none of either.
        """
        tokens = jnp.maximum(supervised_tokens(batch), 1)
        if step is not None and (self.neftune_alpha or (self.adapter.on and self.adapter.dropout)):
            batch = {**batch, "keys": row_keys(self.seed, step, jnp.arange(batch["tokens"].shape[0]))}

        def summed(params: Params, part: Batch) -> jax.Array:
            return loss_sum(self._model(params, frozen or {}, part), part)

        params = self._differentiated(params)
        if self.microbatches == 1:
            loss, grads = jax.value_and_grad(summed)(params, batch)
        else:

            def add(carry: Any, part: Batch) -> tuple[Any, None]:
                found = jax.value_and_grad(summed)(params, part)
                return jax.tree.map(lambda total, x: total + x.astype(total.dtype), carry, found), None

            kept = self.architecture.compute.grad_dtype
            zeros = (jnp.float32(0), jax.tree.map(lambda x: jnp.zeros_like(x, kept), params))
            parts = jax.tree.map(lambda rows: split_microbatches(rows, self.microbatches), dict(batch))
            (loss, grads), _ = collectives.scan(add, zeros, parts)
        return loss / tokens, jax.tree.map(lambda grad: grad / tokens, grads)

    def _differentiated(self, params: Params) -> Params:
        """Return the parameters to differentiate by: gradients come out in their dtype.

        Matrices are cast to the compute dtype before every product anyway, so that this changes no loss; norm scales
        are used in fp32 and stay so.
        """
        if self.architecture.compute.grad_dtype == "float32" or self.adapter.on:
            return params
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x if str(path[-1].key) == "scale" else x.astype(jnp.bfloat16), params
        )

    def _model(self, params: Params, frozen: Params, part: Batch) -> Llama:
        keys = part.get("keys")
        model = self.architecture.model(self.partition.join(params, frozen, keys))
        if keys is not None and self.neftune_alpha:
            model.embedding_noise = neftune(self.neftune_alpha, keys, part["positions"], part["segment_ids"])
        return model

    def _step(
        self, state: TrainState, frozen: Params, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, grads = self.loss_and_grads(state.params, batch, frozen, state.step)
        updates, moments = self.optimizer.update(grads, state.optimizer, state.params)
        params = optim.apply_updates(
            state.params, updates, rounding=self.rounding, seed=self.seed, step=state.step
        )
        metrics = {
            "loss": loss,
            "supervised_tokens": supervised_tokens(batch),
            "tokens": (batch["segment_ids"] > 0).sum(),
            "fill": (batch["segment_ids"] > 0).mean(),
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(self.schedule(state.step), jnp.float32),
        }
        after = state.replace(params=params, optimizer=moments, step=state.step + 1)
        if state.guard is None:
            return after, metrics
        return self._guarded(state, after, metrics)

    def _guarded(
        self, state: TrainState, after: TrainState, metrics: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Return the state that a guarded step leads to, and its metrics with what the guard says of it."""
        before, norm = state.guard, metrics["grad_norm"]
        assert before is not None
        sound = self.guard.is_sound(before, metrics["loss"], norm)
        guard = self.guard.after(before, sound, norm)
        metrics |= {
            "sound": sound,
            "norm_median": self.guard.median(before),
            "skipped": guard["skipped"],
            "skipped_in_a_row": guard["in_a_row"],
        }
        if self.guard.action == "skip":
            # The optimiser counts the steps it took, so that the rate goes on from where it was.
            taken = state.step - before["skipped"]
            metrics["learning_rate"] = jnp.asarray(self.schedule(taken), jnp.float32)
            params, moments = jax.tree.map(
                lambda new, old: jnp.where(sound, new, old),
                (after.params, after.optimizer),
                (state.params, state.optimizer),
            )
            after = after.replace(params=params, optimizer=moments)
        return after.replace(guard=guard), metrics


def _kept(state: TrainState, params: Params) -> dict[str, Any]:
    guard = {} if state.guard is None else {"guard": state.guard}
    return {"params": params, "optimizer": state.optimizer, "step": state.step} | guard
