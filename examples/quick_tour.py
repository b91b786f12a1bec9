"""The quick tour: load a model, ask it, pack your tasks, train adapters for two steps, export.

python examples/quick_tour.py MODEL TASKS.jsonl OUT
"""

import sys

import alpacare_jax as alpacare

reference, tasks, out = sys.argv[1:]
model = alpacare.load(reference, dtype="float32")
question = "Name a sign of fever."
print(model.generate(question, max_tokens=16))

data = alpacare.pack(tasks, model.tokenizer, seq_len=512)
config = alpacare.TrainConfig(steps=2, batch_size=2, lora=alpacare.LoRA(rank=4))
trainer = alpacare.Trainer(model, data, config)
trainer.train()

print(trainer.model.generate(question, max_tokens=16))
trainer.model.save_pretrained(out)
