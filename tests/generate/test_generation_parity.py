"""Greedy generation against ``transformers``: the same tokens."""

from pathlib import Path

import numpy as np
import pytest

from alpacare_jax import LanguageModel, convert, load
from alpacare_jax.data.examples import encode_prompt
from alpacare_jax.generate import Engine, Generation, SamplingParams
from alpacare_jax.model import Architecture

pytestmark = pytest.mark.torch
LENGTHS = [1, 5, 16, 23, 40, 64, 90, 128]


def theirs(folder: Path, prompts: list[list[int]], count: int, stop_at_end: bool) -> list[list[int]]:
    """What ``transformers`` generates greedily, prompts padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    ends = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = ends if stop_at_end else None
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads wait for each other so eagerly that a busy machine crawls
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)
    torch.set_num_threads(threads)
    found = out[:, longest:].tolist()
    if not stop_at_end:
        return found
    ends = {ends} if isinstance(ends, int) else set(ends)
    return [row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))] for row in found]


def ours(
    loaded: LanguageModel, prompts: list[list[int]], count: int, stop_at_end: bool, slots: int
) -> list[list[int]]:
    architecture = Architecture(loaded.config, loaded.compute)
    engine = Engine(architecture, loaded.params, loaded.tokenizer, slots=slots, max_len=512)
    sampling = SamplingParams(max_tokens=count, ignore_eos=not stop_at_end)
    asked = [engine.submit(Generation(prompt, sampling)) for prompt in prompts]
    engine.run()
    return [generation.tokens for generation in asked]


def test_a_small_model_generates_the_same_tokens(tiny_folder: Path) -> None:
    rng = np.random.default_rng(7)
    prompts = [rng.integers(3, 300, length).tolist() for length in LENGTHS]
    loaded = load(tiny_folder, dtype="float32", precision="highest")
    assert ours(loaded, prompts, 64, False, slots=3) == theirs(tiny_folder, prompts, 64, False)


@pytest.mark.smollm2
@pytest.mark.slow
def test_smollm2_generates_the_same_tokens(smollm2_gguf: Path, tmp_path: Path) -> None:
    loaded = load(smollm2_gguf, dtype="float32", precision="highest")
    folder = tmp_path / "smollm2"
    convert.export(loaded.params, loaded.config, loaded.hf_folder, folder)
    tokenizer = loaded.tokenizer
    questions = [
        "What is anaemia?",
        "List three symptoms of diabetes, and say what each of them feels like.",
        "Why does the heart beat faster during exercise?",
        "Write a short note for a patient who was given antibiotics for the first time.",
        "Is a fever always a sign of an infection? Answer yes or no, then explain in one sentence.",
        "Which vitamin is made in the skin?",
        "Explain high blood pressure to a ten-year-old child, without using any medical words at all, please.",
        "Say yes.",
    ]
    prompts = [encode_prompt(question, "", tokenizer, "chat") for question in questions]
    assert len({len(prompt) for prompt in prompts}) >= 6
    found = ours(loaded, prompts, 64, True, slots=8)
    assert found == theirs(folder, prompts, 64, True)
    assert "medical condition" in tokenizer.decode(found[0])
