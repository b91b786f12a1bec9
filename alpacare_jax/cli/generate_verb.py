"""``alpacare generate``: a file of prompts to a file of responses."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from alpacare_jax.cli import model_options as options


def command(
    context: typer.Context,
    model: options.Model,
    prompts: Annotated[
        Path, Option(help="Prompts (JSON Lines: id, instruction, input), or an instruction file.")
    ],
    out: Annotated[Path, Option(help="Response file to write. OUT.part holds unfinished work.")],
    template: options.Template = "alpaca",
    max_tokens: Annotated[int, Option(min=1, help="Longest response, in tokens.")] = 256,
    temperature: Annotated[
        float, Option(min=0, help="0 takes the most probable token; 1 samples as the model learned.")
    ] = 0.0,
    top_p: Annotated[
        float, Option(help="Sample from the most probable tokens that together have this probability.")
    ] = 1.0,
    top_k: Annotated[int, Option(min=0, help="Sample from this many tokens; 0 from all.")] = 0,
    presence_penalty: Annotated[
        float, Option(help="Subtracted from the logits of tokens that are already in the response.")
    ] = 0.0,
    frequency_penalty: Annotated[
        float, Option(help="Subtracted from a token's logit once for each time it is in the response.")
    ] = 0.0,
    stop: Annotated[
        list[str] | None, Option(help="Text that ends a response and is cut off; may be repeated.")
    ] = None,
    seed: Annotated[int, Option(help="Seed of the sampling; the same seed, the same responses.")] = 0,
    slots: options.Slots = 8,
    max_len: options.MaxLen = None,
    mesh: options.Mesh = None,
    dtype: options.Dtype = None,
    name: Annotated[str | None, Option(help="Name noted in the responses; the model's own.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Answer a file of prompts; run again after an interruption, it goes on where it stopped."""
    from alpacare_jax import distributed, inference
    from alpacare_jax.generate.progress import GenerationProgress

    distributed.initialize_from_environment()
    with GenerationProgress() as progress:
        responses = inference.generate(**context.params, progress=progress)
    if progress.speaks:
        ended = sum(response.finish_reason == "stop" for response in responses)
        typer.echo(progress.describe(out, len(responses), ended))
