"""A tiny LLaMA with a real byte-level tokenizer and chat template, and engines over it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alpacare_jax import convert, sharding
from alpacare_jax.generate import Engine
from alpacare_jax.model import Architecture, LlamaConfig, Params
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CORPUS = [
    "The heart pumps blood through the body, and the lungs fill it with oxygen.",
    "A fever is a body temperature above the normal range; drink water and rest.",
    "Answer the question about the patient. What are the symptoms? The answer is yes.",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(CORPUS, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|im_end|>", bos_token="<|endoftext|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def architecture(tokenizer: Tokenizer) -> Architecture:
    size = -(-tokenizer.vocab_size // 8) * 8
    # Wide initial values keep the most probable token well ahead of the next.
    return Architecture(
        LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=512,
            initializer_range=0.5,
        )
    )


@pytest.fixture(scope="session")
def params(architecture: Architecture) -> Params:
    return architecture.init(3, sharding.single_device_mesh())


@pytest.fixture(scope="session")
def make_engine(architecture: Architecture, params: Params, tokenizer: Tokenizer) -> Callable[..., Engine]:
    """Build an engine; those asked for with the same arguments are shared, since compiling takes seconds."""
    made: dict[str, Engine] = {}

    def make(slots: int = 4, **options: object) -> Engine:
        key = f"{slots} {options}"
        if key not in made:
            made[key] = Engine(architecture, params, tokenizer, slots=slots, **options)  # type: ignore
        assert not made[key].busy
        return made[key]

    return make


@pytest.fixture(scope="session")
def forward(architecture: Architecture, params: Params) -> Callable[[list[int]], np.ndarray]:
    """The plain model: logits [n, V] of n tokens, in one go and without any cache."""
    run = jax.jit(lambda params, tokens: architecture.model(params)(tokens))

    def logits(tokens: list[int]) -> np.ndarray:
        padded = np.zeros((1, 512), np.int32)
        padded[0, : len(tokens)] = tokens  # causal: what stands to the right changes nothing
        return np.asarray(run(params, jnp.asarray(padded)))[0, : len(tokens)]

    return logits


@pytest.fixture(scope="session")
def tiny_folder(
    architecture: Architecture,
    params: Params,
    tokenizer_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    convert.export(params, architecture.config, tokenizer_folder, folder)
    return folder
