"""``alpacare generate``: a file of prompts to a file of responses."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jax.sharding import Mesh
    from rich.progress import Progress

    from alpacare_jax.generate import Engine
    from datagen.records import Response

DEFAULT_CONTEXT = 2048
SECONDS_BETWEEN_LINES = 10


def command(
    model: Annotated[
        str,
        typer.Option(
            help="Model folder, run folder, Hugging Face folder, .gguf file or hub name (org/model)."
        ),
    ],
    prompts: Annotated[
        Path, typer.Option(help="Prompts (JSON Lines: id, instruction, input), or an instruction file.")
    ],
    out: Annotated[Path, typer.Option(help="Response file to write. OUT.part holds unfinished work.")],
    template: Annotated[
        str, typer.Option(help="How a prompt is put: alpaca, or chat for the model's own chat template.")
    ] = "alpaca",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the most probable token; 1 samples as the model learned.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the most probable tokens that hold this much probability.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample from this many tokens; 0 from all.")] = 0,
    presence_penalty: Annotated[
        float, typer.Option(help="Subtracted from the logits of tokens the response already holds.")
    ] = 0.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="The same, once for every time the token is there already.")
    ] = 0.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends a response and is cut off; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; the same seed, the same responses.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Prompts answered at the same time.")] = 8,
    max_len: Annotated[
        int | None,
        typer.Option(min=2, help="Longest prompt plus response, in tokens; at most 2048 if not given."),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Devices along each axis, such as fsdp=4,tensor=2; one device if not given."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; float32 on CPUs, else bfloat16, if not given.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name noted in the responses; the model's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Answer a file of prompts; run again after an interruption, it goes on where it stopped."""
    from alpacare_jax.errors import ConfigError
    from alpacare_jax.generate import Sampling, batch
    from alpacare_jax.prompts import TEMPLATES

    if template not in TEMPLATES:
        raise ConfigError(
            "unknown template", where="--template", found=template, expected=" or ".join(TEMPLATES)
        )
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        stop=tuple(stop or ()),
        seed=seed,
    )
    asked = batch.read_prompts(prompts)
    batch.check_output(out, overwrite)  # before the model is loaded
    engine, own_name = open_engine(model, slots=slots, max_len=max_len, dtype=dtype, mesh=mesh)
    job = batch.Job(asked, out, name or own_name, template, sampling)  # type: ignore[arg-type]
    with Reporter(len(asked)) as report:
        responses = batch.answer(engine, job, overwrite=overwrite, progress=report)
    report.summarise(responses, out)


class Reporter:
    """Shows how far the generation is: a bar on a terminal, a line now and then elsewhere; process 0 speaks.

    Args:
        total: Responses in all.
    """

    def __init__(self, total: int) -> None:
        self._total, self._tokens = total, 0
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "Reporter":
        import jax
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._speaks = jax.process_index() == 0
        if self._speaks and sys.stderr.isatty():
            from rich.console import Console

            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn("generate"), BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("generate", total=self._total, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, finished: int, total: int, tokens: int) -> None:
        """Take note of the progress."""
        self._tokens, now = tokens, time.monotonic()
        rate = f"{tokens / max(now - self._started, 1e-9):,.0f} tok/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=finished, rate=rate)
        elif self._speaks and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            typer.echo(f"generate {finished}/{total} responses | {tokens:,} tokens | {rate}", err=True)

    def summarise(self, responses: "list[Response]", out: Path) -> None:
        """Say what was written."""
        if not self._speaks:
            return
        seconds = time.monotonic() - self._started
        ended = sum(response.finish_reason == "stop" for response in responses)
        typer.echo(
            f"{out}: {len(responses)} responses, {ended} ended by themselves, {len(responses) - ended} cut at "
            f"the limit; {self._tokens:,} tokens drawn in {seconds:.1f} s ({self._tokens / seconds:,.0f} tok/s)"
        )


def open_engine(
    reference: str,
    *,
    slots: int,
    max_len: int | None = None,
    dtype: str | None = None,
    mesh: str | None = None,
) -> "tuple[Engine, str]":
    """Open a model and build the engine over it.

    Args:
        reference: What names the model.
        slots: Requests answered at the same time.
        max_len: Context in tokens; the model's own, at most 2048, when None.
        dtype: "float32" or "bfloat16"; float32 on CPUs and bfloat16 elsewhere when None.
        mesh: Such as ``fsdp=4,tensor=2``; one device when None, all of them under several processes.

    Returns:
        The engine and the model's name.

    Raises:
        ConfigError: An option has an impossible value.
        ShardingError: The mesh does not fit the devices or the model.
    """
    import jax

    from alpacare_jax import distributed, load
    from alpacare_jax.errors import ConfigError
    from alpacare_jax.generate import Engine

    distributed.initialize_from_environment()
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError("unknown dtype", where="--dtype", found=dtype, expected="float32 or bfloat16")
    devices = build_mesh(mesh)
    loaded = load(reference, mesh=devices, dtype=dtype)
    longest = loaded.config.max_position_embeddings
    if max_len is not None and max_len > longest:
        raise ConfigError(
            "the context is longer than the model's",
            where="--max-len",
            found=max_len,
            expected=f"at most {longest}",
        )
    length = min(longest, DEFAULT_CONTEXT) if max_len is None else max_len
    tokenizer, name = loaded.tokenizer, loaded.name
    return Engine(
        loaded.architecture, loaded.params, tokenizer, mesh=devices, slots=slots, max_len=length
    ), name


def build_mesh(text: str | None) -> "Mesh":
    """Read a mesh such as ``fsdp=4,tensor=2``; axes that are not named have one device.

    Raises:
        ConfigError: The text names no such axis, or a size is not a whole number.
        ShardingError: The sizes do not fit the devices.
    """
    import jax

    from alpacare_jax import sharding
    from alpacare_jax.errors import ConfigError

    if text is None:
        if jax.process_count() == 1:
            return sharding.single_device_mesh()
        return sharding.make_mesh(sharding.MeshConfig(data=-1, fsdp=1))
    sizes = dict.fromkeys(sharding.MESH_AXES, 1)
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis.strip() not in sizes or not size.strip().lstrip("-").isdigit():
            raise ConfigError(
                "the mesh cannot be read",
                where="--mesh",
                found=part,
                expected=f"axis=size, the axes being {', '.join(sharding.MESH_AXES)}",
            )
        sizes[axis.strip()] = int(size)
    return sharding.make_mesh(sharding.MeshConfig(**sizes))
