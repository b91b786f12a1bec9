"""A model measured on instructions it was not trained on: its loss, and its answers against the references."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from alpacare_jax import distributed, inference, sharding
from alpacare_jax.data.examples import encode_examples
from alpacare_jax.data.manifest import describe_overrun
from alpacare_jax.data.packing import pack_sequences
from alpacare_jax.errors import DataError
from alpacare_jax.evaluate.answers import count_words, read_reference_texts
from alpacare_jax.evaluate.rouge import mean_rouge_l
from alpacare_jax.generate import batch
from alpacare_jax.language_model import LanguageModel
from alpacare_jax.loss.heldout import heldout_evaluator
from alpacare_jax.prompts import Template, check_template
from datagen.files import write_json
from datagen.records import Instruction, Response, read_objects

RESPONSES, FIGURES = "responses.jsonl", "evaluation.json"
Data = str | Path | Sequence[Mapping[str, Any]]


def evaluate(
    model: LanguageModel | str | Path,
    data: Data,
    out: str | Path | None = None,
    *,
    template: Template = "alpaca",
    seq_len: int = 1024,
    max_tokens: int = 256,
    slots: int = 8,
    mesh: inference.Where = None,
    overwrite: bool = False,
    progress: bool | batch.Progress = True,
) -> dict[str, Any]:
    """Measure loss per token on held-out instructions, answer them greedily, and compare with the references.

    Loss and answers come from the same weights on the same devices. With ``out``, an interrupted evaluation keeps
    the answers it has and goes on.

    Args:
        model: A model, or what names it (see ``alpacare_jax.load``); by name it is loaded with exact fp32
            products, so that models compare.
        data: A file, or a list, of records with ``instruction``, ``input`` and ``output``.
        out: Folder for ``responses.jsonl`` and ``evaluation.json``.
        template: Into what a prompt is put: "alpaca", or "chat" for the model's own chat template.
        seq_len: Longest example in the loss, in tokens; longer ones are counted and left out.
        max_tokens: Longest answer, in tokens; 0 measures only the loss.
        slots: Prompts answered at the same time.
        mesh: Devices for a model that is given by name.
        overwrite: Replace an earlier evaluation.
        progress: True shows how far the answering is, False does not; or what is called with the responses finished,
            those in all, and the tokens drawn.

    Returns:
        ``loss``, ``perplexity``, ``supervised_tokens``, ``examples``, ``longer_than_a_row``; with answers also
        ``rouge_l``, ``rouge_l_interval``, ``mean_words``, ``mean_reference_words``, ``ended_by_themselves``,
        ``answers``; ``warning`` where examples exceed the model's context.

    Raises:
        ConfigError: An argument is invalid.
        DataError: The data are broken, every example is too long, or the evaluation exists.
        ShardingError: The mesh does not fit the devices or the model.

    Examples:
        >>> evaluate("model", "heldout.jsonl", max_tokens=0)["loss"]
    """
    check_template(template)
    distributed.initialize_from_environment()
    folder = None if out is None else Path(out)
    if folder is not None and (folder / FIGURES).exists() and not overwrite:
        raise DataError(
            "the evaluation exists", where=folder / FIGURES, remedy="choose another --out, or --overwrite"
        )
    opened = inference.open_model(model, mesh=mesh, precision="highest")
    named = data.name if isinstance(data, Path) else Path(data).name if isinstance(data, str) else None
    figures: dict[str, Any] = {"model": opened.name, "data": named, "template": template}
    figures |= heldout_loss(opened, data, template, seq_len)
    if max_tokens:
        responses = inference.generate(
            opened,
            data,
            folder and folder / RESPONSES,
            template=template,
            max_tokens=max_tokens,
            slots=slots,
            # Without the figures an earlier evaluation is unfinished, and its responses may be made again.
            overwrite=overwrite or (folder is not None and (folder / RESPONSES).exists()),
            progress=progress,
        )
        figures |= compare_answers(responses, data)
    if folder is not None and jax.process_index() == 0:
        kept = {key: value for key, value in figures.items() if key != "warning"}
        write_json(folder / FIGURES, kept)
    return figures


def heldout_loss(model: LanguageModel, data: Data, template: Template, seq_len: int) -> dict[str, Any]:
    """Measure the loss per supervised token on the examples that fit a row."""
    placed = [(where, Instruction.from_dict(row, where=where)) for where, row in read_objects(data)]
    examples = encode_examples(
        [instruction for _, instruction in placed],
        model.tokenizer,
        template,
        where=[where for where, _ in placed],
    )
    fitting = [example for example in examples if len(example) <= seq_len]
    if not fitting:
        raise DataError(
            "every example is longer than the sequence length",
            where=data if isinstance(data, str | Path) else "data",
            found=f"shortest {min(map(len, examples))} tokens",
            remedy="raise --seq-len",
        )
    overrun = describe_overrun(max(map(len, fitting)), model.config.max_position_embeddings)
    pad_id = model.tokenizer.filler_id
    rows = pack_sequences(fitting, seq_len, pad_id=pad_id)
    with sharding.use_mesh(model.mesh):
        measure = heldout_evaluator(
            model.architecture, rows, model.mesh, rows=min(len(rows), 4), pad_id=pad_id
        )
        found = measure(model.params)
    return {
        "loss": found["val_loss"],
        "perplexity": found["val_perplexity"],
        "supervised_tokens": found["val_tokens"],
        "examples": len(fitting),
        "longer_than_a_row": len(examples) - len(fitting),
        **({"warning": overrun} if overrun else {}),
    }


def compare_answers(responses: list[Response], data: Data) -> dict[str, Any]:
    """Compare responses with the references: ROUGE-L F1, lengths, and how many ended by themselves."""
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
