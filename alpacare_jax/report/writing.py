"""Writing a report's page: of a training run with what belongs to it, or of a synthesis work folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ConfigError
from alpacare_jax.evaluate.tables import score
from alpacare_jax.report import comparison
from alpacare_jax.report.files import Journal, config_data, read_journal, read_manifests, read_rows, read_run
from alpacare_jax.report.inputs import ReportInputs
from alpacare_jax.report.page import render, render_synthesis
from alpacare_jax.report.provenance import describe_code
from datagen.decoding import read_json_object
from datagen.files import hash_file, refuse_existing, write_text
from datagen.statistics import collect
from datagen.synthesize import Funnel

Place = str | Path | None


def report(
    run: str | Path,
    out: Place = None,
    *,
    synthesis: Place = None,
    packed: Sequence[str | Path] | None = None,
    before: Place = None,
    after: Place = None,
    references: Place = None,
    verdicts: Place = None,
    figures: Place = None,
    journal: Place = None,
    shown: int = 20,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a run's curves, figures and answers as one HTML page that needs no network.

    What is not given is named as missing. Held-out loss before and after comes from the two evaluations, or else
    from the run's own validation at its first and last step.

    Args:
        run: Run folder of a training, or work folder of a synthesis (also while a run writes to it), for which only
            ``out``, ``title`` and ``overwrite`` apply.
        out: HTML file to write; ``report.html`` in the folder when None.
        synthesis: Work folder of a synthesis, for the funnel.
        packed: Packed data sets; those that the run's config names when None.
        before: Folder of ``alpacare_jax.evaluate`` for the model before fine-tuning, or its responses.
        after: The same for the fine-tuned model.
        references: Reference answers for ROUGE-L: rows with id and output (or response).
        verdicts: Verdicts of ``alpacare_jax.judge``.
        figures: More rows for the before/after table: name, before, after, better.
        journal: Stages with their seconds and command lines (JSON).
        shown: Answers shown side by side.
        title: Heading of the page; names what the folder holds when None.
        overwrite: Replace an existing file.

    Returns:
        The file.

    Raises:
        ConfigError: An argument belongs to a training run, and the folder is of a synthesis.
        DataError: The file exists, the folder is neither, or a file is broken.

    Examples:
        >>> report("runs/a", title="LoRA of rank 16")
        PosixPath('runs/a/report.html')
    """
    run = Path(run)
    out = Path(out) if out else run / "report.html"
    refuse_existing(out, overwrite)
    given = [synthesis, references, verdicts, figures, journal, before, after]
    paths = [Path(each) if each else None for each in given]
    data = [Path(folder) for folder in packed or ()]
    if not (run / "config.json").exists() or (run / "config.yaml").exists():
        page = render(_training_inputs(run, title or ReportInputs.title, data, paths, shown))
    elif any([*paths, *data]):
        raise ConfigError(
            "an option was given that belongs to a training run",
            where=run,
            found="a work folder of `alpacare synthesize`",
            expected="only --out, --title and --overwrite",
        )
    else:
        page = render_synthesis(
            collect(run),
            title=title or "Synthesis report",
            subtitle=run.resolve().name,
            provenance=_work_provenance(run),
        )
    write_text(out, page)
    return out


def _training_inputs(
    run: Path, title: str, packed: list[Path], paths: list[Path | None], shown: int
) -> ReportInputs:
    """Read what the page of a training run shows."""
    synthesis, references, verdicts, figures, journal, *sides = paths
    config = read_run(run)
    metrics = read_rows(run / "metrics.jsonl")
    before, after = map(comparison.read_side, sides)
    rouge, answers = comparison.compare_answers(before, after, references)
    losses = comparison.held_out_losses(before, after) or comparison.validation_losses(metrics)
    more = comparison.read_rows(figures) if figures else []
    data = packed or config_data(config)
    stages = read_journal(journal) if journal else Journal(_training_time(run, metrics), {})
    return ReportInputs(
        title=title,
        subtitle=str(run),
        funnel=Funnel.read(synthesis / "funnel.json") if synthesis else None,
        rejected=read_rows(synthesis / "rejected.jsonl") if synthesis else (),
        packing=read_manifests(data),
        metrics=metrics,
        comparison=[*losses, *rouge, *more],
        answers=answers[:shown],
        scores=score(verdicts).to_dict() if verdicts else None,
        provenance=_run_provenance(run, data),
        config=config,
        commands=list(stages.commands.values()),
        wall_times_s=stages.seconds,
    )


def _training_time(run: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Say how long training took: the run's own wall time, else the sum of its steps."""
    if (run / "summary.json").exists():
        return {"training": float(read_json_object(run / "summary.json").get("wall_s", 0.0))}
    steps_s = sum(row["step_ms"] for row in metrics if "step_ms" in row) / 1e3
    return {"training steps": steps_s} if steps_s else {}


def _work_provenance(work: Path) -> dict[str, Any]:
    """Describe the report's sources: the work folder, its files, and the code that wrote the page."""
    return {
        "work folder": str(work.resolve()),
        "file, SHA-256": _hashes(work, "instructions.jsonl", "funnel.json", "config.json"),
        "report written with": describe_code(),
    }


def _run_provenance(run: Path, packed: Sequence[Path]) -> dict[str, Any]:
    """Describe the report's sources: run, model, data manifests, and the code that wrote the page."""
    described = read_json_object(run / "alpacare.json") if (run / "alpacare.json").exists() else {}
    description = {key: value for key, value in described.items() if key != "config"}
    hashes = {str(folder): hash_file(folder / "manifest.json") for folder in packed}
    return {
        "run folder": str(run.resolve()),
        "model": description,
        "data manifest, SHA-256": hashes,
        "run file, SHA-256": _hashes(run, "config.yaml", "metrics.jsonl"),
        "report written with": describe_code(),
    }


def _hashes(folder: Path, *names: str) -> dict[str, str]:
    return {name: hash_file(folder / name) for name in names if (folder / name).exists()}
