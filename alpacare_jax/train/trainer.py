"""Training, from top to bottom.

Where a run starts, in this order:

1. its own latest checkpoint, when the run folder has one (resume);
2. else the weights of the model it was given: an existing model, or random weights.
"""

import contextlib
import dataclasses
import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alpacare_jax import checkpoint, convert, sharding
from alpacare_jax.adapters import merge
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.loader import Batch, BatchStream, batches_in_order
from alpacare_jax.data.packing import PackedSequence
from alpacare_jax.errors import ConfigError
from alpacare_jax.hardware.chips import chip_of
from alpacare_jax.loss.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, ComputeConfig, Params
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.startup import StartupTimer
from alpacare_jax.train.announcement import announce, shown
from alpacare_jax.train.callbacks import Callback, JsonLines, TensorBoard, tell
from alpacare_jax.train.config import RunConfig, TrainConfig
from alpacare_jax.train.data_checks import check_rows, check_vocabulary, record_ends
from alpacare_jax.train.guard import GuardConfig
from alpacare_jax.train.inputs import first_batches, place_batch
from alpacare_jax.train.interruption import StopRequest, between_steps
from alpacare_jax.train.kernels import select_attention
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.program import begin_to_compile
from alpacare_jax.train.recorder import Recorder, Throughput
from alpacare_jax.train.resume import check_same_base, check_unchanged, progress_of
from alpacare_jax.train.run_folder import check_run_folder, describe, write_run_folder, write_summary
from alpacare_jax.train.start import find_start
from alpacare_jax.train.step import StepFunction, TrainState
from datagen.configuration import to_yaml
from datagen.files import write_text

if TYPE_CHECKING:
    from alpacare_jax.language_model import LanguageModel

logger = logging.getLogger("alpacare.train")


class Trainer:
    """Trains a model on packed rows. Nothing that is given in is changed or consumed.

    Args:
        model: The model to start from; or one that was found and not read yet, which needs ``mesh``.
        data: The training rows.
        config: What is learnt, and how.
        validation: Rows to measure the loss on before the first step and as ``validate_every`` says.
        out: The run folder, for checkpoints and figures; a run that already stands there is resumed. None keeps the
            run in memory.
        callbacks: Told of steps, validations and checkpoints, see :mod:`alpacare_jax.train.callbacks`.
        accept_changes: Resume although the configuration differs from the one the run was started with.
        profile_steps: The steps to write a trace of, ``first:last``; None for none.
        mesh: The devices; those of ``model`` when None.
        timer: Takes the times of the start.

    Raises:
        UserError: Something in the configuration, the data, the model or the folder does not fit.

    Example:
        >>> trainer = Trainer(model, data, TrainConfig(steps=2, batch_size=8, lora=LoRA(rank=16)), out="runs/b")
        >>> trainer.train()
        >>> trainer.model.generate("Name a sign of fever.", max_tokens=16)
    """

    def __init__(
        self,
        model: "LanguageModel | convert.FoundModel",
        data: PackedDataset | Sequence[PackedSequence],
        config: TrainConfig | RunConfig,
        *,
        validation: PackedDataset | Sequence[PackedSequence] | None = None,
        out: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
        accept_changes: bool = False,
        profile_steps: str | None = None,
        mesh: Mesh | None = None,
        timer: StartupTimer | None = None,
    ) -> None:
        self.timer = StartupTimer() if timer is None else timer
        self.out = None if out is None else Path(out)
        self.data = data if isinstance(data, PackedDataset) else PackedDataset.from_sequences(data)
        self.validation = (
            validation
            if validation is None or isinstance(validation, PackedDataset)
            else PackedDataset.from_sequences(validation)
        )
        if isinstance(model, convert.FoundModel):
            self._start, self.mesh, dtype = model, sharding.resolve_mesh(mesh), "float32"
        else:
            self._start, self.mesh, dtype = model.found(), mesh or model.mesh, model.compute.dtype
        if isinstance(config, TrainConfig):
            config = RunConfig.of(
                config,
                dtype=dtype,
                init=self._start.reference or self._start.name,
                mesh=self.mesh,
                data=self.data,
                validation=self.validation,
                out=self.out,
            )
        self.config, self.callbacks, self._accept_changes = config, tuple(callbacks), accept_changes
        self.profile = self._read_profile(profile_steps)
        for rows in (self.data, self.validation):
            if rows is not None:
                check_rows(config, rows, self.mesh)
        if self.out is not None:
            check_run_folder(self.out)
            self._check_base_is_known()
        self.taken, self.position = 0, 0
        self._first = jax.process_index() == 0
        self._state: TrainState | None = None
        self._checkpoints: checkpoint.RunCheckpoints | None = None
        self._held: contextlib.ExitStack | None = None
        self._current: LanguageModel | None = None  # until the next step

    @classmethod
    def from_config(
        cls,
        config: RunConfig,
        *,
        callbacks: Sequence[Callback] = (),
        accept_changes: bool = False,
        profile_steps: str | None = None,
        timer: StartupTimer | None = None,
    ) -> Self:
        """Return the trainer of the run that a configuration describes, or resumes.

        Args:
            config: The run, as :func:`alpacare_jax.train.load_config` reads it.
            callbacks: As for the class.
            accept_changes: As for the class.
            profile_steps: As for the class.
            timer: Takes the times of the start; those before this call may stand in it.

        Raises:
            UserError: Something in the configuration, the data, the model or the mesh does not fit.
        """
        timer = StartupTimer() if timer is None else timer
        with timer.time("devices"):
            mesh = sharding.make_mesh(config.mesh)
        with timer.time("data"):
            data = PackedDataset.open(config.train_data)
            held_out = PackedDataset.open(config.validation_data) if config.validation_data else None
        with timer.time("model"):
            start = find_start(config)
        return cls(
            start,
            data,
            config,
            validation=held_out,
            out=config.out,
            callbacks=callbacks,
            accept_changes=accept_changes,
            profile_steps=profile_steps,
            mesh=mesh,
            timer=timer,
        )

    # -- what callers do ------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train to the last step, which is also the last checkpoint; a finished run is left as it is.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the step that was under way is finished and, with a run
                folder, kept.
            TrainingError: The loss is not finite; the message names the step and the rows of its batch.
        """
        began = time.monotonic()
        with shown(), self._claimed():
            self._prepare()
            if self.taken < self.schedule.steps:
                self._current = None
                with self._writers() as writers, sharding.use_mesh(self.mesh):
                    self._loop((*writers, *self.callbacks) if self._first else ())
            if self.out is not None and self._first:
                write_summary(self.out, self.taken, time.monotonic() - began)

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take one step on a batch of your own, for a loop of your own; nothing is written.

        Args:
            batch: ``tokens``, ``segment_ids``, ``positions`` and ``loss_mask``, integers [B, T] each.

        Returns:
            ``loss``, ``grad_norm``, ``learning_rate``, ``supervised_tokens``, ``tokens`` and ``fill`` of the step.

        Raises:
            DataError: The batch lacks one of these, or they differ in shape.
            ShardingError: Devices and microbatches do not divide it.
        """
        self._ready()
        placed = place_batch(batch, self.mesh, self.train_step.microbatches)
        rows, length = placed["tokens"].shape
        with sharding.use_mesh(self.mesh):
            usual = (rows, length) == (self.schedule.batch_rows, self.data.row_length)
            take = self._program() if usual and self._program is not None else self._any_step
            self._state, metrics = take(self.state, placed)
        self.taken, self.position, self._current = self.taken + 1, self.position + rows, None
        return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of the training rows from where the run stands, endlessly, to give to :meth:`step`."""
        self._ready()
        stream = self._stream()
        try:
            for batch, _ in stream:
                yield batch
        finally:
            stream.close()

    def save(self) -> None:
        """Write a checkpoint of the state as it is; :meth:`train` does so by itself.

        Raises:
            ConfigError: The run has no folder.
        """
        if self.out is None:
            raise ConfigError("a run without a folder cannot be saved", where="out", remedy="give `out`")
        with self._claimed():
            self._prepare()
            self._save(self.callbacks if self._first else ())
            self._store().wait()

    @property
    def state(self) -> TrainState:
        """Parameters, optimiser state and step as they are now; the next step consumes them."""
        self._ready()
        assert self._state is not None
        return self._state

    @property
    def model(self) -> "LanguageModel":
        """The model as it is now: a copy of the weights, adapters merged, which later steps do not change."""
        from alpacare_jax.language_model import LanguageModel

        self._ready()
        if self._current is None:
            with sharding.use_mesh(self.mesh):
                found = dataclasses.replace(self._start, read=lambda *_: {}, reference=None)
                found = dataclasses.replace(found, **self._assets())
                params, used = self._whole_params(), self.resolved.compute
            loaded = LanguageModel.of(found, params, self.mesh, ComputeConfig(precision=used.precision))
            compute = dataclasses.replace(loaded.compute, dtype=used.dtype)
            self._current = dataclasses.replace(loaded, compute=compute)
        return self._current

    # -- the start ------------------------------------------------------------------------------------------

    def _read_profile(self, steps: str | None) -> Profile | None:
        if steps is None:
            return None
        if self.out is None:
            raise ConfigError("a trace needs a run folder", where="profile_steps", remedy="give `out`")
        return Profile.parse(steps, self.out / "profile")

    def _check_base_is_known(self) -> None:
        """Refuse to keep adapters whose base nothing could load again."""
        known = self._start.reference is not None or self._start.origin.get("format") == "random"
        if self.config.adapter.on and not known:
            raise ConfigError(
                "the base of the adapters lies in memory alone, so that a run folder could not name it",
                where="model",
                remedy="save it with save_pretrained and load that folder, or leave `out` out",
            )

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[None]:
        """Hold the run folder against other writers; what is opened meanwhile is closed at the end."""
        with contextlib.ExitStack() as self._held:
            if self.out is not None:
                self._held.enter_context(checkpoint.claimed(self.out.resolve(), self.out))
            try:
                yield
            finally:
                self._checkpoints = None

    def _store(self) -> checkpoint.RunCheckpoints:
        assert self.out is not None
        assert self._held is not None, "the folder is claimed first"
        if self._checkpoints is None:
            kept = self.config.train.keep_checkpoints
            with self.timer.time("folder"):
                self._checkpoints = self._held.enter_context(
                    checkpoint.RunCheckpoints(self.out / "checkpoints", keep=kept)
                )
        return self._checkpoints

    def _ready(self) -> None:
        if self._state is None:
            with shown(), self._claimed():
                self._prepare()

    def _prepare(self) -> None:
        """Do what stands before the first step: check, compile, read the weights, make run folder and state."""
        if self._state is not None:
            return
        config, timer, mesh, start = self.config, self.timer, self.mesh, self._start
        if self.out is not None:
            with timer.time("checkpoint"):
                checkpoint.put_damaged_aside(self.out)
        progress = None if self.out is None else progress_of(self.out)
        statistics, shards = self.data.manifest.statistics, sharding.batch_shards(mesh)
        loop = config.train.for_data(statistics, shards, progress)
        self.schedule = loop.schedule(statistics, shards, progress)
        with timer.time("model"):
            check_vocabulary(start.hf_folder, start.config, self.data)
        Architecture(start.config, config.compute).check_mesh(mesh)
        with timer.time("attention"):
            compute = select_attention(config.compute, start.config, self.data, mesh)
        self.resolved = dataclasses.replace(config, compute=compute, train=loop)
        self.train_step = self.resolved.train_step(start.config, self.schedule.steps, mesh)
        self._program: Callable[[], StepFunction] | None = None
        if progress is None or progress.step < self.schedule.steps:
            self._program = begin_to_compile(
                self.train_step, self.schedule, self.data.row_length, timer, resuming=progress is not None
            )
        adapter, param_dtype = config.adapter, config.compute.param_dtype
        opened = adapter.base_dtype(config.compute.dtype) if adapter.on else param_dtype
        params = functools.cache(lambda: start.read(mesh, opened))
        if self.out is not None:
            self._store()
        if progress is None or adapter.on:
            with timer.time("weights"):
                # A base is marked, or compared with its mark, before anything is trained; and a run whose weights or
                # step cannot be had leaves no folder behind.
                params()
        if progress is None and self._program is not None:
            with timer.time("waiting"):
                self._program()  # what does not fit is refused before the optimiser takes memory
        self.metadata = describe(config, self.schedule, self.data)
        if self.out is not None:
            self._enter_folder(self.out, params, progress is not None)
        if self._first:
            announce(config, start.config, self.schedule, self.train_step, self.data.row_length)
        with sharding.use_mesh(mesh):
            if progress is not None:
                self._resume(progress.step, params)
                return
            with timer.time("state"):
                rows, at_once = adapter.start_rows, self.schedule.batch_rows // loop.microbatches
                first = first_batches(self.data, loop.seed, mesh, rows=rows, at_once=at_once)
                self._state = self.train_step.start(params(), first)

    def _enter_folder(self, out: Path, params: Callable[[], Params], resuming: bool) -> None:
        """Make the folder that of this run, or check that it is."""
        with self.timer.time("folder"):
            if not resuming:
                base = params() if self.config.adapter.on else {}
                write_run_folder(out, self._start, base, self.config, self.mesh)
            else:
                saved = self._store().metadata(checkpoint.steps_of(out)[-1])
                check_unchanged(saved, self.metadata, out, accepted=self._accept_changes)
                if self.config.adapter.on:
                    check_same_base(out, self._start.config, params(), self.mesh)
        if self._first:
            record_ends(out / "hf", self.data.manifest.end_ids)
            write_text(out / "config.yaml", to_yaml(self.config))

    def _resume(self, step: int, base: Callable[[], Params]) -> None:
        metadata = self._store().metadata(step)
        guard = (
            metadata.get("config", {}).get("train", {}).get("guard")
        )  # of the run that wrote the checkpoint
        with self.timer.time("checkpoint"):
            wanted = self.train_step.abstract_saved(None if guard is None else GuardConfig(**guard))
            saved = self._store().restore(step, wanted)
        with self.timer.time("state"):
            self._state = self.train_step.resume(saved, base)
        self.taken, self.position = step, int(metadata["position"])
        if self._first:
            logger.info("resuming after step %d, %s rows into the data", step, f"{self.position:,}")

    def _stream(self) -> BatchStream:
        """Return the batches that follow."""
        rows, seed, places = (
            self.schedule.batch_rows,
            self.config.train.seed,
            sharding.batch_sharding(self.mesh),
        )
        return BatchStream(self.data, rows, seed, self.position, sharding=places)

    # -- the loop -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writers(self) -> Iterator[list[Callback]]:
        """Open the files of the run folder that figures go to."""
        if self.out is None or not self._first:
            yield []
            return
        lines = JsonLines(self.out / "metrics.jsonl", self.taken)
        with (
            contextlib.closing(lines),
            contextlib.closing(TensorBoard(self.out / "tensorboard", self.taken)) as board,
        ):
            yield [lines, board]

    def _loop(self, callbacks: Sequence[Callback]) -> None:
        with self.timer.time("rows"):
            stream = self._stream()
        try:
            with self.timer.time("waiting"):
                take_step = self._any_step if self._program is None else self._program()
                jax.block_until_ready(self._state)
            if self._first:
                logger.info("%s", self.timer)
            recorder = Recorder(
                self.resolved.train,
                self.schedule,
                callbacks,
                self._meter(),
                start_step=self.taken,
                speak=self._first,
            )
            if self.taken == 0:
                self._validate(recorder)
            self._steps(take_step, stream, recorder)
        finally:
            stream.close()

    def _steps(self, take_step: StepFunction, stream: BatchStream, recorder: Recorder) -> None:
        config, last = self.resolved.train, self.schedule.steps
        # Of several processes none can know at which step the others are told to stop.
        alone = jax.process_count() == 1
        tracing = self.profile.tracing() if self.profile else contextlib.nullcontext()
        with tracing, between_steps() if alone else contextlib.nullcontext(StopRequest()) as stop:
            while self.taken < last:
                if self.profile:
                    self.profile.before(self.taken + 1)
                batch, self.position = next(stream)
                self._state, metrics = take_step(self.state, batch)
                self.taken += 1
                if self.profile:
                    self.profile.after(self.taken, metrics)
                # The figures of the step before are read while this one runs, so that the device never waits.
                recorder.finish()
                recorder.begin(self.taken, metrics, stream, self.position)
                save = stop.asked or is_due(self.taken, last, config.checkpoint_every)
                due = not stop.asked and is_due(self.taken, last, config.validate_every)
                if save or due:
                    recorder.finish()
                if save and self.out is not None:
                    recorder.saved(self._save(recorder.callbacks))
                if due:
                    self._validate(recorder)
                if stop.asked and self.taken < last:
                    if self.out is not None:
                        self._store().wait()
                    again = "train() goes on" if self.out is None else "the same command goes on"
                    logger.info("stopped after step %d; %s from there", self.taken, again)
                    raise KeyboardInterrupt
        if self.out is not None:
            self._store().wait()

    def _save(self, callbacks: Sequence[Callback]) -> float:
        """Begin to write a checkpoint; return the seconds until the state may be overwritten."""
        started = time.perf_counter()
        saved, metadata = self.train_step.saved(self.state), self.metadata | {"position": self.position}
        self._store().save(self.taken, saved, metadata)
        tell(callbacks, "on_save", self.taken, self._store().folder / str(self.taken))
        return time.perf_counter() - started

    def _validate(self, recorder: Recorder) -> None:
        if self._evaluate is not None:
            recorder.validated(self.taken, self._evaluate(self.train_step.model_params(self.state)))

    @functools.cached_property
    def _evaluate(self) -> Callable[[Params], Mapping[str, float | int]] | None:
        held_out = self.validation
        if held_out is None:
            return None
        shards = sharding.batch_shards(self.mesh)
        rows, places = shards * max(1, 4 // shards), sharding.batch_sharding(self.mesh)
        architecture = self.train_step.architecture
        return heldout_evaluator(
            architecture,
            lambda: batches_in_order(held_out, rows, sharding=places, pad_id=held_out.pad_id),
            self.mesh,
        )

    @functools.cached_property
    def _any_step(self) -> StepFunction:
        """The step for batches of any size, compiled when it is first taken."""
        return self.train_step.compile_step()

    def _meter(self) -> Throughput:
        chip = chip_of(self.mesh.devices.flat[0].device_kind)
        peak = chip.bf16_flops if chip and self.config.compute.dtype == "bfloat16" else None
        trained = not self.config.adapter.on
        flops = flops_per_row(self._start.config, self.data.row_length, trained=trained)
        return Throughput(flops, self.mesh.size, peak)

    # -- the model ------------------------------------------------------------------------------------------

    def _whole_params(self) -> Params:
        """Return the model's parameters as they are now, copied, adapters merged into their base."""
        joined, train_step = self.train_step.model_params(self.state), self.train_step
        if self.config.adapter.on:
            base = train_step.partition.base
            joined = merge(joined, base.compute.param_dtype, base.shardings(self.mesh))
        return jax.tree.map(jnp.copy, joined)

    def _assets(self) -> dict[str, Any]:
        """Return the folder of tokenizer and configs whose generation config names the ends that were taught."""
        if self.out is not None:
            return {"hf_folder": self.out / "hf", "name": self.out.resolve().name}
        if not self.data.manifest.end_ids:
            return {}
        held = tempfile.TemporaryDirectory(prefix="alpacare-model-")  # removed with the model
        checkpoint.copy_config_files(self._start.hf_folder, Path(held.name))
        record_ends(Path(held.name), self.data.manifest.end_ids)
        return {"hf_folder": Path(held.name), "_keeps": held}


def is_due(step: int, last: int, every: int) -> bool:
    """Say whether something that happens every so many steps, and at the last one, happens now."""
    return step == last or (every > 0 and step % every == 0)
