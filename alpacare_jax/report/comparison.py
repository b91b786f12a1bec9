"""The two sides of a report's comparison: the model before fine-tuning and after it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.evaluate.answers import as_answers, check_join, read_reference_texts, read_responses
from alpacare_jax.evaluate.rouge import mean_rouge_l
from alpacare_jax.report.inputs import AnswerComparison, ComparisonRow, loss_rows
from datagen.configuration import build
from datagen.decoding import read_json_object
from datagen.errors import DataError
from datagen.records import Response, normal_input, read_objects

RESPONSES, EVALUATION = "responses.jsonl", "evaluation.json"
"""What `alpacare evaluate` writes."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of the comparison: responses by id, their file, and what `alpacare evaluate` measured."""

    path: Path | None = None
    responses: dict[str, Response] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """The answers by id."""
        return {id_: response.response for id_, response in self.responses.items()}


def read_side(path: Path | None) -> Side:
    """Read what is known of the model before, or after, fine-tuning.

    Args:
        path: A folder of `alpacare evaluate`, or a response file, which may stand in such a folder.

    Raises:
        DataError: A file is broken, or the folder holds neither answers nor an evaluation.
    """
    if path is None:
        return Side()
    file = path / RESPONSES if path.is_dir() else path
    evaluation = file.with_name(EVALUATION)
    found = read_json_object(evaluation) if file.name == RESPONSES and evaluation.exists() else {}
    responses = read_responses(file) if file.exists() or not found else []
    return Side(file, {response.id: response for response in responses}, found)


def held_out_losses(before: Side, after: Side) -> list[ComparisonRow]:
    """Compare the held-out losses of two evaluations; no rows where either has none.

    Raises:
        DataError: The evaluations did not measure the same.
    """
    one, other = before.evaluation, after.evaluation
    if "loss" not in one or "loss" not in other:
        return []
    measured = [[each.get(key) for key in ("data", "template", "supervised_tokens")] for each in (one, other)]
    if measured[0] != measured[1]:
        raise DataError(
            "the two evaluations did not measure the same",
            where=f"{before.path} and {after.path}",
            found=f"{measured[0]} and {measured[1]}",
            expected="the same data, template and number of supervised tokens",
            remedy="evaluate both models with the same options",
        )
    note = f"held-out examples: {one.get('examples')}, tokens: {one.get('supervised_tokens', 0):,}"
    return loss_rows(float(one["loss"]), float(other["loss"]), note)


def validation_losses(metrics: Sequence[Mapping[str, Any]]) -> list[ComparisonRow]:
    """Compare the validation before the first step with the one after the last, where the run has both."""
    losses = {row["step"]: row["val_loss"] for row in metrics if "step" in row and "val_loss" in row}
    if 0 not in losses or len(losses) < 2:
        return []
    last = max(losses)
    note = f"the run's validation data, before step 1 and after step {last}"
    return loss_rows(losses[0], losses[last], note)


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
    if before.responses and after.responses:
        check_join(*(as_answers(list(side.responses.values()), str(side.path)) for side in sides))
    known = read_reference_texts(references) if references else {}
    rouge = [mean_rouge_l(side.texts, known) if side.texts and known else None for side in sides]
    by_id = [each.by_id if each else {} for each in rouge]
    questions = before.responses | after.responses
    answers = [
        AnswerComparison(
            id=id_,
            instruction=question.instruction,
            input=normal_input(question.input),
            reference=known.get(id_, ""),
            before=before.texts.get(id_),
            after=after.texts.get(id_),
            before_rouge=by_id[0].get(id_),
            after_rouge=by_id[1].get(id_),
        )
        for id_, question in questions.items()
    ]
    one, other = rouge
    if one is None and other is None:
        return [], answers
    row = ComparisonRow(
        "ROUGE-L F1",
        one.mean if one else None,
        other.mean if other else None,
        "higher",
        before_interval=one.interval if one else None,
        after_interval=other.interval if other else None,
        note=f"answers to {len(questions)} questions against their references",
    )
    return [row], answers


def read_rows(path: Path) -> list[ComparisonRow]:
    """Read further rows of the before/after table.

    Raises:
        ConfigError: A row has an unknown key, lacks one, or holds no number.
    """
    return [build(ComparisonRow, (str(where), row)) for where, row in read_objects(path)]
