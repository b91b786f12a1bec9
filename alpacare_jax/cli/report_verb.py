"""``alpacare report``: a run's files to one HTML page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from alpacare_jax.report import AnswerComparison, ComparisonRow


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, as `alpacare train` writes it.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    synthesis: Annotated[
        Path | None, typer.Option(help="Work folder of `alpacare synthesize`, for the funnel.")
    ] = None,
    packed: Annotated[
        list[Path] | None,
        typer.Option(help="Packed data set; may be repeated. Default: those that the run's config names."),
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Responses of the model before fine-tuning (JSON Lines).")
    ] = None,
    after: Annotated[
        Path | None, typer.Option(help="Responses of the fine-tuned model (JSON Lines).")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(help="Reference answers for ROUGE-L: rows with id and output (or response)."),
    ] = None,
    verdicts: Annotated[Path | None, typer.Option(help="Verdicts of `alpacare judge`.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="More figures for the before/after table (JSON Lines): name, before, after, better "
            '("lower" or "higher"), and optionally digits, unit, note.'
        ),
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="Answers shown side by side.")] = 20,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "AlpaCare-JAX report",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a run's curves, figures and answers as one HTML page.

    The page needs no network. What is not given is named as missing. Held-out
    loss before and after comes from the run's own validation at its first and
    last step.
    """
    from alpacare_jax.cli.judge_verb import refuse_existing
    from alpacare_jax.report import ReportInputs, write_report

    refuse_existing(out, overwrite)
    config = read_run(run)
    metrics = read_rows(run / "metrics.jsonl")
    comparison = [*validation_rows(metrics), *(read_figures(figures) if figures else [])]
    rouge_rows, answers = compare_answers(before, after, references)
    manifests = read_manifests(packed or config_data(config))
    steps_s = sum(row["step_ms"] for row in metrics if "step_ms" in row) / 1e3
    inputs = ReportInputs(
        title=title,
        subtitle=str(run),
        funnel=read_object(synthesis / "funnel.json") if synthesis else None,
        rejected=read_rows(synthesis / "rejected.jsonl") if synthesis else (),
        packing=manifests,
        metrics=metrics,
        comparison=[*comparison, *rouge_rows],
        answers=answers[:shown],
        scores=score(verdicts) if verdicts else None,
        provenance=gather_provenance(run, packed or config_data(config)),
        config=config,
        wall_times_s={"training steps": steps_s} if steps_s else {},
    )
    write_report(inputs, out)
    typer.echo(f"wrote {out}")


def read_run(run: Path) -> str:
    """Return the text of a run's config.

    Raises:
        DataError: The folder holds neither config nor metrics.
    """
    from datagen.errors import DataError

    config = run / "config.yaml"
    if not config.exists() and not (run / "metrics.jsonl").exists():
        raise DataError(
            "this is not a run folder",
            where=run,
            found="neither config.yaml nor metrics.jsonl",
            expected="a folder that `alpacare train` wrote",
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
    from datagen.errors import DataError
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


def compare_answers(
    before: Path | None, after: Path | None, references: Path | None
) -> "tuple[list[ComparisonRow], list[AnswerComparison]]":
    """Join answers before and after by id, with ROUGE-L against the references where these are given.

    Returns:
        The row of mean ROUGE-L (none without references), and every question with its answers.

    Raises:
        DataError: The files are not about the same questions.
    """
    from alpacare_jax.evaluate import answers
    from alpacare_jax.evaluate.rouge import RougeL, mean_rouge_l
    from alpacare_jax.report import AnswerComparison, ComparisonRow

    sides = [answers.read_responses(path) if path else [] for path in (before, after)]
    texts = [{response.id: response.response for response in side} for side in sides]
    known = answers.read_reference_texts(references) if references else {}
    if all(sides):
        answers.check_join(
            answers.as_answers(sides[0], before or ""), answers.as_answers(sides[1], after or "")
        )
    rouge: list[RougeL | None] = [mean_rouge_l(side, known) if side and known else None for side in texts]
    of = [figure.by_id if figure else {} for figure in rouge]
    asked = {response.id: response for side in sides for response in side}
    table = [
        AnswerComparison(
            id=id_,
            instruction=response.instruction,
            input=response.input if response.input.strip().lower() != "<noinput>" else "",
            reference=known.get(id_, ""),
            before=texts[0].get(id_),
            after=texts[1].get(id_),
            before_rouge=of[0].get(id_),
            after_rouge=of[1].get(id_),
        )
        for id_, response in asked.items()
    ]
    if not any(rouge):
        return [], table
    row = ComparisonRow(
        "ROUGE-L F1",
        rouge[0].mean if rouge[0] else None,
        rouge[1].mean if rouge[1] else None,
        "higher",
        before_interval=rouge[0].interval if rouge[0] else None,
        after_interval=rouge[1].interval if rouge[1] else None,
        note=f"answers to {len(asked)} questions against their references",
    )
    return [row], table


def score(verdicts: Path) -> dict[str, Any]:
    """Score a verdict file into plain values."""
    from alpacare_jax.evaluate.scores import score_verdicts
    from datagen.records import Verdict, read_records

    return json.loads(json.dumps(score_verdicts(read_records(verdicts, Verdict)).to_dict()))


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
    from datagen.errors import DataError

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
