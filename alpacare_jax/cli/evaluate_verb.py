"""``alpacare evaluate``: a model's held-out loss, and its answers with ROUGE-L against references."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from alpacare_jax.language_model import LanguageModel
    from alpacare_jax.model import Architecture
    from datagen.records import Response

RESPONSES, FIGURES = "responses.jsonl", "evaluation.json"


def command(
    model: Annotated[
        str,
        typer.Option(
            help="Model folder, run folder, Hugging Face folder, .gguf file, or hub name (org/model)."
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Instructions with reference outputs that the model was not trained on.")
    ],
    out: Annotated[Path, typer.Option(help=f"Folder for {RESPONSES} and {FIGURES}.")],
    template: Annotated[
        str, typer.Option(help="How a prompt is put: alpaca, or chat for the model's own chat template.")
    ] = "alpaca",
    seq_len: Annotated[
        int,
        typer.Option(
            min=8, help="Longest example in the loss, in tokens; longer ones are counted and left out."
        ),
    ] = 1024,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer, in tokens; 0 measures the loss alone.")
    ] = 256,
    slots: Annotated[int, typer.Option(min=1, help="Prompts answered at the same time.")] = 8,
    mesh: Annotated[
        str | None,
        typer.Option(help="Devices along each axis, such as data=2,fsdp=2; one device if not given."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
) -> None:
    """Measure loss per token on held-out instructions, answer them greedily, and compare with the references.

    Loss and answers come from the same weights on the same mesh of devices. An interrupted evaluation keeps the
    answers it has and goes on.
    """
    import jax

    from alpacare_jax import distributed, load, sharding
    from alpacare_jax.cli.generate_verb import build_mesh
    from alpacare_jax.errors import DataError
    from datagen.records import write_atomically

    distributed.initialize_from_environment()
    if (out / FIGURES).exists() and not overwrite:
        raise DataError(
            "the evaluation exists", where=out / FIGURES, remedy="choose another --out, or --overwrite"
        )
    devices = build_mesh(mesh)
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    loaded = load(model, mesh=devices, dtype=dtype, precision="highest")
    architecture = loaded.architecture
    figures: dict[str, Any] = {"model": loaded.name, "data": data.name, "template": template}
    with sharding.use_mesh(devices):
        figures |= heldout_loss(loaded, architecture, data, template, seq_len, devices)
        if max_tokens:
            responses = answer(
                loaded, architecture, data, out, template, max_tokens, slots, devices, overwrite=overwrite
            )
            figures |= answer_figures(responses, data)
    if jax.process_index() == 0:
        text = json.dumps(figures, indent=2) + "\n"
        write_atomically(out / FIGURES, lambda file: file.write(text))
        show(figures, out)


def heldout_loss(
    loaded: "LanguageModel",
    architecture: "Architecture",
    data: Path,
    template: str,
    seq_len: int,
    mesh: "Mesh",
) -> dict[str, Any]:
    """Measure the loss per supervised token on the examples of a file that fit a row."""
    from alpacare_jax import sharding
    from alpacare_jax.data.examples import encode_examples
    from alpacare_jax.data.loader import Batch, batches_in_order
    from alpacare_jax.data.manifest import describe_overrun
    from alpacare_jax.data.packing import pack_rows
    from alpacare_jax.errors import DataError
    from alpacare_jax.evaluate.heldout import heldout_evaluator
    from datagen.records import Instruction, read_objects

    placed = [(where, Instruction.from_dict(row, where=where)) for where, row in read_objects(data)]
    examples = encode_examples(
        [instruction for _, instruction in placed],
        loaded.tokenizer,
        template,  # type: ignore[arg-type]
        where=[where for where, _ in placed],
    )
    fitting = [example for example in examples if len(example) <= seq_len]
    if not fitting:
        raise DataError(
            "every example is longer than a row",
            where=data,
            found=f"shortest {min(map(len, examples))} tokens",
            remedy="raise --seq-len",
        )
    if overrun := describe_overrun(max(map(len, fitting)), loaded.config.max_position_embeddings):
        typer.echo(f"{data}: {overrun}", err=True)
    pad_id = loaded.tokenizer.filler_id
    rows = pack_rows(fitting, seq_len, pad_id=pad_id)
    shards = sharding.batch_shards(mesh)

    def batches() -> "Iterator[Batch]":
        size = shards * max(1, min(len(rows), 4) // shards)
        return batches_in_order(rows, size, sharding=sharding.batch_sharding(mesh), pad_id=pad_id)

    found = heldout_evaluator(architecture, batches, mesh)(loaded.params)
    return {
        "loss": found["val_loss"],
        "perplexity": found["val_perplexity"],
        "supervised_tokens": found["val_tokens"],
        "examples": len(fitting),
        "longer_than_a_row": len(examples) - len(fitting),
    }


def answer(
    loaded: "LanguageModel",
    architecture: "Architecture",
    data: Path,
    out: Path,
    template: str,
    max_tokens: int,
    slots: int,
    mesh: "Mesh",
    *,
    overwrite: bool,
) -> "list[Response]":
    """Answer the instructions of a file greedily and write the responses."""
    from alpacare_jax.cli.generate_verb import DEFAULT_CONTEXT, Reporter
    from alpacare_jax.generate import Engine, Sampling, batch

    prompts = batch.read_prompts(data)
    context = min(loaded.config.max_position_embeddings, DEFAULT_CONTEXT)
    engine = Engine(architecture, loaded.params, loaded.tokenizer, mesh=mesh, slots=slots, max_len=context)
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0)
    job = batch.Job(prompts, out / RESPONSES, loaded.name, template, sampling)  # type: ignore[arg-type]
    with Reporter(len(prompts)) as report:
        # Without the figures an earlier evaluation is unfinished, and its responses may be made again.
        responses = batch.answer(engine, job, overwrite=overwrite or job.out.exists(), progress=report)
    report.summarise(responses, job.out)
    return responses


def answer_figures(responses: "list[Response]", data: Path) -> dict[str, Any]:
    """Compare responses with the references of a file: ROUGE-L F1, lengths, and how many ended by themselves."""
    from alpacare_jax.evaluate.answers import count_words, read_reference_texts
    from alpacare_jax.evaluate.rouge import mean_rouge_l

    references = read_reference_texts(data)
    rouge = mean_rouge_l({response.id: response.response for response in responses}, references)
    words = [count_words(response.response) for response in responses]
    return {
        "rouge_l": rouge.mean,
        "rouge_l_interval": list(rouge.interval),
        "mean_words": sum(words) / len(words),
        "mean_reference_words": sum(map(count_words, references.values())) / len(references),
        "ended_by_themselves": sum(response.finish_reason == "stop" for response in responses),
        "answers": len(responses),
    }


def show(figures: dict[str, Any], out: Path) -> None:
    """Print the figures."""
    typer.echo(
        f"held-out loss   {figures['loss']:.4f} nats per token (perplexity {figures['perplexity']:.2f})"
    )
    typer.echo(
        f"measured on     {figures['supervised_tokens']:,} tokens of {figures['examples']} examples; "
        f"{figures['longer_than_a_row']} longer than a row left out"
    )
    if "rouge_l" in figures:
        low, high = figures["rouge_l_interval"]
        typer.echo(f"ROUGE-L F1      {figures['rouge_l']:.3f} (95% interval {low:.3f} to {high:.3f})")
        typer.echo(
            f"mean length     {figures['mean_words']:.0f} words, references {figures['mean_reference_words']:.0f}; "
            f"{figures['ended_by_themselves']} of {figures['answers']} answers ended by themselves"
        )
    typer.echo(f"wrote {out}")
