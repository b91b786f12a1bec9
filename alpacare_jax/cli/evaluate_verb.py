"""``alpacare evaluate``: a model's held-out loss, and its answers with ROUGE-L against references."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from alpacare_jax.cli import model_options as options


def command(
    context: typer.Context,
    model: options.Model,
    data: Annotated[
        Path, Option(help="Instructions with reference outputs that the model was not trained on.")
    ],
    out: Annotated[Path, Option(help="Folder for responses.jsonl and evaluation.json.")],
    template: options.Template = "alpaca",
    seq_len: Annotated[
        int,
        Option(min=8, help="Longest example in the loss, in tokens; longer ones are counted and left out."),
    ] = 1024,
    max_tokens: Annotated[
        int, Option(min=0, help="Longest answer, in tokens; 0 measures only the loss.")
    ] = 256,
    slots: options.Slots = 8,
    mesh: options.Mesh = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an earlier evaluation.")] = False,
) -> None:
    """Measure loss per token on held-out instructions, answer them greedily, and compare with the references.

    Loss and answers come from the same weights on the same mesh of devices. An interrupted evaluation keeps the
    answers it has and goes on.
    """
    from alpacare_jax import distributed
    from alpacare_jax.evaluate.heldout_file import RESPONSES, evaluate
    from alpacare_jax.generate.progress import GenerationProgress

    distributed.initialize_from_environment()
    with GenerationProgress() as progress:
        figures = evaluate(**context.params, progress=progress)
    if not progress.speaks:
        return
    if "warning" in figures:
        typer.echo(f"{data}: {figures['warning']}", err=True)
    if max_tokens:
        typer.echo(progress.describe(out / RESPONSES, figures["answers"], figures["ended_by_themselves"]))
    typer.echo("\n".join(describe(figures, out)))


def describe(figures: dict[str, Any], out: Path) -> list[str]:
    """Lay out the figures."""
    lines = [
        f"held-out loss   {figures['loss']:.4f} nats per token (perplexity {figures['perplexity']:.2f})",
        f"measured on     {figures['supervised_tokens']:,} tokens of {figures['examples']} examples; "
        f"{figures['longer_than_a_row']} longer than a row left out",
    ]
    if "rouge_l" in figures:
        low, high = figures["rouge_l_interval"]
        lines += [
            f"ROUGE-L F1      {figures['rouge_l']:.3f} (95% interval {low:.3f} to {high:.3f})",
            f"mean length     {figures['mean_words']:.0f} words, references "
            f"{figures['mean_reference_words']:.0f}; {figures['ended_by_themselves']} of {figures['answers']} answers "
            "ended by themselves",
        ]
    return [*lines, f"wrote {out}"]
