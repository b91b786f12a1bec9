"""The two sides of a report's comparison: the model before fine-tuning and after it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.evaluate.answers import Answers, check_join, read_reference_texts, read_responses
from alpacare_jax.evaluate.rouge import RougeL, mean_rouge_l
from alpacare_jax.report.inputs import AnswerComparison, ComparisonRow, loss_rows
from datagen.decoding import read_json_object
from datagen.errors import DataError
from datagen.records import normal_input, read_objects

RESPONSES, FIGURES = "responses.jsonl", "evaluation.json"
"""What `alpacare evaluate` writes."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of the comparison: answers by id, the tasks they answer, and the figures of an evaluation."""

    path: Path | None
    texts: dict[str, str]
    tasks: dict[str, tuple[str, str]]
    figures: dict[str, Any]


def read_side(path: Path | None) -> Side:
    """Read what is known of the model before, or after, fine-tuning.

    Args:
        path: A folder of `alpacare evaluate`, or a response file, beside which such a folder's figures may stand.

    Raises:
        DataError: A file is broken, or the folder holds neither answers nor figures.
    """
    if path is None:
        return Side(None, {}, {}, {})
    folder, file = (path, path / RESPONSES) if path.is_dir() else (path.parent, path)
    figures = (
        read_json_object(folder / FIGURES) if (folder / FIGURES).exists() and file.name == RESPONSES else {}
    )
    responses = read_responses(file) if file.exists() or not figures else []
    return Side(
        file,
        {response.id: response.response for response in responses},
        {response.id: (response.instruction, response.input) for response in responses},
        figures,
    )


def figure_rows(before: Side, after: Side) -> list[ComparisonRow]:
    """Compare the held-out losses of two evaluations; no rows where either has none."""
    sides = (before.figures, after.figures)
    losses = [float(figures["loss"]) for figures in sides if isinstance(figures.get("loss"), int | float)]
    if len(losses) < len(sides):
        return []
    data = [
        (figures.get("data"), figures.get("template"), figures.get("supervised_tokens")) for figures in sides
    ]
    if data[0] != data[1]:
        raise DataError(
            "the two evaluations did not measure the same",
            where=f"{before.path} and {after.path}",
            found=f"{data[0]} and {data[1]}",
            expected="the same data, template and number of supervised tokens",
            remedy="evaluate both models with the same options",
        )
    tokens = sides[0].get("supervised_tokens", 0)
    note = f"held-out examples: {sides[0].get('examples')}, tokens: {tokens:,}"
    return loss_rows(losses[0], losses[1], note)


def rouge_row(before: RougeL | None, after: RougeL | None, questions: int) -> list[ComparisonRow]:
    """Give the row of mean ROUGE-L; none where neither side has references."""
    if before is None and after is None:
        return []
    row = ComparisonRow(
        "ROUGE-L F1",
        before.mean if before else None,
        after.mean if after else None,
        "higher",
        before_interval=before.interval if before else None,
        after_interval=after.interval if after else None,
        note=f"answers to {questions} questions against their references",
    )
    return [row]


def compare_answers(
    before: Side, after: Side, references: Path | None
) -> tuple[list[ComparisonRow], list[AnswerComparison]]:
    """Join answers before and after by id, with ROUGE-L against the references where these are given.

    Returns:
        The row of mean ROUGE-L (none without references), and every question with its answers.

    Raises:
        DataError: The files are not about the same questions.
    """
    sides = (before, after)
    if before.texts and after.texts:
        ours, theirs = (
            Answers(
                str(side.path), side.texts, {id_: task[0] for id_, task in side.tasks.items()}, str(side.path)
            )
            for side in sides
        )
        check_join(ours, theirs)
    known = read_reference_texts(references) if references else {}
    rouge = [mean_rouge_l(side.texts, known) if side.texts and known else None for side in sides]
    of = [figure.by_id if figure else {} for figure in rouge]
    tasks = before.tasks | after.tasks
    table = [
        AnswerComparison(
            id=id_,
            instruction=instruction,
            input=normal_input(input),
            reference=known.get(id_, ""),
            before=before.texts.get(id_),
            after=after.texts.get(id_),
            before_rouge=of[0].get(id_),
            after_rouge=of[1].get(id_),
        )
        for id_, (instruction, input) in tasks.items()
    ]
    return rouge_row(rouge[0], rouge[1], len(tasks)), table


def validation_rows(metrics: Sequence[Mapping[str, Any]]) -> list[ComparisonRow]:
    """Compare the validation before the first step with the one after the last, where the run has both."""
    losses = {row["step"]: row["val_loss"] for row in metrics if "step" in row and "val_loss" in row}
    if 0 not in losses or len(losses) < 2:
        return []
    last = max(losses)
    return loss_rows(
        losses[0], losses[last], f"the run's validation data, before step 1 and after step {last}"
    )


def read_figures(path: Path) -> list[ComparisonRow]:
    """Read further rows of the before/after table.

    Raises:
        DataError: A row has an unknown key, lacks one, or holds no number.
    """
    rows = []
    for where, row in read_objects(path):
        numbers = [row.get(key) for key in ("before", "after")]
        if row.get("better") not in ("lower", "higher") or not all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            for value in numbers
        ):
            raise DataError(
                "a figure is not valid",
                where=where,
                expected='numbers "before" and "after", and "better" as "lower" or "higher"',
            )
        try:
            rows.append(ComparisonRow(**row))
        except TypeError as error:
            raise DataError("a figure has other keys than expected", where=where, found=error) from None
    return rows
