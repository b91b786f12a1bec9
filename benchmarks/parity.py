"""Logits of a real model here and in transformers on torch, fp32, and how far both are from the exact ones.

    python benchmarks/parity.py --model MODEL --data medquad_valid.jsonl

MODEL is a model folder (`alpacare import`); it is exported and loaded by transformers unchanged. "Exact" is
transformers in fp64. Each text is the instruction and output of a row, cut to a number of tokens. The figures are the
largest absolute difference over all tokens and the whole vocabulary of a text.
"""

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--data", required=True, help="instructions (JSON Lines)")
    parser.add_argument("--texts", type=int, default=16, help="texts compared")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each, at most")
    arguments = parser.parse_args()
    differences = compare(arguments)
    print(
        f"{'largest difference of a text':<36}{'smallest':>10}{'median':>10}{'largest':>10}{'within 1e-4':>13}"
    )
    for name, values in differences.items():
        within = f"{sum(value <= 1e-4 for value in values)} of {len(values)}"
        print(f"{name:<36}{min(values):>10.1e}{np.median(values):>10.1e}{max(values):>10.1e}{within:>13}")
    print(
        ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch", "transformers"))
    )


def compare(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the largest difference of every text, for each pair of implementations."""
    import jax
    import torch
    import transformers

    from alpacare_jax import load
    from datagen.records import Instruction, read_records

    rows = read_records(arguments.data, Instruction)[: arguments.texts]
    loaded = load(arguments.model, dtype="float32", precision="highest")
    ours = jax.jit(lambda tokens: loaded.module(tokens))
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "hf")
        command = [sys.executable, "-m", "alpacare_jax", "export", arguments.model, "--out", out]
        subprocess.run(command, check=True, capture_output=True)
        load = transformers.LlamaForCausalLM.from_pretrained
        theirs: Any = load(out, dtype=torch.float32, attn_implementation="sdpa", precision="highest")
        eager: Any = load(out, dtype=torch.float32, attn_implementation="eager", precision="highest")
        exact: Any = load(out, dtype=torch.float64, precision="highest")
    exact.model.rotary_emb.inv_freq = exact.model.rotary_emb.inv_freq.double()
    found: dict[str, list[float]] = {
        "here from torch": [],
        "here from exact": [],
        "torch from exact": [],
        "torch (eager) from torch (sdpa)": [],
    }
    for row in rows:
        ids = loaded.tokenizer.encode(row.instruction + "\n" + row.output)[: arguments.tokens]
        with torch.no_grad():
            a, b, d = (model(torch.tensor([ids])).logits[0].numpy() for model in (theirs, exact, eager))
        c = np.asarray(ours(np.array([ids], np.int32)))[0]
        for name, pair in zip(found, ((c, a), (c, b), (a, b), (d, a)), strict=True):
            found[name].append(float(np.abs(pair[0] - pair[1]).max()))
    return found


if __name__ == "__main__":
    main()
