"""Answering files of prompts with a model, and serving one over HTTP."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from alpacare_jax import distributed
from alpacare_jax.errors import ConfigError
from alpacare_jax.generate import Engine, SamplingParams, batch
from alpacare_jax.generate.progress import GenerationProgress
from alpacare_jax.language_model import LanguageModel, load
from alpacare_jax.prompts import Template, check_template
from alpacare_jax.sharding import MeshConfig
from datagen.configuration import make
from datagen.files import refuse_existing
from datagen.records import Response

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048
Where = Mesh | MeshConfig | str | None
"""Devices: a mesh, its sizes, a text such as ``fsdp=4,tensor=2``, or None for one local device."""


def generate(
    model: LanguageModel | str | Path,
    prompts: str | Path | Iterable[str | Mapping[str, Any]],
    out: str | Path | None = None,
    *,
    template: Template = "alpaca",
    name: str | None = None,
    slots: int = 8,
    max_len: int | None = None,
    mesh: Where = None,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool | batch.Progress = True,
    **sampling: Any,
) -> list[Response]:
    """Answer a file or a list of prompts; with ``out``, an interrupted call goes on where it stopped.

    Args:
        model: A model, or what names it (see ``alpacare_jax.load``).
        prompts: A file of records (id, instruction, input), or a list of such records or of texts.
        out: Response file to write; ``OUT.part`` holds unfinished work.
        template: Into what a prompt is put: "alpaca", or "chat" for the model's own chat template.
        name: Name noted in the responses; the model's own when None.
        slots: Prompts answered at the same time.
        max_len: Longest prompt plus response, in tokens; at most 2048 when None.
        mesh: Devices for a model that is given by name, such as ``MeshConfig(fsdp=4)`` or ``"fsdp=4,tensor=2"``.
        dtype: Of a model that is given by name; float32 on CPUs and bfloat16 elsewhere when None.
        overwrite: Replace an existing response file.
        progress: True shows how far it is, False does not; or what is called with the responses finished, those in
            all, and the tokens drawn.
        **sampling: ``max_tokens``, ``temperature``, ``top_p``, ``top_k``, ``stop``, ``seed`` and the other
            fields of ``alpacare_jax.generate.SamplingParams``.

    Returns:
        The responses, in the order of the prompts.

    Raises:
        ConfigError: An argument is invalid.
        DataError: A prompt is broken, empty or too long, the file exists, or unfinished work is of other settings.
        ShardingError: The mesh does not fit the devices or the model.

    Examples:
        >>> responses = generate("model", ["Name a sign of fever."], max_tokens=16)
        >>> responses[0].response
    """
    check_template(template)
    wanted, asked = make(SamplingParams, **sampling), batch.read_prompts(prompts)
    out = None if out is None else Path(out)
    if out is not None:
        refuse_existing(out, overwrite)  # before the model is loaded
    engine, own_name = open_engine(model, slots=slots, max_len=max_len, dtype=dtype, mesh=mesh)
    job = batch.Job(asked, out, name or own_name, template, wanted)
    with GenerationProgress() if progress is True else contextlib.nullcontext(progress or None) as report:
        return batch.answer(engine, job, overwrite=overwrite, progress=report)


def serve(
    model: LanguageModel | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    slots: int = 8,
    max_len: int | None = None,
    name: str | None = None,
    dtype: str | None = None,
    mesh: Where = None,
    api_key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a model over HTTP (/v1/models, /v1/completions, /v1/chat/completions, /health) until told to stop.

    In a notebook the cell runs until the kernel is interrupted.

    Args:
        model: A model, or what names it (see ``alpacare_jax.load``).
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        slots: Requests answered at the same time; more wait their turn.
        max_len: Longest prompt plus reply, in tokens; at most 2048 when None.
        name: Name of the model in requests; its own when None.
        dtype: Of a model that is given by name; float32 on CPUs and bfloat16 elsewhere when None.
        mesh: Devices for a model that is given by name.
        api_key: The key that clients must send; None asks for none.
        say: Called with the line that says the server is ready.

    Raises:
        ConfigError: An argument is invalid, or this process is one of several.
        ServiceError: The port is in use, or the engine failed.
        ShardingError: The mesh does not fit the devices or the model.

    Examples:
        ```python
        serve("model", port=8000)
        ```
    """
    from alpacare_jax.generate.api import Api
    from alpacare_jax.generate.serve import bind, is_loopback, make_server, run
    from alpacare_jax.generate.worker import Worker

    listener = bind(host, port)  # first, so that a port in use is reported before the model is loaded
    port = listener.getsockname()[1]
    if not is_loopback(host) and api_key is None:
        logger.warning(
            "WARNING: listening on %s, which other machines can reach, without an API key: anyone who can reach "
            "this port can use the model. Set --api-key-env, or leave --host at 127.0.0.1.",
            host,
        )
    if distributed.initialize_from_environment():
        raise ConfigError(
            "one server cannot span several processes",
            where="the environment",
            found="a run of several processes",
            remedy="start serve on one machine, without the variables that join processes",
        )
    engine, own_name = open_engine(model, slots=slots, max_len=max_len, dtype=dtype, mesh=mesh)
    name, worker = name or own_name, Worker(engine)
    worker.start()
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    ready = f"ready: {address}  model {name}  {engine.slots} slots  {engine.max_len} tokens of context"
    app = Api(worker, name, api_key).build()
    try:
        run(listener, make_server(app, worker, lambda: say(ready)))
    finally:
        worker.stop()
    if worker.failure is not None:
        raise worker.reason()


def open_model(
    model: LanguageModel | str | Path,
    *,
    mesh: Where = None,
    dtype: str | None = None,
    precision: str = "default",
) -> LanguageModel:
    """Return a model as it is, or load it by name in the dtype that suits the devices.

    Raises:
        ConfigError: The dtype is unknown, or a loaded model is given a mesh or a dtype.
        ShardingError: The mesh does not fit the devices or the model.
    """
    if isinstance(model, LanguageModel):
        for key, value in {"mesh": mesh, "dtype": dtype}.items():
            if value is not None:
                raise ConfigError(
                    "the mesh and dtype of a loaded model cannot be changed",
                    where=key,
                    found=value,
                    remedy="give it to load",
                )
        return model
    distributed.initialize_from_environment()
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return load(model, mesh=mesh, dtype=dtype, precision=precision)


def open_engine(
    model: LanguageModel | str | Path,
    *,
    slots: int = 8,
    max_len: int | None = None,
    dtype: str | None = None,
    mesh: Where = None,
) -> tuple[Engine, str]:
    """Build the engine that generates over a model; see ``generate`` for the arguments.

    Returns:
        The engine and the model's name.

    Raises:
        ConfigError: An argument is invalid.
        ShardingError: The mesh does not fit the devices or the model.
    """
    opened = open_model(model, mesh=mesh, dtype=dtype)
    longest = opened.config.max_position_embeddings
    if max_len is not None and not 2 <= max_len <= longest:
        raise ConfigError(
            "the context is longer than the model's" if max_len > longest else "the context is too short",
            where="max_len",
            found=max_len,
            expected=f"2 to {longest}",
        )
    length = max_len or min(longest, DEFAULT_CONTEXT)
    tokenizer, architecture = opened.tokenizer, opened.architecture
    engine = Engine(architecture, opened.params, tokenizer, mesh=opened.mesh, slots=slots, max_len=length)
    return engine, opened.name
