"""The side of transformers on torch: the same shapes and examples, in each of its settings worth trying."""

import dataclasses
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from alpacare_jax.data.examples import Example
from sft.rows import Work, examples_of, packed


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to train with transformers.

    Args:
        layout: "padded" (examples side by side, padded to the longest) or "packed" (examples end to end in rows).
        attention: ``attn_implementation``.
        checkpointing: Gradient checkpointing.
        at_once: Examples (padded) or rows (packed) in a forward pass.
        weights: Dtype of trained weights; "float32" computes under autocast.
        compiled: Whether the model goes through ``torch.compile``.
    """

    layout: str
    attention: str
    checkpointing: bool
    at_once: int
    weights: str = "float32"
    compiled: bool = False

    def __str__(self) -> str:
        parts = [self.layout, self.attention, f"{self.at_once} at once", f"{self.weights} weights"]
        parts += ["checkpointing"] * self.checkpointing + ["compiled"] * self.compiled
        return ", ".join(parts)


def settings(work: Work) -> Iterator[Setting]:
    """Yield the settings to try: AlpaCare's padded recipe first, then each that may be faster."""
    flash = importlib.util.find_spec("flash_attn") is not None
    kernels = ("sdpa", "flash_attention_2") if flash else ("sdpa",)
    for attention in kernels:
        yield Setting("padded", attention, True, 4)
        yield Setting("padded", attention, False, 4)
        yield Setting("padded", attention, True, 16)
    # Rows whose segments do not see each other: a block mask for sdpa, lengths for flash attention, flex's own mask.
    for attention in (*kernels[::-1], "flex_attention"):
        for at_once in sorted({work.rows, max(1, work.rows // 4), 1}, reverse=True):
            yield Setting("packed", attention, True, at_once, compiled=attention == "flex_attention")
        yield Setting("packed", attention, False, 1, compiled=attention == "flex_attention")


def recipe(work: Work) -> Setting:
    """Return AlpaCare's own setting: padded batches of four, gradients accumulated and checkpointed."""
    del work
    return Setting("padded", "sdpa", True, 4)


def train(work: Work, setting: Setting, device: str) -> dict[str, Any]:
    """Time updates and return the figures of one setting.

    Args:
        work: What is trained on.
        setting: How.
        device: "cuda" or "cpu".
    """
    import torch
    import transformers

    from alpacare_jax.model.shapes import named_shape

    shape = named_shape(work.shape)
    shape = dataclasses.replace(shape, num_hidden_layers=work.layers or shape.num_hidden_layers)
    # With a cache transformers does not look for the segments of packed rows, and lets them see each other.
    hf = transformers.LlamaConfig(**shape.to_hf(), attn_implementation=setting.attention, use_cache=False)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    model = _make_model(work, hf, setting, device)
    if setting.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    if setting.compiled:
        model.compile()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, weight_decay=0.0, fused=device == "cuda")
    updates = examples_of(work, shape.vocab_size)

    def update(examples: list[Example]) -> tuple[float, int]:
        batches = list(_batches(examples, work, setting))
        targets = sum(int((batch["labels"] != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            inputs = {name: torch.as_tensor(array, device=device) for name, array in batch.items()}
            labels = inputs.pop("labels")
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = model(**inputs, labels=labels, num_items_in_batch=targets).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total, sum(batch["input_ids"].size for batch in batches)

    started = time.perf_counter()
    update(updates[0])
    _wait(device)
    first_s, started = time.perf_counter() - started, time.perf_counter()
    done = [update(examples) for examples in updates[1:]]
    _wait(device)
    return {
        "seconds": time.perf_counter() - started,
        "first_update_s": first_s,
        "useful_tokens": sum(len(example) for examples in updates[1:] for example in examples),
        "slots": sum(slots for _, slots in done),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "losses": [loss for loss, _ in done],
    }


def _make_model(work: Work, hf: Any, setting: Setting, device: str) -> Any:
    import torch
    import transformers

    weights = getattr(torch, setting.weights) if work.method == "full" else torch.bfloat16
    if device == "cpu":
        weights = torch.float32
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(hf, dtype=weights)
    if work.method == "full":
        return model
    import peft

    if work.method == "qlora":
        model = _quantize(model)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=targets))


def _quantize(model: Any) -> Any:
    """Replace the layers' linear modules by bitsandbytes' nf4 ones, weights included."""
    import bitsandbytes
    import torch

    for layer in model.model.layers:
        for module in (layer.self_attn, layer.mlp):
            for name, linear in list(module.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    small = bitsandbytes.nn.Linear4bit(
                        linear.in_features,
                        linear.out_features,
                        bias=False,
                        quant_type="nf4",
                        compute_dtype=torch.bfloat16,
                        compress_statistics=True,
                    )
                    small.weight = bitsandbytes.nn.Params4bit(
                        linear.weight.data, requires_grad=False, quant_type="nf4"
                    )
                    setattr(module, name, small.to(linear.weight.device))
    model.is_loaded_in_4bit = True
    return model


def _batches(examples: list[Example], work: Work, setting: Setting) -> Iterator[dict[str, np.ndarray]]:
    """Lay an update's examples out as the setting wants them."""
    if setting.layout == "padded":
        for at in range(0, len(examples), setting.at_once):
            yield _padded(examples[at : at + setting.at_once])
        return
    rows = packed(examples, work)
    for at in range(0, len(rows), setting.at_once):
        yield _rows(rows[at : at + setting.at_once], setting)


def _padded(examples: list[Example]) -> dict[str, np.ndarray]:
    longest = max(map(len, examples))
    ids = np.zeros((len(examples), longest), np.int64)
    seen, labels = np.zeros_like(ids), np.full_like(ids, -100)
    for row, example in enumerate(examples):
        n = len(example)
        ids[row, :n], seen[row, :n] = example.tokens, 1
        labels[row, :n] = np.where(example.loss_mask == 1, example.tokens, -100)
    return {"input_ids": ids, "attention_mask": seen, "labels": labels}


def _rows(rows: list[Any], setting: Setting) -> dict[str, np.ndarray]:
    """Lay packed rows out; positions that start anew tell transformers where segments begin."""
    ids = np.stack([row["tokens"] for row in rows]).astype(np.int64)
    positions = np.stack([row["positions"] for row in rows]).astype(np.int64)
    mask = np.stack([row["loss_mask"] for row in rows])
    labels = np.where(mask == 1, ids, -100)
    if setting.attention == "flash_attention_2":  # wants one row, end to end
        ids, positions, labels = (array.reshape(1, -1) for array in (ids, positions, labels))
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
