"""A model with its tokenizer, as ``load`` and ``Trainer.model`` return it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from alpacare_jax import convert, sharding
from alpacare_jax.data.examples import encode_prompt
from alpacare_jax.errors import ConfigError, DataError
from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.model import Architecture, ComputeConfig, Llama, LlamaConfig, Params
from alpacare_jax.model.compute import DTYPES
from alpacare_jax.prompts import Template, check_template
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer
from datagen.configuration import make

Message = Mapping[str, str]
"""A turn of a conversation: ``role`` and ``content``."""
SLOTS = 8
"""Prompts that ``LanguageModel.generate`` answers at the same time."""


def load(
    reference: str | Path,
    *,
    mesh: sharding.MeshConfig | Mesh | str | None = None,
    dtype: str | None = None,
    step: int | None = None,
    precision: str = "default",
) -> "LanguageModel":
    """Load a model and its tokenizer from a folder, a GGUF file or the Hugging Face hub.

    Args:
        reference: A model folder, a run folder (its latest checkpoint; adapters are merged into their base), a
            Hugging Face folder, a ``.gguf`` file, or a hub name such as ``org/model``.
        mesh: Devices for the parameters, also as a string such as ``fsdp=4,tensor=2``. When None: one local device, or
            with several processes all devices.
        dtype: Dtype of parameters and computation, "float32" or "bfloat16"; as stored when None.
        step: Which checkpoint of a run folder, in optimiser steps; the latest when None.
        precision: Of fp32 matrix products, "default" (the platform's fastest) or "highest" (to compare models).

    Raises:
        CheckpointError: The checkpoint is missing, torn or of another architecture.
        ConfigError: The dtype or the precision is unknown.
        ConversionError: There is no such model, or its weights do not match its config.
        ShardingError: The mesh does not divide the devices or the model.

    Examples:
        >>> model = load("HuggingFaceTB/SmolLM2-135M-Instruct", dtype="bfloat16")
        >>> model.generate("Name a sign of fever.", max_tokens=16)
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(
            "dtype has an unknown value", where="dtype", found=dtype, expected=" or ".join(DTYPES)
        )
    compute, placed = ComputeConfig(precision=precision), sharding.resolve_mesh(mesh)
    found = convert.find_model(reference, step=step)
    return LanguageModel.of(found, found.read(placed, dtype), placed, compute)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LanguageModel:
    """A model with its tokenizer. No method changes its parameters.

    Args:
        config: The model's shape.
        params: Its parameters, on the mesh.
        mesh: The devices.
        compute: Dtypes and kernels.
        hf_folder: Folder of config, tokenizer and chat template.
        name: Name of the model in responses and logs.
        origin: Source of the weights, as plain JSON values.
        reference: Argument of ``load`` that gives the same weights again; None if they are stored nowhere.
    """

    config: LlamaConfig
    params: Params
    mesh: Mesh
    compute: ComputeConfig
    hf_folder: Path
    name: str
    origin: dict[str, Any]
    reference: str | None = None
    _found: convert.FoundModel | None = None  # keeps a temporary folder for as long as the model is there

    @classmethod
    def of(
        cls, found: convert.FoundModel, params: Params, mesh: Mesh, compute: ComputeConfig
    ) -> "LanguageModel":
        """Make a model of a found model and its parameters; it computes in their dtype."""
        dtype = str(params["embed"].dtype)
        compute = dataclasses.replace(compute, dtype=dtype, param_dtype=dtype)
        named = (found.hf_folder, found.name, found.origin, found.reference)
        return cls(found.config, params, mesh, compute, *named, found)

    def __repr__(self) -> str:
        mesh = ", ".join(f"{axis}={size}" for axis, size in self.mesh.shape.items() if size > 1)
        return (
            f"LanguageModel({self.name!r}, {self.config.parameter_count:,} parameters in "
            f"{self.compute.param_dtype}, {mesh or 'one device'})"
        )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            DataError: The model came without one.
        """
        return load_tokenizer(self.hf_folder)

    @property
    def architecture(self) -> Architecture:
        """The model without values."""
        return Architecture(self.config, self.compute)

    @property
    def module(self) -> Llama:
        """The Flax module with its parameters, for everything that the methods here do not offer."""
        return self.architecture.model(self.params)

    def logits(self, tokens_BT: Any) -> jax.Array:
        """Return the logits [B, T, V] of every token's successor, fp32.

        Args:
            tokens_BT: Token ids, anything that becomes an integer array of two axes.

        Raises:
            DataError: These are not rows of token ids.
        """
        return self._run(self._logits, tokens_BT)

    def logprobs(self, tokens_BT: Any) -> jax.Array:
        """Return the log-probability [B, T - 1] of every token but the first, given those before it, fp32.

        Args:
            tokens_BT: Token ids, anything that becomes an integer array of two axes.

        Raises:
            DataError: These are not rows of token ids.
        """
        return self._run(self._logprobs, tokens_BT)[:, : np.shape(tokens_BT)[1] - 1]

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Message] | Sequence[Sequence[Message]],
        *,
        template: Template | None = "alpaca",
        **sampling: Any,
    ) -> Any:
        """Answer prompts.

        The first call makes a second copy of the weights in a layout for generation.

        Args:
            prompts: A text, a conversation (messages with ``role`` and ``content``), or a list of either.
            template: Prompt around a text: "alpaca", "chat" (the model's own chat template), or None for no
                template. Conversations always go through the chat template.
            **sampling: ``max_tokens``, ``temperature``, ``top_p``, ``top_k``, ``stop``, ``seed`` and the other
                fields of ``alpacare_jax.generate.SamplingParams``.

        Returns:
            The reply; a list of replies if a list was given.

        Raises:
            DataError: A prompt is empty or longer than the model's context, or a setting is out of range.
            ConfigError: There is no such setting.
        """
        if template is not None:
            check_template(template)
        alone = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], Mapping))
        asked = make(SamplingParams, **sampling)
        waiting = [
            Generation(self._encode(prompt, template), asked, continues=template is None)
            for prompt in ([prompts] if alone else prompts)
        ]
        for generation in waiting:  # before any is submitted, or those would wait for the next call
            self._engine.check(generation.prompt, asked)
        for generation in waiting:
            self._engine.submit(generation)
        self._engine.run()
        replies = [generation.text for generation in waiting]
        return replies[0] if alone else replies

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | None = None, overwrite: bool = False
    ) -> None:
        """Write a Hugging Face folder that ``transformers`` loads unchanged, whole or not at all.

        Args:
            folder: The folder to make.
            dtype: Dtype of the weights, "float32", "bfloat16" or "float16"; as they are here when None.
            overwrite: Replace an existing Hugging Face folder.

        Raises:
            CheckpointError: The disk is full.
            ConfigError: The dtype is unknown.
            DataError: The folder exists.
        """
        convert.export(
            self.params, self.config, self.hf_folder, Path(folder), dtype=dtype, overwrite=overwrite
        )

    def found(self, *, shared: bool = False) -> convert.FoundModel:
        """Return the model as a start of a run.

        Args:
            shared: Give the parameters themselves where they are read onto this mesh in this dtype, for a run that
                does not change them; copies otherwise.
        """

        def read(mesh: Mesh | None, dtype: str | None) -> Params:
            mesh = self.mesh if mesh is None else mesh
            kept = dtype or self.compute.param_dtype
            compute = dataclasses.replace(self.compute, param_dtype=kept, dtype=kept)
            places = Architecture(self.config, compute).shardings(mesh)

            def move(leaf: jax.Array, place: NamedSharding) -> jax.Array:
                return jnp.array(jax.device_put(leaf, place), kept, copy=not shared)

            return jax.tree.map(
                move, self.params, places
            )  # leaf by leaf, so that memory holds one more, not all

        named = (self.config, self.hf_folder, self.name, self.origin)
        return convert.FoundModel(*named, read, self.reference, _keeps=self._found or self)

    def _encode(self, prompt: Any, template: Template | None) -> list[int]:
        if not isinstance(prompt, str):
            return self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True)
        if template is None:
            return self.tokenizer.encode_prompt(prompt)
        return encode_prompt(prompt, "", self.tokenizer, template)

    @functools.cached_property
    def _engine(self) -> Engine:
        return Engine(self.architecture, self.params, self.tokenizer, mesh=self.mesh, slots=SLOTS)

    def _run(self, program: Any, tokens_BT: Any) -> jax.Array:
        """Run a program on rows of tokens, padded to what the mesh divides."""
        tokens = np.asarray(tokens_BT)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer) or not tokens.size:
            raise DataError(
                "tokens_BT is not an array of token ids",
                where="tokens_BT",
                found=f"{tokens.dtype} of shape {list(tokens.shape)}",
                expected="integers of shape [B, T]",
            )
        if tokens.min() < 0 or tokens.max() >= self.config.vocab_size:
            raise DataError(
                "a token id is outside the vocabulary",
                where="tokens_BT",
                found=f"{tokens.min()} to {tokens.max()}",
                expected=f"0 to {self.config.vocab_size - 1}",
            )
        rows, length = tokens.shape
        split = (sharding.shards_on(self.mesh, "batch"), sharding.shards_on(self.mesh, "length"))
        padded = np.pad(tokens, [(0, -size % by) for size, by in zip(tokens.shape, split, strict=True)])
        segments = np.pad(
            np.ones_like(tokens), [(0, b - a) for a, b in zip(tokens.shape, padded.shape, strict=True)]
        )
        with sharding.use_mesh(self.mesh):
            where = sharding.batch_sharding(self.mesh)
            placed = [jax.device_put(part.astype(np.int32), where) for part in (padded, segments)]
            return program(self.params, *placed)[:rows, :length]

    @functools.cached_property
    def _logits(self) -> Any:
        return jax.jit(lambda params, tokens, segments: self.architecture.model(params)(tokens, segments))

    @functools.cached_property
    def _logprobs(self) -> Any:
        def score(params: Params, tokens: jax.Array, segments: jax.Array) -> jax.Array:
            logits = self.architecture.model(params)(tokens, segments)[:, :-1]
            targets = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
            return targets - jax.nn.logsumexp(logits, axis=-1)

        return jax.jit(score)
