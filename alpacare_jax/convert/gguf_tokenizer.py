"""Rebuilding a tokenizer from a GGUF file's metadata, as files that ``transformers`` loads.

GGUF keeps vocabulary, merges and token types, and names the pre-tokeniser instead of describing it. Here are
those that LLaMA models use. A sentencepiece vocabulary ("llama") is written back as the ``tokenizer.model`` it
came from.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacare_jax.convert.gguf_file import GgufFile
from alpacare_jax.errors import ConversionError
from alpacare_jax.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import tokenizers

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # GGUF's token types; 1 is an ordinary one, 6 a byte

# LLaMA 3 cuts text by this pattern before joining pieces: contractions, words with one leading sign, numbers of
# up to three digits, runs of signs, line ends, other white space.
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = ("smollm", "llama-bpe", "llama3", "llama-v3", "gpt-2", "gpt2")


def write_tokenizer(file: GgufFile, folder: Path) -> None:
    """Write the tokenizer of a GGUF file into a folder.

    Args:
        file: The GGUF file.
        folder: Gets ``tokenizer.json``, ``tokenizer_config.json``, the chat template, and for sentencepiece
            vocabularies ``tokenizer.model``.

    Raises:
        ConversionError: The file's kind of tokenizer is not known here.
    """
    from transformers import PreTrainedTokenizerFast

    kind = file.need("tokenizer.ggml.model")
    template = file.get("tokenizer.chat_template")
    if kind == "llama":
        _write_sentencepiece(file, folder)
        backend = load_tokenizer(folder / "tokenizer.model").backend
        backend.chat_template = template
    elif kind == "gpt2":
        backend = PreTrainedTokenizerFast(
            tokenizer_object=_byte_level(file),
            chat_template=template,
            clean_up_tokenization_spaces=False,
            model_max_length=int(file.need("llama.context_length")),
            **_special_names(file),
        )
    else:
        raise ConversionError(
            "the file's tokenizer is of an unknown kind",
            where=f"{file.path}: tokenizer.ggml.model",
            found=kind,
            expected="gpt2 or llama",
            remedy="import the model's Hugging Face folder instead",
        )
    backend.save_pretrained(str(folder))
    # The one class name that every version reads and that rebuilds nothing of the pipeline.
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _byte_level(file: GgufFile) -> "tokenizers.Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    pre = file.get("tokenizer.ggml.pre", "gpt-2")
    if pre not in BYTE_LEVEL:
        raise ConversionError(
            "the file's tokenizer cuts text in a way that is not known here",
            where=f"{file.path}: tokenizer.ggml.pre",
            found=pre,
            expected=", ".join(BYTE_LEVEL),
            remedy="import the model's Hugging Face folder instead",
        )
    llama3 = pre.startswith("llama")
    tokens, types = file.need("tokenizer.ggml.tokens"), file.need("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in file.need("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    rust = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=llama3))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not llama3)
    if llama3:
        split = pre_tokenizers.Split(Regex(LLAMA3_WORDS), behavior="isolated")
        rust.pre_tokenizer = pre_tokenizers.Sequence([split, words])
    elif pre == "smollm":
        rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    else:
        rust.pre_tokenizer = words
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(_added(AddedToken, tokens, types, (CONTROL, UNKNOWN), special=True))
    rust.add_tokens(_added(AddedToken, tokens, types, (USER_DEFINED,), special=False))
    bos = file.get("tokenizer.ggml.bos_token_id")
    if file.get("tokenizer.ggml.add_bos_token", llama3) and bos is not None:
        name = tokens[int(bos)]
        rust.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, int(bos))]
        )
    return rust


def _added(
    make: Any, tokens: list[str], types: list[int], kinds: tuple[int, ...], *, special: bool
) -> list[Any]:
    return [
        make(token, normalized=False, special=special)
        for token, kind in zip(tokens, types, strict=True)
        if kind in kinds
    ]


def _special_names(file: GgufFile) -> dict[str, str]:
    tokens = file.need("tokenizer.ggml.tokens")
    keys = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    ids = {name: file.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    return {name: tokens[int(index)] for name, index in ids.items() if index is not None}


def _write_sentencepiece(file: GgufFile, folder: Path) -> None:
    """Write the sentencepiece model that pieces, scores and types come from; the types' numbers agree."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    columns = [file.need(f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type")]
    for token, score, kind in zip(*columns, strict=True):
        proto.pieces.add(piece=token, score=float(score), type=int(kind))
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.trainer_spec.vocab_size = len(proto.pieces)
    proto.trainer_spec.byte_fallback = True
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown")):
        index = file.get(f"tokenizer.ggml.{key}_token_id", 0 if key == "unknown" else None)
        setattr(proto.trainer_spec, f"{name}_id", -1 if index is None else int(index))
        if index is not None:
            setattr(proto.trainer_spec, f"{name}_piece", columns[0][int(index)])
    proto.trainer_spec.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = bool(file.get("tokenizer.ggml.add_space_prefix", True))
    proto.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
