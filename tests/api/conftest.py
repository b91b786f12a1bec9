"""A tiny model in a Hugging Face folder, with a tokenizer that spells bytes and a chat template."""

import json
from pathlib import Path

import pytest

from alpacare_jax import convert, sharding
from alpacare_jax.model import Architecture, LlamaConfig

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: two layers of random weights, 264 tokens."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {
        piece: number
        for number, piece in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    rust = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="</s>", chat_template=CHAT
    ).save_pretrained(str(tokenizer))
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    params = Architecture(config).init(0, sharding.single_device_mesh())
    convert.export(params, config, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen small instructions."""
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    rows = [
        {"instruction": f"Name sign {n} of fever.", "output": "Chills. " * (n % 3 + 1)} for n in range(16)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
