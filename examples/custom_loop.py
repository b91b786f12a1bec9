"""A training loop of your own around `Trainer.step`: stop when the loss on held-out data no longer falls.

python examples/custom_loop.py MODEL TASKS.jsonl OUT [--patience 3]

`Trainer` still does the sharding, the learning-rate schedule, the adapters and the checkpoints; the loop decides when
to measure, when to save and when to stop. Started again with the same OUT, it goes on from the last checkpoint.
"""

import argparse
import json
from pathlib import Path

import alpacare_jax as alpacare

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="model folder, Hugging Face folder or name, or .gguf file")
parser.add_argument("tasks", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument(
    "--patience", type=int, default=3, help="measurements without improvement before stopping"
)
parser.add_argument("--measure-every", type=int, default=10, help="steps between measurements")
parser.add_argument("--steps", type=int, default=1000, help="steps at most")
arguments = parser.parse_args()

records = [json.loads(line) for line in arguments.tasks.read_text().splitlines() if line.strip()]
held_out = max(1, len(records) // 10)
model = alpacare.load(arguments.model)
data = alpacare.pack(records[:-held_out], model.tokenizer, seq_len=512)
config = alpacare.TrainConfig(steps=arguments.steps, batch_size=8, lora=alpacare.LoRA(rank=16))
trainer = alpacare.Trainer(model, data, config, out=arguments.out)

best, worse = float("inf"), 0
for batch in trainer.batches():
    metrics = trainer.step(batch)
    print(f"step {trainer.taken}: loss {metrics['loss']:.4f}")
    if trainer.taken % arguments.measure_every:
        continue
    loss = alpacare.evaluate(trainer.model, records[-held_out:], max_tokens=0)["loss"]
    print(f"step {trainer.taken}: held-out loss {loss:.4f}")
    if loss < best:
        best, worse = loss, 0
        trainer.save()
    else:
        worse += 1
    if worse == arguments.patience:
        break
print(f"best held-out loss {best:.4f}; the checkpoint is in {arguments.out}")
