"""Training, from top to bottom.

A run starts from its own latest checkpoint where the run folder has one (resume), else from the weights of the model
that it was given: an existing model, or random weights.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
from jax.sharding import Mesh

from alpacare_jax import convert, sharding
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.loader import Batch, BatchStream
from alpacare_jax.data.packing import PackedSequence
from alpacare_jax.errors import ConfigError
from alpacare_jax.loss.heldout import heldout_evaluator
from alpacare_jax.model import Architecture, Params
from alpacare_jax.model.flops import flops_per_row
from alpacare_jax.startup import StartupTimer
from alpacare_jax.train.announcement import announce, shown
from alpacare_jax.train.callbacks import Callback, tell
from alpacare_jax.train.config import RunConfig, TrainConfig
from alpacare_jax.train.data_checks import check_rows, check_vocabulary
from alpacare_jax.train.guard import GuardConfig
from alpacare_jax.train.inputs import first_batches, place_batch
from alpacare_jax.train.interruption import StopRequest, between_steps
from alpacare_jax.train.kernels import select_attention
from alpacare_jax.train.profile import Profile
from alpacare_jax.train.program import begin_to_compile
from alpacare_jax.train.recorder import Recorder, Throughput
from alpacare_jax.train.run_folder import RunFolder, describe
from alpacare_jax.train.settings import Progress, is_due
from alpacare_jax.train.snapshot import snapshot
from alpacare_jax.train.start import find_start
from alpacare_jax.train.step import StepFunction, TrainState

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
        callbacks: Told of steps, validations and checkpoints, see ``alpacare_jax.train.callbacks``.
        accept_changes: Resume although the configuration differs from the one the run was started with.
        profile_steps: The steps to write a trace of, ``first:last``; None for none.
        mesh: The devices; those of ``model`` when None.
        timer: Takes the times of the start.

    Raises:
        UserError: Something in the configuration, the data, the model or the folder does not fit.

    Examples:
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
        self.data, self.validation = _dataset(data), None if validation is None else _dataset(validation)
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
        if not isinstance(model, convert.FoundModel) and config.adapter.on and not config.adapter.quantized:
            self._start = model.found(shared=True)  # adapters leave their base as it is
        self.config, self.callbacks, self._accept_changes = config, tuple(callbacks), accept_changes
        self.profile = None if profile_steps is None else Profile.parse(profile_steps, self.out)
        for rows in (self.data, self.validation):
            if rows is not None:
                check_rows(config, rows, self.mesh)
        self.folder = None if self.out is None else RunFolder(self.out, config, self._start, self.timer)
        self.taken, self.position = 0, 0
        self._first = jax.process_index() == 0
        self._state: TrainState | None = None
        self._current: LanguageModel | None = None  # until the next step

    @classmethod
    def from_config(cls, config: RunConfig, *, timer: StartupTimer | None = None, **options: Any) -> Self:
        """Return the trainer of the run that a configuration describes, or resumes.

        Args:
            config: The run, as ``alpacare_jax.train.load_config`` reads it.
            timer: Takes the times of the start; those before this call may stand in it.
            **options: ``callbacks``, ``accept_changes`` and ``profile_steps``, as for the class.

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
            start, data, config, validation=held_out, out=config.out, mesh=mesh, timer=timer, **options
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
        with self._prepared():
            if self.taken < self.schedule.steps:
                self._current = None
                with contextlib.ExitStack() as opened, sharding.use_mesh(self.mesh):
                    writers: list[Callback] = []
                    if self.folder is not None and self._first:
                        writers = opened.enter_context(self.folder.writers(self.taken))
                    self._loop((*writers, *self.callbacks) if self._first else ())
            if self.folder is not None and self._first:
                self.folder.write_summary(self.taken, time.monotonic() - began)

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
        state = self.state
        placed = place_batch(batch, self.mesh, self.train_step.microbatches)
        rows, length = placed["tokens"].shape
        with sharding.use_mesh(self.mesh):
            usual = (rows, length) == (self.schedule.batch_rows, self.data.row_length)
            take = self._program() if usual and self._program is not None else self._any_step
            self._state, metrics = take(state, placed)
        self.taken, self.position, self._current = self.taken + 1, self.position + rows, None
        return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of the training rows from where the run stands, endlessly, to give to ``step``."""
        self._ready()
        with contextlib.closing(self._stream()) as stream:
            for batch, _ in stream:
                yield batch

    def save(self) -> None:
        """Write a checkpoint of the state as it is; ``train`` does so by itself.

        Raises:
            ConfigError: The run has no folder.
        """
        if self.folder is None:
            raise ConfigError("a run without a folder cannot be saved", where="out", remedy="give `out`")
        with self._prepared():
            self._save(self.folder, self.callbacks if self._first else ())
            self.folder.checkpoints.wait()

    @property
    def state(self) -> TrainState:
        """Parameters, optimiser state and step as they are now; the next step consumes them."""
        return self._ready()

    @property
    def model(self) -> "LanguageModel":
        """The model as it is now: a copy of the weights, adapters merged, which later steps do not change."""
        if self._current is None:
            state, ends = self.state, self.data.manifest.end_ids
            self._current = snapshot(self.train_step, state, self._start, ends, self.out)
        return self._current

    # -- the start ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Hold the run folder, and have everything ready for the next step."""
        with shown(), contextlib.nullcontext() if self.folder is None else self.folder.claimed():
            if self._state is None:
                self._prepare()
            yield

    def _ready(self) -> TrainState:
        if self._state is None:
            with self._prepared():
                pass
        assert self._state is not None
        return self._state

    def _prepare(self) -> None:
        """Do what stands before the first step: check, compile, read the weights, make run folder and state."""
        progress = None if self.folder is None else self.folder.progress()
        resuming = progress is not None
        self._resolve(progress)
        self._program: Callable[[], StepFunction] | None = None
        if progress is None or progress.step < self.schedule.steps:
            self._program = begin_to_compile(
                self.train_step, self.schedule, self.data.row_length, self.timer, resuming=resuming
            )
        opened = self.train_step.partition.base.compute.param_dtype
        params = functools.cache(lambda: self._start.read(self.mesh, opened))
        if progress is None or self.config.adapter.on:
            with self.timer.time("weights"):
                # A base is marked, or compared with its mark, before anything is trained; and a run whose weights or
                # step cannot be had leaves no folder behind.
                params()
        if progress is None and self._program is not None:
            with self.timer.time("waiting"):
                self._program()  # what does not fit is refused before the optimiser takes memory
        self.metadata = describe(self.config, self.schedule, self.data)
        if self.folder is not None:
            self._enter(self.folder, progress, params)
        if self._first:
            announce(self.config, self._start.config, self.schedule, self.train_step, self.data.row_length)
        with sharding.use_mesh(self.mesh):
            if self.folder is not None and progress is not None:
                self._resume(self.folder, progress, params)
                return
            with self.timer.time("state"):
                rows, loop = self.config.adapter.start_rows, self.resolved.train
                at_once = self.schedule.batch_rows // loop.microbatches
                first = first_batches(self.data, loop.seed, self.mesh, rows=rows, at_once=at_once)
                self._state = self.train_step.start(params(), first)

    def _resolve(self, progress: Progress | None) -> None:
        """Check that model, data and mesh fit, and settle what the configuration leaves open."""
        config, mesh, model = self.config, self.mesh, self._start.config
        statistics, shards = self.data.manifest.statistics, sharding.shards_on(mesh, "batch")
        loop = config.train.for_data(statistics, shards, progress)
        self.schedule = loop.schedule(statistics, shards, progress)
        with self.timer.time("model"):
            check_vocabulary(self._start.hf_folder, model, self.data)
        Architecture(model, config.compute).check_mesh(mesh)
        with self.timer.time("attention"):
            compute = select_attention(config.compute, model, self.data, mesh)
        self.resolved = dataclasses.replace(config, compute=compute, train=loop)
        self.train_step = self.resolved.train_step(model, self.schedule.steps, mesh)

    def _enter(self, folder: RunFolder, progress: Progress | None, base: Callable[[], Params]) -> None:
        """Make the folder that of this run, or check that it is."""
        if progress is None:
            folder.begin(base, self.mesh)
        else:
            accepted = self._accept_changes
            folder.check_resumed(progress.step, self.metadata, base, self.mesh, accepted=accepted)
        if self._first:
            folder.write_config(self.data.manifest.end_ids)

    def _resume(self, folder: RunFolder, progress: Progress, base: Callable[[], Params]) -> None:
        written_by = folder.checkpoints.metadata(progress.step)["config"]["train"].get("guard")
        with self.timer.time("checkpoint"):
            wanted = self.train_step.abstract_saved(written_by and GuardConfig(**written_by))
            saved = folder.checkpoints.restore(progress.step, wanted)
        with self.timer.time("state"):
            self._state = self.train_step.resume(saved, base)
        self.taken, self.position = progress.step, progress.position
        if self._first:
            logger.info("resuming after step %d, %s rows into the data", self.taken, f"{self.position:,}")

    def _stream(self) -> BatchStream:
        """Return the batches that follow."""
        return BatchStream(
            self.data,
            self.schedule.batch_rows,
            self.config.train.seed,
            self.position,
            sharding=sharding.batch_sharding(self.mesh),
        )

    # -- the loop -------------------------------------------------------------------------------------------

    def _loop(self, callbacks: Sequence[Callback]) -> None:
        with self.timer.time("rows"):
            stream = self._stream()
        with contextlib.closing(stream):
            with self.timer.time("waiting"):
                take_step = self._any_step if self._program is None else self._program()
                jax.block_until_ready(self._state)
            if self._first:
                logger.info("%s", self.timer)
            model, trained = self._start.config, not self.config.adapter.on
            flops = flops_per_row(model, self.data.row_length, trained=trained)
            meter = Throughput.on(self.mesh, flops, self.config.compute.dtype)
            recorder = Recorder(self.resolved.train, self.schedule, callbacks, meter, self.taken)
            if self.taken == 0:
                self._validate(recorder)
            self._steps(take_step, stream, recorder)

    def _steps(self, take_step: StepFunction, stream: BatchStream, recorder: Recorder) -> None:
        config, last, folder = self.resolved.train, self.schedule.steps, self.folder
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
                stopping = stop.asked
                save = stopping or is_due(self.taken, last, config.checkpoint_every)
                due = not stopping and is_due(self.taken, last, config.validate_every)
                if save or due:
                    recorder.finish()
                if save and folder is not None:
                    recorder.saved(self._save(folder, recorder.callbacks))
                if due:
                    self._validate(recorder)
                if stopping and self.taken < last:
                    break
            if folder is not None:
                folder.checkpoints.wait()
            if self.taken < last:
                again = "train() goes on" if folder is None else "the same command goes on"
                logger.info("stopped after step %d; %s from there", self.taken, again)
                raise KeyboardInterrupt

    def _save(self, folder: RunFolder, callbacks: Sequence[Callback]) -> float:
        """Begin to write a checkpoint; return the seconds until the state may be overwritten."""
        started = time.perf_counter()
        saved, metadata = self.train_step.saved(self.state), self.metadata | {"position": self.position}
        folder.checkpoints.save(self.taken, saved, metadata)
        tell(callbacks, "on_save", self.taken, folder.checkpoints.folder / str(self.taken))
        return time.perf_counter() - started

    def _validate(self, recorder: Recorder) -> None:
        if self._evaluate is not None:
            recorder.validated(self.taken, self._evaluate(self.train_step.model_params(self.state)))

    @functools.cached_property
    def _evaluate(self) -> Callable[[Params], Mapping[str, float | int]] | None:
        if self.validation is None:
            return None
        pad_id = self.validation.pad_id
        return heldout_evaluator(self.train_step.architecture, self.validation, self.mesh, pad_id=pad_id)

    @functools.cached_property
    def _any_step(self) -> StepFunction:
        """The step for batches of any size, compiled when it is first taken."""
        return self.train_step.compile_step()


def _dataset(rows: PackedDataset | Sequence[PackedSequence]) -> PackedDataset:
    return rows if isinstance(rows, PackedDataset) else PackedDataset.from_sequences(rows)
