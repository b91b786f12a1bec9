"""Tokenizers small enough to make in a test, and one real one."""

from pathlib import Path

import pytest
from hypothesis import settings

from alpacare_jax.tokenizer import Tokenizer, load_tokenizer

# A busy machine is no failure: only pytest's own limit on time counts.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def llama_model_file() -> Path:
    """A real sentencepiece model of LLaMA's layout with 32,000 pieces."""
    import mistral_common

    return Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"


@pytest.fixture(scope="session")
def llama(llama_model_file: Path) -> Tokenizer:
    """The tokenizer of that model."""
    return load_tokenizer(llama_model_file)


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE tokenizer, trained here, with a chat template and no BOS of its own."""
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "What lowers blood pressure in heart failure? ACE inhibitors do, and so do diuretics."
    rust.train_from_iterator([text] * 4, trainer)
    folder = tmp_path_factory.mktemp("chat-tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=CHATML
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat(chat_folder: Path) -> Tokenizer:
    """The tokenizer of that folder."""
    return load_tokenizer(chat_folder)


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Every ASCII character is a token whose id is its code; BOS is 1, EOS 2."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Rust
    from transformers import PreTrainedTokenizerFast

    vocabulary = {chr(code): code for code in range(128)}
    for code, text in ((1, "<s>"), (2, "</s>")):
        del vocabulary[chr(code)]
        vocabulary[text] = code
    rust = Rust(models.WordLevel(vocabulary, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    rust.decoder = decoders.Fuse()
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path_factory.mktemp("letters")
    PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return load_tokenizer(folder)
