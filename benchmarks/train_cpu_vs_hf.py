"""Fine-tuning on CPU: useful tokens a second of this stack and of transformers' Trainer, in one run.

Both train the same model in fp32 on the same examples with the same tokens (Alpaca prompt, responses supervised). The
Trainer follows AlpaCare's recipe: an update for 16 examples, in batches of 4 padded to the longest of the batch,
gradients accumulated. This stack packs the same examples into rows of the sequence length, an update for 4 rows,
two at a time; about 16 examples fill 4 rows of 1,024, and as many examples are taken as fill whole updates. Useful
tokens are those that are not padding; they are the same for both, so the ratio of the rates is the ratio of the
times. The two run in turn, each in a process of its own, after a warm-up that is not counted.

    python benchmarks/train_cpu_vs_hf.py --model MODEL --data medquad_train.jsonl

MODEL is a model folder (`alpacare import`), which is exported once for transformers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PER_DEVICE, ACCUMULATE = 4, 4
ROWS_PER_UPDATE, MICROBATCHES = 4, 2


def main() -> None:
    """Run both in turn and print the table, or as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model folder, as `alpacare import` writes it")
    parser.add_argument("--data", required=True, help="instructions (JSON Lines)")
    parser.add_argument("--updates", type=int, default=4, help="updates of packed rows in a round")
    parser.add_argument("--seq-len", type=int, default=1024, help="row length; longer examples are left out")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", choices=("ours", "hf"), help=argparse.SUPPRESS)
    parser.add_argument("--hf-model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(WORKERS[arguments.worker](arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.hf_model = str(Path(folder) / "hf")
        subprocess.run(
            [sys.executable, "-m", "alpacare_jax", "export", arguments.model, "--out", arguments.hf_model],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rounds = [
            {worker: run_worker(worker, arguments) for worker in ("hf", "ours")}
            for _ in range(arguments.rounds)
        ]
    report(rounds, as_json=arguments.json)


def run_worker(worker: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one side in a process of its own and return its figures."""
    command = [sys.executable, __file__, "--worker", worker]
    for name in ("model", "data", "updates", "seq_len", "hf_model"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{worker:<5}{figures['useful_tokens'] / figures['seconds']:8.1f} useful tok/s",
        file=sys.stderr,
        flush=True,
    )
    return figures


def load_examples(arguments: argparse.Namespace) -> Any:
    """Encode instructions and choose, with a fixed seed, the examples to warm up on and those to time.

    Those to time are as many of the shuffled file as still fit the rows of whole updates.
    """
    import random

    from alpacare_jax.data.examples import encode_examples
    from alpacare_jax.data.packing import plan_sequences
    from alpacare_jax.tokenizer import load_tokenizer
    from datagen.records import Instruction, read_records

    instructions = read_records(arguments.data, Instruction)
    random.Random(0).shuffle(instructions)
    tokenizer = load_tokenizer(Path(arguments.model) / "hf")
    encoded = encode_examples(instructions[: 100 * arguments.updates + 100], tokenizer)
    fitting = [example for example in encoded if len(example) <= arguments.seq_len]
    warm, rest = fitting[: 2 * ROWS_PER_UPDATE], fitting[2 * ROWS_PER_UPDATE :]
    lengths = [len(example) for example in rest]
    count = 1
    while (
        count < len(rest)
        and len(plan_sequences(lengths[: count + 1], arguments.seq_len))
        <= arguments.updates * ROWS_PER_UPDATE
    ):
        count += 1
    return warm, rest[:count], tokenizer.pad_id


def figures_of(seconds: float, timed: Any, losses: list[float], slots: int) -> dict[str, Any]:
    """Return what a worker reports."""
    useful = sum(len(example) for example in timed)
    return {
        "seconds": seconds,
        "useful_tokens": useful,
        "fill": useful / slots,
        "losses": losses,
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def train_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train packed rows with this stack's step."""
    import jax

    from alpacare_jax import load, optim, sharding
    from alpacare_jax.data.loader import batches_in_order
    from alpacare_jax.data.packing import pack_sequences
    from alpacare_jax.model import Architecture
    from alpacare_jax.train import TrainStep

    warm, timed, pad_id = load_examples(arguments)
    rows = pack_sequences(timed, arguments.seq_len, pad_id=pad_id)
    mesh = sharding.single_device_mesh()
    loaded = load(arguments.model, mesh=mesh, dtype="float32")
    settings = optim.OptimConfig()
    train_step = TrainStep(
        Architecture(loaded.config),
        optim.make_optimizer(settings, 100),
        optim.make_schedule(settings, 100),
        mesh,
        microbatches=MICROBATCHES,
    )
    with sharding.use_mesh(mesh):
        state, step = train_step.start(loaded.params), train_step.compile_step()
        place = sharding.batch_sharding(mesh)
        warm_rows = pack_sequences(warm, arguments.seq_len, pad_id=pad_id)[:1] * ROWS_PER_UPDATE
        for arrays in batches_in_order(warm_rows, ROWS_PER_UPDATE, sharding=place):
            state, metrics = step(state, arrays)
            jax.block_until_ready(metrics)
        started, losses = time.perf_counter(), []
        for arrays in batches_in_order(rows, ROWS_PER_UPDATE, sharding=place, pad_id=pad_id):
            state, metrics = step(state, arrays)
            losses.append(float(metrics["loss"]))
        jax.block_until_ready(state)
    slots = arguments.updates * ROWS_PER_UPDATE * arguments.seq_len
    return figures_of(time.perf_counter() - started, timed, losses, slots)


def train_hf(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train padded batches with transformers' Trainer."""
    import numpy as np
    import torch
    import transformers

    warm, timed, pad_id = load_examples(arguments)
    slots = 0

    def collate(batch: Any) -> dict[str, Any]:
        nonlocal slots
        longest = max(len(example) for example in batch)
        slots += longest * len(batch)
        ids = torch.full((len(batch), longest), pad_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, example in enumerate(batch):
            tokens = torch.from_numpy(example.tokens.astype(np.int64))
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            labels[row, : len(tokens)] = torch.where(torch.from_numpy(example.loss_mask) == 1, tokens, -100)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    losses: list[float] = []

    class Recording(transformers.Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            return loss

    model = transformers.LlamaForCausalLM.from_pretrained(arguments.hf_model, dtype=torch.float32)

    def train(examples: Any, out: str) -> float:
        settings = transformers.TrainingArguments(
            output_dir=out,
            num_train_epochs=1,
            per_device_train_batch_size=PER_DEVICE,
            gradient_accumulation_steps=ACCUMULATE,
            learning_rate=2e-5,
            lr_scheduler_type="cosine",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = Recording(model=model, args=settings, train_dataset=examples, data_collator=collate)
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as out:
        train(warm[:PER_DEVICE], out)
        slots, losses[:] = 0, []
        seconds = train(timed, out)
    return figures_of(seconds, timed, losses, slots)


WORKERS = {"ours": train_ours, "hf": train_hf}


def report(rounds: list[dict[str, dict[str, Any]]], *, as_json: bool) -> None:
    """Print rates, shares of useful slots, memory and the ratio."""
    import importlib.metadata

    def rate(figures: dict[str, Any]) -> float:
        return figures["useful_tokens"] / figures["seconds"]

    summary = {
        "ratio": statistics.median(rate(one["ours"]) / rate(one["hf"]) for one in rounds),
        "tokens_per_s": {side: statistics.median(rate(one[side]) for one in rounds) for side in WORKERS},
        "useful_share_of_slots": {side: rounds[0][side]["fill"] for side in WORKERS},
        "peak_memory_gib": {side: rounds[0][side]["peak_memory_bytes"] / 2**30 for side in WORKERS},
        "useful_tokens": rounds[0]["ours"]["useful_tokens"],
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch", "transformers")},
    }
    if as_json:
        print(json.dumps(summary | {"rounds": rounds}, indent=2))
        return
    print(f"{'':<24}{'useful tok/s':>14}{'useful slots':>14}{'peak memory':>14}")
    for side, name in (("ours", "AlpaCare-JAX, packed"), ("hf", "Trainer, padded")):
        print(
            f"{name:<24}{summary['tokens_per_s'][side]:>14.1f}{summary['useful_share_of_slots'][side]:>14.1%}"
            f"{summary['peak_memory_gib'][side]:>10.2f} GiB"
        )
    print(
        f"ratio {summary['ratio']:.2f} (median of {len(rounds)} rounds of {summary['useful_tokens']:,} useful tokens)"
    )
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    print(f"{summary['cores']} cores; {versions}")


if __name__ == "__main__":
    main()
