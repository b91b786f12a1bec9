"""``alpacare serve``: an OpenAI-compatible HTTP endpoint over a model."""

import os
from typing import Annotated

import typer
from typer import Option

from alpacare_jax.cli import model_options as options


def command(
    context: typer.Context,
    model: options.Model,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    slots: options.Slots = 8,
    max_len: options.MaxLen = None,
    name: Annotated[
        str | None, Option(help="Name of the model in requests; its own name if not given.")
    ] = None,
    dtype: options.Dtype = None,
    mesh: options.Mesh = None,
    api_key_env: Annotated[
        str | None,
        Option(
            help="Environment variable that holds the key clients must send; no key is asked for without it."
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP: /v1/models, /v1/completions, /v1/chat/completions, /health."""
    from alpacare_jax import inference
    from alpacare_jax.errors import ConfigError

    api_key = api_key_env and os.environ.get(api_key_env)
    if api_key_env is not None and not api_key:
        raise ConfigError("the API key is not set", where=api_key_env, remedy=f"export {api_key_env}=...")
    given = {name: value for name, value in context.params.items() if name != "api_key_env"}
    inference.serve(**given, api_key=api_key, say=typer.echo)
