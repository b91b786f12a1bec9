"""Gathering what a report shows: the files that the other verbs leave behind."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datagen.errors import DataError

if TYPE_CHECKING:
    from alpacare_jax.evaluate.rouge import RougeL
    from alpacare_jax.report import AnswerComparison, ComparisonRow

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
    from alpacare_jax.evaluate import answers

    if path is None:
        return Side(None, {}, {}, {})
    folder, file = (path, path / RESPONSES) if path.is_dir() else (path.parent, path)
    figures = read_object(folder / FIGURES) if (folder / FIGURES).exists() and file.name == RESPONSES else {}
    responses = answers.read_responses(file) if file.exists() or not figures else []
    return Side(
        file,
        {response.id: response.response for response in responses},
        {response.id: (response.instruction, response.input) for response in responses},
        figures,
    )


def figure_rows(before: Side, after: Side) -> "list[ComparisonRow]":
    """Compare the held-out losses of two evaluations; no rows where either has none."""
    from alpacare_jax.report import loss_rows

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


def rouge_row(before: "RougeL | None", after: "RougeL | None", questions: int) -> "list[ComparisonRow]":
    """Give the row of mean ROUGE-L; none where neither side has references."""
    from alpacare_jax.report import ComparisonRow

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
) -> "tuple[list[ComparisonRow], list[AnswerComparison]]":
    """Join answers before and after by id, with ROUGE-L against the references where these are given.

    Returns:
        The row of mean ROUGE-L (none without references), and every question with its answers.

    Raises:
        DataError: The files are not about the same questions.
    """
    from alpacare_jax.evaluate.answers import Answers, check_join, read_reference_texts
    from alpacare_jax.evaluate.rouge import mean_rouge_l
    from alpacare_jax.report import AnswerComparison
    from datagen.records import normal_input

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


def score(verdicts: Path) -> dict[str, Any]:
    """Score a verdict file into plain values."""
    from alpacare_jax.evaluate.scores import score_verdicts
    from datagen.records import Verdict, read_records

    return score_verdicts(read_records(verdicts, Verdict)).to_dict()


def read_journal(path: Path) -> tuple[dict[str, float], list[str]]:
    """Read a journal of stages: seconds by stage, and the command lines.

    Raises:
        DataError: It is not ``{"seconds": {stage: number}, "commands": {stage: text}}``.
    """
    journal = read_object(path)
    seconds, commands = journal.get("seconds"), journal.get("commands")
    if not isinstance(seconds, dict) or not isinstance(commands, dict):
        raise DataError(
            "the file is no journal of stages", where=path, expected="objects seconds and commands"
        )
    return {str(name): float(s) for name, s in seconds.items()}, [str(line) for line in commands.values()]


def training_time(run: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Say how long training took: the run's own wall time, else the sum of its steps."""
    if (run / "summary.json").exists():
        return {"training": float(read_object(run / "summary.json").get("wall_s", 0.0))}
    steps_s = sum(row["step_ms"] for row in metrics if "step_ms" in row) / 1e3
    return {"training steps": steps_s} if steps_s else {}


def read_run(run: Path) -> str:
    """Return the text of a run's config.

    Raises:
        DataError: The folder holds neither config nor metrics.
    """

    config = run / "config.yaml"
    if not config.exists() and not (run / "metrics.jsonl").exists():
        kinds = "a run folder of `alpacare train`, or a work folder of `alpacare synthesize`"
        if not run.exists():
            raise DataError("the folder does not exist", where=run, expected=kinds, remedy="check the path")
        raise DataError(
            "this is neither a run folder nor a work folder",
            where=run,
            found="neither config.yaml nor metrics.jsonl (training), nor config.json (synthesis)",
            expected=kinds,
        )
    return config.read_text(encoding="utf-8") if config.exists() else ""


def config_data(config: str) -> list[Path]:
    """List the packed data sets that a run's config names and that are still there."""
    import yaml

    values = yaml.safe_load(config) or {}
    named = [values.get(key) for key in ("train_data", "validation_data")]
    return [Path(name) for name in named if isinstance(name, str) and (Path(name) / "manifest.json").exists()]


def read_manifests(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read the manifest of each packed data set, by the folder's name (its whole path where names repeat)."""
    names = [folder.name for folder in folders]
    return {
        str(folder) if names.count(folder.name) > 1 else folder.name: read_object(folder / "manifest.json")
        for folder in folders
    }


def validation_rows(metrics: Sequence[Mapping[str, Any]]) -> "list[ComparisonRow]":
    """Compare the validation before the first step with the one after the last, where the run has both."""
    from alpacare_jax.report import loss_rows

    losses = {row["step"]: row["val_loss"] for row in metrics if "step" in row and "val_loss" in row}
    if 0 not in losses or len(losses) < 2:
        return []
    last = max(losses)
    return loss_rows(
        losses[0], losses[last], f"the run's validation data, before step 1 and after step {last}"
    )


def read_figures(path: Path) -> "list[ComparisonRow]":
    """Read further rows of the before/after table.

    Raises:
        DataError: A row has an unknown key, lacks one, or holds no number.
    """
    from alpacare_jax.report import ComparisonRow
    from datagen.records import read_objects

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


def is_work_folder(folder: Path) -> bool:
    """Say whether a folder is one that `alpacare synthesize` works in."""
    return (folder / "config.json").exists() and not (folder / "config.yaml").exists()


def report_synthesis(work: Path, out: Path, title: str | None, *, only_folder: bool) -> None:
    """Write the page of a synthesis work folder.

    Args:
        work: The work folder.
        out: The file to write.
        title: Heading of the page, or None.
        only_folder: Whether no option was given that belongs to a training run.

    Raises:
        ConfigError: Such an option was given.
    """
    from alpacare_jax.report import write_synthesis_report
    from alpacare_jax.report.provenance import describe_code, hash_file
    from datagen.errors import ConfigError
    from datagen.figures import gather

    if not only_folder:
        raise ConfigError(
            "an option was given that belongs to a training run",
            where=work,
            found="a work folder of `alpacare synthesize`",
            expected="only --out, --title and --overwrite",
        )
    files = [work / name for name in ("instructions.jsonl", "funnel.json", "config.json")]
    provenance = {
        "work folder": str(work.resolve()),
        "file, SHA-256": {file.name: hash_file(file) for file in files if file.exists()},
        "report written with": describe_code(),
    }
    write_synthesis_report(
        gather(work),
        out,
        title=title or "Synthesis report",
        subtitle=work.resolve().name,
        provenance=provenance,
    )


def gather_provenance(run: Path, packed: Sequence[Path]) -> dict[str, Any]:
    """Name what the report rests on: run, model, data manifests, and the code that wrote the page."""
    from alpacare_jax.report.provenance import describe_code, hash_file

    described = read_object(run / "alpacare.json") if (run / "alpacare.json").exists() else {}
    description = {key: value for key, value in described.items() if key != "config"}
    hashes = {str(folder): hash_file(folder / "manifest.json") for folder in packed}
    files = [run / name for name in ("config.yaml", "metrics.jsonl")]
    return {
        "run folder": str(run.resolve()),
        "model": description,
        "data manifest, SHA-256": hashes,
        "run file, SHA-256": {file.name: hash_file(file) for file in files if file.exists()},
        "report written with": describe_code(),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; no rows where the file is missing or empty."""
    from datagen.records import read_objects

    if not path.exists() or not path.stat().st_size:
        return []
    return [row for _, row in read_objects(path)]


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        DataError: The file is missing or holds something else.
    """

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            "the file does not exist", where=path, remedy="check the folder, or finish its run"
        ) from None
    except ValueError as error:
        raise DataError("the file is not JSON", where=path, found=error) from None
    if not isinstance(value, dict):
        raise DataError("the file must hold a JSON object", where=path, found=type(value).__name__)
    return value
