"""Your own data to a fine-tuned model: pack, train adapters with validation, evaluate before and after, export.

python examples/own_data.py MODEL DATA.jsonl OUT [--steps 200]

DATA.jsonl holds one record a line with `instruction`, `input` (may be empty) and `output`; the last tenth is held out.
OUT receives the run (`OUT/run`, resumed if it exists), both evaluations and the exported model (`OUT/model`).
"""

import argparse
import json
from pathlib import Path

import alpacare_jax as alpacare

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="model folder, Hugging Face folder or name, or .gguf file")
parser.add_argument("data", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

records = [json.loads(line) for line in arguments.data.read_text().splitlines() if line.strip()]
held_out = max(1, len(records) // 10)
training, validation = records[:-held_out], records[-held_out:]

model = alpacare.load(arguments.model)
before = alpacare.evaluate(model, validation, max_tokens=64)

config = alpacare.TrainConfig(
    steps=arguments.steps,
    batch_size=8,
    validate_every=50,
    lora=alpacare.LoRA(rank=16),
    optim=alpacare.Optim(learning_rate=2e-4),
)
trainer = alpacare.Trainer(
    model,
    alpacare.pack(training, model.tokenizer, seq_len=512),
    config,
    validation=alpacare.pack(validation, model.tokenizer, seq_len=512),
    out=arguments.out / "run",
)
trainer.train()

after = alpacare.evaluate(trainer.model, validation, max_tokens=64)
for figure in ("perplexity", "rouge_l"):
    print(f"{figure}: {before[figure]:.3f} before, {after[figure]:.3f} after")
trainer.model.save_pretrained(arguments.out / "model")
