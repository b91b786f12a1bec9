"""The loss curve of AlpaCare's recipe, step by step, against the same recipe in transformers' Trainer on torch."""

import numpy as np
import pytest

import alpacare_jax as alpacare
from alpacare_jax.data.examples import Example
from alpacare_jax.data.loader import SequenceOrder
from alpacare_jax.data.packing import pack_sequences

pytestmark = pytest.mark.torch

STEPS, BATCH, MICROBATCHES, LENGTH, SEED = 10, 8, 2, 48, 3
LEARNING_RATE = 2e-3  # far above the recipe's 2e-5, so that ten steps move the loss


@pytest.fixture(scope="module")
def examples():
    """Forty examples of varied length: an unsupervised prompt and a supervised response."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        prompt, response = int(rng.integers(4, 16)), int(rng.integers(3, 30))
        tokens = rng.integers(3, 128, prompt + response).astype(np.int32)
        mask = np.array([0] * prompt + [1] * response, np.int32)
        made.append(Example(tokens, mask, str(number)))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny LLaMA as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    path = tmp_path_factory.mktemp("trainer") / "hf"
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def trainer_losses(folder, examples, out, weight_decay):
    """Train with transformers on the given examples in the given order, and return the loss of every step."""
    import torch
    import transformers

    losses = []

    class Recording(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            return loss

    def collate(batch):
        longest = max(len(example) for example in batch)
        padded = {
            name: torch.zeros(len(batch), longest, dtype=torch.long)
            for name in ("input_ids", "attention_mask")
        }
        padded["labels"] = torch.full((len(batch), longest), -100)
        for row, example in enumerate(batch):
            ids = torch.from_numpy(example.tokens.astype(np.int64))
            padded["input_ids"][row, : len(ids)] = ids
            padded["attention_mask"][row, : len(ids)] = 1
            padded["labels"][row, : len(ids)] = torch.where(
                torch.from_numpy(example.loss_mask) == 1, ids, -100
            )
        return padded

    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH // MICROBATCHES,
        gradient_accumulation_steps=MICROBATCHES,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=1,  # ceil(0.03 x 10)
        weight_decay=weight_decay,
        max_grad_norm=1.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    Recording(model=model, args=arguments, train_dataset=examples, data_collator=collate).train()
    return np.add.reduceat(losses, range(0, STEPS * MICROBATCHES, MICROBATCHES))


def our_losses(folder, examples, weight_decay):
    """Train with this stack's trainer, one example a row, and return the loss of every step."""
    config = alpacare.TrainConfig(
        steps=STEPS,
        batch_size=BATCH,
        microbatches=MICROBATCHES,
        seed=SEED,
        optim=alpacare.Optim(learning_rate=LEARNING_RATE, weight_decay=weight_decay),
    )
    lines = []
    model, rows = alpacare.load(folder, dtype="float32"), pack_sequences(examples, LENGTH, pack=False)
    alpacare.Trainer(model, rows, config, callbacks=[lines.append]).train()
    return np.array([line["loss"] for line in lines])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_ten_steps_of_the_recipe_give_the_trainers_losses(folder, examples, tmp_path, weight_decay):
    order = SequenceOrder(len(examples), SEED).window(0, STEPS * BATCH)
    expected = trainer_losses(folder, [examples[row] for row in order], tmp_path / "hf", weight_decay)
    found = our_losses(folder, examples, weight_decay)
    assert expected[-1] < expected[0] - 0.05, "the loss must move for this to say anything"
    difference = np.max(np.abs(found - expected) / expected)
    print(f"largest relative difference: {difference:.1e}")
    assert difference <= 1e-4
