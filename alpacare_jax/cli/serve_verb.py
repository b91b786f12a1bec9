"""``alpacare serve``: an OpenAI-compatible HTTP endpoint over a model."""

import os
from typing import Annotated

import typer


def command(
    model: Annotated[
        str,
        typer.Option(
            help="Model folder, run folder, Hugging Face folder, .gguf file, or hub name (org/model)."
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    slots: Annotated[
        int, typer.Option(min=1, help="Requests answered at the same time; more wait their turn.")
    ] = 8,
    max_len: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Longest prompt plus reply, in tokens; at most 2048 if not given.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in requests; its own name if not given.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Dtype of weights and computation: float32 or bfloat16; by the device if not given."
        ),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Devices along each axis, such as fsdp=4,tensor=2; one device if not given."),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable that holds the key clients must send; no key is asked for without it."
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP: /v1/models, /v1/completions, /v1/chat/completions, /health."""
    from alpacare_jax import distributed
    from alpacare_jax.cli.generate_verb import open_engine
    from alpacare_jax.errors import ConfigError
    from alpacare_jax.generate import listen
    from alpacare_jax.generate.server import Api
    from alpacare_jax.generate.worker import Worker

    api_key = None
    if api_key_env is not None:
        api_key = os.environ.get(api_key_env)
        if not api_key:
            raise ConfigError("the API key is not set", where=api_key_env, remedy=f"export {api_key_env}=...")
    listener = listen.bind(host, port)  # first, so that a port in use is told before the model is loaded
    port = listener.getsockname()[1]
    if not listen.is_loopback(host) and api_key is None:
        typer.echo(
            f"WARNING: listening on {host}, which other machines can reach, and no key is asked for: anyone "
            "who can reach this port can use the model. Set --api-key-env, or leave --host at 127.0.0.1.",
            err=True,
        )
    if distributed.initialize_from_environment():
        raise ConfigError(
            "one server cannot span several processes",
            where="the environment",
            found="a run of several processes",
            remedy="start serve on one machine, without the variables that join processes",
        )
    engine, own_name = open_engine(model, slots=slots, max_len=max_len, dtype=dtype, mesh=mesh)
    name = name or own_name
    worker = Worker(engine)
    worker.start()
    shown = f"[{host}]" if ":" in host else host

    def ready() -> None:
        typer.echo(
            f"ready: http://{shown}:{port}/v1  model {name}  {engine.slots} slots  "
            f"{engine.max_len} tokens of context"
        )

    app = Api(worker, name, api_key).build()
    try:
        listen.run(
            listener, listen.make_server(app, ready, worker.give_up, lambda: worker.failure is not None)
        )
    finally:
        worker.stop()
    if worker.failure is not None:
        raise worker.reason()
