"""Writing a report's page: of a training run with what belongs to it, or of a synthesis work folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.cli import comparison
from alpacare_jax.cli.report_files import (
    config_data,
    read_journal,
    read_manifests,
    read_rows,
    read_run,
)
from datagen.decoding import read_json_object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What a training run's report draws on beside the run's folder; the help of ``alpacare report`` tells each."""

    synthesis: Path | None = None
    packed: Sequence[Path] = ()
    before: Path | None = None
    after: Path | None = None
    references: Path | None = None
    verdicts: Path | None = None
    figures: Path | None = None
    journal: Path | None = None


def is_work_folder(folder: Path) -> bool:
    """Say whether a folder is one that `alpacare synthesize` works in."""
    return (folder / "config.json").exists() and not (folder / "config.yaml").exists()


def report_training(run: Path, out: Path, title: str | None, sources: Sources, *, shown: int) -> None:
    """Write the page of a training run.

    Args:
        run: The run folder.
        out: The file to write.
        title: Heading of the page, or None.
        sources: Files of what came before and after the run.
        shown: Answers shown side by side.

    Raises:
        DataError: The folder is not that of a run, or a file is broken.
    """
    from alpacare_jax.report import ReportInputs, write_report

    config = read_run(run)
    metrics = read_rows(run / "metrics.jsonl")
    sides = (comparison.read_side(sources.before), comparison.read_side(sources.after))
    rouge, answers = comparison.compare_answers(*sides, sources.references)
    losses = comparison.figure_rows(*sides) or comparison.validation_rows(metrics)
    figures = comparison.read_figures(sources.figures) if sources.figures else []
    data = sources.packed or config_data(config)
    times, commands = read_journal(sources.journal) if sources.journal else (_training_time(run, metrics), [])
    synthesis = sources.synthesis
    inputs = ReportInputs(
        title=title or ReportInputs.title,
        subtitle=str(run),
        funnel=read_json_object(synthesis / "funnel.json") if synthesis else None,
        rejected=read_rows(synthesis / "rejected.jsonl") if synthesis else (),
        packing=read_manifests(data),
        metrics=metrics,
        comparison=[*losses, *rouge, *figures],
        answers=answers[:shown],
        scores=_score(sources.verdicts) if sources.verdicts else None,
        provenance=_run_provenance(run, data),
        config=config,
        commands=commands,
        wall_times_s=times,
    )
    write_report(inputs, out)


def report_synthesis(work: Path, out: Path, title: str | None, sources: Sources) -> None:
    """Write the page of a synthesis work folder.

    Args:
        work: The work folder.
        out: The file to write.
        title: Heading of the page, or None.
        sources: Files that were named; they belong to a training run.

    Raises:
        ConfigError: There are any.
    """
    from alpacare_jax.report import write_synthesis_report
    from datagen.errors import ConfigError
    from datagen.figures import gather

    if sources != Sources():
        raise ConfigError(
            "an option was given that belongs to a training run",
            where=work,
            found="a work folder of `alpacare synthesize`",
            expected="only --out, --title and --overwrite",
        )
    write_synthesis_report(
        gather(work),
        out,
        title=title or "Synthesis report",
        subtitle=work.resolve().name,
        provenance=_work_provenance(work),
    )


def _score(verdicts: Path) -> dict[str, Any]:
    """Score a verdict file into plain values."""
    from alpacare_jax.evaluate.scores import score_verdicts
    from datagen.records import Verdict, read_records

    return score_verdicts(read_records(verdicts, Verdict)).to_dict()


def _training_time(run: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Say how long training took: the run's own wall time, else the sum of its steps."""
    if (run / "summary.json").exists():
        return {"training": float(read_json_object(run / "summary.json").get("wall_s", 0.0))}
    steps_s = sum(row["step_ms"] for row in metrics if "step_ms" in row) / 1e3
    return {"training steps": steps_s} if steps_s else {}


def _work_provenance(work: Path) -> dict[str, Any]:
    """Name what the report rests on: the work folder, its files, and the code that wrote the page."""
    from alpacare_jax.report.provenance import describe_code

    return {
        "work folder": str(work.resolve()),
        "file, SHA-256": _hashes(work, "instructions.jsonl", "funnel.json", "config.json"),
        "report written with": describe_code(),
    }


def _run_provenance(run: Path, packed: Sequence[Path]) -> dict[str, Any]:
    """Name what the report rests on: run, model, data manifests, and the code that wrote the page."""
    from alpacare_jax.report.provenance import describe_code, hash_file

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
    from alpacare_jax.report.provenance import hash_file

    return {name: hash_file(folder / name) for name in names if (folder / name).exists()}
