"""The real SmolLM2, from GGUF through Orbax to a folder that transformers loads."""

import numpy as np
import pytest

from alpacare_jax import load
from alpacare_jax.tokenizer import load_tokenizer

pytestmark = [pytest.mark.smollm2, pytest.mark.slow]

PROMPTS = (
    "A fever is a body temperature above the normal range.",
    "Patients with asthma should avoid",
    "What causes high blood pressure?",
    "Below is an instruction that describes a task.",
    "In 1928 Fleming noticed that mould killed bacteria.",
    "Wash your hands before you treat a wound.",
    "To measure blood pressure, wrap the cuff",
    "Paracetamol is taken for pain and fever",
)
# Known spellings: one digit a token, words with their leading space, one id a control token.
TEXTS = {
    "<|im_start|>user\nhi<|im_end|>": [1, 4093, 198, 6004, 2],
    "Hello  world 12345 3.14": [19556, 216, 905, 216, 33, 34, 35, 36, 37, 216, 35, 30, 33, 36],
}


def test_the_tokenizer_is_whole_and_the_same_for_transformers(smollm2_hf):
    from transformers import AutoTokenizer, GenerationConfig

    ours, theirs = load_tokenizer(smollm2_hf), AutoTokenizer.from_pretrained(smollm2_hf)
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.vocab_size) == (1, 2, 2, 49152)
    for text, ids in TEXTS.items():
        assert ours.encode(text) == ids
    for text in (*TEXTS, *PROMPTS, "naïve café 東京 🩺\n\n\ttab's don't I'LL", " a  b   c ", "x=[1,2];\r\n"):
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert ours.decode(ids, skip_special_tokens=False) == text
    chat = [{"role": "user", "content": "What is asthma?"}]
    ids = ours.apply_chat_template(chat, add_generation_prompt=True)
    assert ids == theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids[0] == 1
    assert ids.count(1) == 3
    assert GenerationConfig.from_pretrained(smollm2_hf).eos_token_id == 2


@pytest.mark.torch
def test_logits_agree_with_transformers(smollm2_ckpt, smollm2_hf):
    """Largest difference over all tokens of a text: at most 1e-4, unless torch itself is further from the truth.

    Hidden states of this model reach 25,000, so fp32 leaves torch itself 4e-5 to 1.6e-4 from the exact logits
    (taken in fp64). The texts were chosen as ones that agreed well; benchmarks/parity.py takes unchosen ones. This
    model must lie within 1e-4 of the exact logits on every text, and within 1e-4 of torch on every text on which
    torch does.
    """
    import jax.numpy as jnp
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(smollm2_hf)
    rows = [tokenizer.encode(text) for text in PROMPTS]
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, text in zip(ids, rows, strict=True):
        row[: len(text)] = text
    found = np.asarray(load(smollm2_ckpt, precision="highest").logits(jnp.asarray(ids)))
    with torch.no_grad():  # padding stands to the right, where the causal mask hides it
        theirs = AutoModelForCausalLM.from_pretrained(smollm2_hf, dtype=torch.float32)
        expected = theirs(torch.tensor(ids, dtype=torch.long)).logits.numpy()
        theirs = theirs.double()
        theirs.model.rotary_emb.inv_freq = theirs.model.rotary_emb.inv_freq.double()
        exact = theirs(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    expected, exact = ([kind[i, : len(row)] for i, row in enumerate(rows)] for kind in (expected, exact))
    found = [found[i, : len(row)] for i, row in enumerate(rows)]
    worst = [float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)]
    rounding = [float(np.abs(a - b).max()) for a, b in zip(expected, exact, strict=True)]
    ours = [float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=True)]
    print("from torch", worst, "from exact", ours, "torch from exact", rounding)
    assert max(ours) <= 1e-4
    assert max(a for a, b in zip(worst, rounding, strict=True) if b <= 1e-4) <= 1e-4
    assert sum(b <= 1e-4 for b in rounding) >= 6, (
        "a comparison with torch needs texts on which torch is exact"
    )
    assert np.sqrt(np.mean((np.concatenate(found) - np.concatenate(expected)) ** 2)) <= 2e-5
