"""Losses of small models trained by several processes on this machine's CPU, against those of one process.

    python benchmarks/several_processes.py
    python benchmarks/several_processes.py --vocabularies 128256 --processes 4x2 --meshes context --steps 20

Every combination of tied and untied tables, vocabulary, processes x devices of each, and mesh axis that takes all
devices is trained from the same seed. The last column is the largest relative difference of a step's loss; a run that
ends early shows its exit status. With two cores a run takes 10 to 20 seconds.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ALPACARE = [sys.executable, "-m", "alpacare_jax"]
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def main() -> int:
    """Train all combinations and print the table; the exit status says whether all were right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabularies", default="1000,49152", help="sizes, with commas")
    parser.add_argument("--processes", default="2x1,2x2,4x1", help="processes x devices of each, with commas")
    parser.add_argument("--meshes", default="fsdp,tensor", help="mesh axes, with commas")
    parser.add_argument("--steps", type=int, default=5, help="steps of each run")
    given = parser.parse_args()
    right = True
    print(
        f"{'tables':<8}{'vocabulary':>10}{'processes':>11}  {'mesh':<11}{'steps':>5}{'largest difference':>20}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack(folder)
        for tied, vocabulary in itertools.product((True, False), map(int, given.vocabularies.split(","))):
            write_shape(folder, tied, vocabulary)
            alone, _ = train(folder, "1x1", {}, given.steps)
            for processes, axis in itertools.product(given.processes.split(","), given.meshes.split(",")):
                count, devices = map(int, processes.split("x"))
                losses, ended = train(folder, processes, {axis: count * devices}, given.steps)
                difference = max(
                    (abs(a - b) / b for a, b in zip(losses, alone, strict=False)), default=float("nan")
                )
                right &= len(losses) == len(alone) == given.steps and difference < 1e-4
                said = f"{difference:.1e}" if ended == 0 else f"exit status {ended}"
                print(
                    f"{'tied' if tied else 'untied':<8}{vocabulary:>10}{processes:>11}  "
                    f"{axis + '=' + str(count * devices):<11}{len(losses):>5}{said:>20}",
                    flush=True,
                )
    return 0 if right else 1


def pack(folder: Path) -> None:
    """Make a tokenizer of single bytes, and rows packed with it."""
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, **{letter: i for i, letter in enumerate(alphabet, 1)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    at = folder / "model"
    at.mkdir()
    tokenizer.save(str(at / "tokenizer.json"))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "</s>", "eos_token": "</s>"}
    (at / "tokenizer_config.json").write_text(json.dumps(special))
    rows = [
        {"instruction": f"Count to {n}.", "input": "", "output": " ".join(map(str, range(n)))}
        for n in range(2, 34)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["pack", "rows.jsonl", "--tokenizer", "model", "--seq-len", "256", "--out", "packed"]
    subprocess.run([*ALPACARE, *command], cwd=folder, check=True, capture_output=True)


def write_shape(folder: Path, tied: bool, vocabulary: int) -> None:
    """Write the architecture that is trained from random weights."""
    held = {**SHAPE, "vocab_size": vocabulary, "tie_word_embeddings": tied}
    (folder / "model" / "config.json").write_text(json.dumps(held))


def train(folder: Path, processes: str, mesh: dict[str, int], steps: int) -> tuple[list[float], int]:
    """Train and return the losses and the exit status."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        held: dict[str, Any] = {
            "out": str(Path(name) / "run"),
            "architecture": "model/config.json",
            "train_data": "packed",
            "mesh": mesh,
            "compute": {"dtype": "float32"},
            "optim": {"learning_rate": 1e-3},
            "train": {"batch_rows": 8, "steps": steps},
        }
        config = Path(name) / "train.yaml"
        config.write_text(json.dumps(held))
        count, _, devices = processes.partition("x")
        command = ["launch", "local", "--processes", count, "--devices-per-process", devices, "--"]
        done = subprocess.run(
            [*ALPACARE, *command, "train", "--config", str(config)], cwd=folder, capture_output=True
        )
        measured = Path(held["out"]) / "metrics.jsonl"
        lines = measured.read_text().splitlines() if measured.exists() else []
        return [row["loss"] for row in map(json.loads, lines) if "loss" in row], done.returncode


if __name__ == "__main__":
    sys.exit(main())
