"""Checks that packed data fit a run: row length, tokenizer and vocabulary."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from jax.sharding import Mesh

from alpacare_jax import checkpoint, convert, sharding, tokenizer, tokenizer_files
from alpacare_jax.cache import remembered
from alpacare_jax.data.dataset import PackedDataset
from alpacare_jax.data.manifest import describe_overrun
from alpacare_jax.errors import ConfigError, DataError
from alpacare_jax.model import LlamaConfig
from alpacare_jax.train.config import RunConfig

logger = logging.getLogger("alpacare.train")


def check_rows(config: RunConfig, data: PackedDataset, mesh: Mesh) -> None:
    """Check that the rows of a data set are as long as the configuration says and divide over the context axis.

    Raises:
        ConfigError: They are of another length.
        ShardingError: They do not divide.
    """
    if config.seq_len not in (None, data.row_length):
        raise ConfigError(
            "the rows are not as long as the configuration says",
            where="seq_len",
            found=f"{config.seq_len}; {data.where} holds rows of {data.row_length} tokens",
            remedy="change `seq_len`, or run `alpacare pack` with that --seq-len",
        )
    sharding.check_divides(mesh, {"length": data.row_length})


def check_vocabulary(hf_folder: Path, model: LlamaConfig, data: PackedDataset) -> None:
    """Check that data and model use the same tokens; warn of examples longer than the model's positions.

    A tokenizer may have tokens without an embedding, such as one for padding, as long as no row holds them.

    Raises:
        DataError: The data were packed with another tokenizer, or its ids exceed the model's table.
    """
    if any(hf_folder.glob("tokenizer*")) and data.manifest.tokenizer["fingerprint"]:
        check_tokenizer(hf_folder, data)
    longest = min(data.row_length, data.manifest.statistics.longest_example)
    if overrun := describe_overrun(longest, model.max_position_embeddings):
        logger.warning("%s: %s", data.where, overrun)
    found = data.manifest.largest_id
    if found >= model.vocab_size:
        raise DataError(
            "the tokenizer has more tokens than the model, and the rows hold some of them",
            where=data.where,
            found=f"id {found:,}",
            expected=f"at most {model.vocab_size - 1:,}",
            remedy="pack with the model's own tokenizer",
        )


def check_tokenizer(hf_folder: Path, data: PackedDataset) -> None:
    """Check that data were packed with a tokenizer; one that was read before is not read again to know that.

    A tokenizer's fingerprint depends on its files, and on the code and the libraries that read them. It is remembered
    by all of these in the user's cache, since reading a tokenizer takes a second of every start.

    Args:
        hf_folder: Folder of the tokenizer.
        data: The data set.

    Raises:
        DataError: The data were packed with another one, or the tokenizer is broken.
    """
    expected = data.manifest.tokenizer["fingerprint"]
    found = remembered(
        "tokenizers",
        _hash_of_what_is_read(hf_folder),
        ("transformers", "tokenizers", "sentencepiece"),
        lambda: tokenizer.load_tokenizer(hf_folder).fingerprint,
    )
    if found != expected:
        data.check_tokenizer(tokenizer.load_tokenizer(hf_folder))


def record_ends(folder: Path, ends: Iterable[int]) -> None:
    """Add the tokens at which training teaches answers to end to a run's generation config, and say so.

    What is exported from the run stops at them, and so do ``generate`` and ``serve``.

    Args:
        folder: The run's folder of tokenizer and config files.
        ends: The tokens.
    """
    where, ids = tokenizer.configured_ends(folder)
    missing = [index for index in ends if index not in ids]
    if missing and ids:
        logger.warning(
            "training teaches answers to end with token %s, which is not an end token in %s (%s); it is added in %s",
            ", ".join(map(str, missing)),
            where,
            ", ".join(map(str, ids)),
            folder / "generation_config.json",
        )
    convert.add_end_tokens(folder, missing)


def _hash_of_what_is_read(hf_folder: Path) -> str:
    found = hashlib.sha256()
    for module in (tokenizer, tokenizer_files):
        found.update(Path(str(module.__file__)).read_bytes())
    for pattern in checkpoint.CONFIG_FILES:
        for file in sorted(hf_folder.glob(pattern)):
            content = file.read_bytes()
            found.update(f"{file.relative_to(hf_folder)} {len(content)}\n".encode() + content)
    return found.hexdigest()
