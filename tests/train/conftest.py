"""A model, a tokenizer and packed data, all tiny, all through the real code."""

import shutil
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with an end token, and the config.json of a tiny LLaMA beside it."""
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", *alphabet])}
    rust = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight small instructions."""
    import json

    path = tmp_path_factory.mktemp("instructions") / "tasks.jsonl"
    rows = [
        {
            "id": str(n),
            "instruction": f"Name sign {n} of fever.",
            "input": "",
            "output": "Chills and sweat. " * (n % 5 + 1),
        }
        for n in range(48)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def packed(tokenizer_folder: Path, instructions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instructions packed into rows of 512 tokens."""
    from alpacare_jax import pack

    out = tmp_path_factory.mktemp("packed") / "train"
    pack(instructions, tokenizer_folder, seq_len=512, out=out)
    return out


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is remembered for a user from run to run, apart from that of the person who tests."""
    return tmp_path_factory.mktemp("cache")


def write_run(folder: Path, tokenizer_folder: Path, packed: Path) -> Path:
    path = folder / "run.yaml"
    values = {
        "out": str(folder / "run"),
        "architecture": str(tokenizer_folder / "config.json"),
        "train_data": str(packed),
        "mesh": {"fsdp": -1},
        "optim": {"learning_rate": 1e-2},
        "train": {"steps": 6, "batch_rows": 8, "checkpoint_every": 2, "keep_checkpoints": 5, "seed": 1},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def run_yaml(
    tokenizer_folder: Path, packed: Path, user_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of six steps from random weights, with a checkpoint every second step."""
    monkeypatch.setenv("ALPACARE_CACHE", str(user_cache))
    return write_run(tmp_path, tokenizer_folder, packed)


@pytest.fixture(scope="session")
def trained_once(
    tokenizer_folder: Path, packed: Path, user_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from alpacare_jax.train import Trainer, load_config

    path = write_run(tmp_path_factory.mktemp("trained"), tokenizer_folder, packed)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ALPACARE_CACHE", str(user_cache))
        Trainer.from_config(load_config(path)).train()
    return path.parent / "run"


@pytest.fixture
def whole(trained_once: Path, tmp_path: Path) -> Path:
    """The folder that ``run_yaml`` names, as the finished run left it; a copy for every test."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))
