"""Rebuilding a tokenizer from a GGUF file's metadata, as files that ``transformers`` loads.

GGUF keeps vocabulary, merges and token types, and names the pre-tokeniser instead of describing it. Here are
those that LLaMA models use. A sentencepiece vocabulary ("llama") is written back as the ``tokenizer.model`` it
came from.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacare_jax.convert.gguf_file import GgufFile
from alpacare_jax.errors import ConversionError, UserError
from alpacare_jax.tokenizer import load_tokenizer
from alpacare_jax.tokenizer_files import CONFIG

if TYPE_CHECKING:
    import tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # GGUF's token types
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}

SPACE = "\u2581"
FRAME = {"add_bos_token": True, "add_eos_token": False}
SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}  # llama.cpp's, where the file says nothing
IDS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}

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
    kind = file.need("tokenizer.ggml.model")
    if kind not in ("llama", "gpt2"):
        raise file.wrong("tokenizer.ggml.model", kind, "gpt2 or llama")
    _check_vocabulary(file)
    with _named(file):
        if kind == "llama":
            _write_sentencepiece(file, folder)
        else:
            _byte_level(file).save(str(folder / "tokenizer.json"))
        _write_config(file, folder, kind)
        load_tokenizer(folder).save(folder)


@contextlib.contextmanager
def _named(file: GgufFile) -> Iterator[None]:
    """Name the GGUF file in errors, not the files made of it, if its tokenizer cannot be built."""
    try:
        yield
    except UserError as error:
        if str(file.path) in str(error.where):
            raise
        raise _broken(file, f"{error.what}: {error.found}") from error
    except Exception as error:  # the Rust library raises nothing more special
        raise _broken(file, error) from error


def _broken(file: GgufFile, found: object) -> ConversionError:
    remedy = "import the model's Hugging Face folder instead, or make the file again"
    return file.error("the file's tokenizer cannot be built", "tokenizer.ggml", found, remedy=remedy)


def _write_config(file: GgufFile, folder: Path, kind: str) -> None:
    said: dict[str, Any] = {
        "chat_template": file.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(file.need("llama.context_length")),
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_special_names(file),
    }
    if kind == "llama":  # llama.cpp's defaults where the file says nothing
        said |= {"legacy": True, **{key: _flag(file, key, default) for key, default in FRAME.items()}}
    text = json.dumps({key: value for key, value in said.items() if value is not None})
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _flag(file: GgufFile, key: str, default: bool) -> bool:
    value = file.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool):
        raise file.wrong(f"tokenizer.ggml.{key}", value, "true or false")
    return value


def _special_id(file: GgufFile, key: str) -> Any:
    """Return the id of a special token, such as "bos"; None where neither the file nor llama.cpp knows one."""
    default = SENTENCEPIECE_IDS.get(key) if file.get("tokenizer.ggml.model") == "llama" else None
    return file.get(f"tokenizer.ggml.{key}_token_id", default)


def _check_vocabulary(file: GgufFile) -> None:
    """Check that the columns of the vocabulary have one length and contain the special ids."""
    tokens = file.need("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise file.wrong("tokenizer.ggml.tokens", type(tokens).__name__, "a list of texts")
    for key in ("token_type", "scores"):
        column = file.get(f"tokenizer.ggml.{key}")
        if column is not None and (not isinstance(column, list) or len(column) != len(tokens)):
            found = f"{len(column)} entries" if isinstance(column, list) else column
            raise file.wrong(f"tokenizer.ggml.{key}", found, f"{len(tokens)}, one for each token")
    scores = file.get("tokenizer.ggml.scores", [])
    if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores):
        raise file.wrong("tokenizer.ggml.scores", "a score that is not finite", "numbers")
    for key in IDS.values():
        index = _special_id(file, key)
        if index is not None and (not isinstance(index, int) or not 0 <= index < len(tokens)):
            raise file.wrong(f"tokenizer.ggml.{key}_token_id", index, f"0 to {len(tokens) - 1}")


def _byte_level(file: GgufFile) -> "tokenizers.Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    pre = file.get("tokenizer.ggml.pre")
    if pre not in BYTE_LEVEL:
        raise ConversionError(
            "the file does not name its pre-tokenizer"
            if pre is None
            else "the file's pre-tokenizer is not supported",
            where=f"{file.path}: tokenizer.ggml.pre",
            found="nothing; it was written by an early converter" if pre is None else pre,
            expected=", ".join(BYTE_LEVEL),
            remedy="import the model's Hugging Face folder instead"
            + ", or add the key: gguf-new-metadata --pre-tokenizer NAME (llama-bpe for LLaMA 3) IN OUT"
            * (pre is None),
        )
    if _flag(file, "add_space_prefix", False):
        raise file.wrong(
            "tokenizer.ggml.add_space_prefix", True, "false, since a byte-level vocabulary spells spaces"
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
    # llama.cpp's defaults where the file says nothing.
    wanted = (("bos", _flag(file, "add_bos_token", llama3)), ("eos", _flag(file, "add_eos_token", False)))
    ids = {key: _special_id(file, key) for key, add in wanted if add}
    for key, index in ids.items():
        if index is None:
            raise file.wrong(
                f"tokenizer.ggml.{key}_token_id", "nothing", "the id of the token to add to every text"
            )
    names = {key: (tokens[index], index) for key, index in ids.items()}
    before, after = ([names[key][0]] if key in names else [] for key in ("bos", "eos"))
    rust.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B:1", *after],
        special_tokens=list(names.values()),
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
    ids = {name: _special_id(file, key) for name, key in IDS.items()}
    return {name: tokens[index] for name, index in ids.items() if index is not None}


def _write_sentencepiece(file: GgufFile, folder: Path) -> None:
    """Write the sentencepiece model that pieces, scores and types come from; the types' numbers agree."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    tokens, scores, kinds = (file.need(f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type"))
    if missing := sorted(BYTES - set(tokens)):
        raise file.wrong(
            "tokenizer.ggml.tokens", f"no {missing[0]}", "a piece for every byte, <0x00> to <0xFF>"
        )
    unknown = _special_id(file, "unknown")
    for index, (token, score, kind) in enumerate(zip(tokens, scores, kinds, strict=True)):
        # llama.cpp's converter writes the spaces of user-defined pieces as spaces.
        piece = token.replace(" ", SPACE) if kind == USER_DEFINED else token
        # Early converters gave these two no type of their own.
        kind = UNKNOWN if index == unknown else BYTE if token in BYTES and kind == NORMAL else kind
        proto.pieces.add(piece=piece, score=float(score), type=int(kind))
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.trainer_spec.vocab_size = len(proto.pieces)
    proto.trainer_spec.byte_fallback = True
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown")):
        index = _special_id(file, key)
        setattr(proto.trainer_spec, f"{name}_id", int(index))
        setattr(proto.trainer_spec, f"{name}_piece", tokens[int(index)])
    proto.trainer_spec.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = _flag(file, "add_space_prefix", True)
    proto.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
