"""The files of a tokenizer's folder: the types of their keys, and reading them as ``transformers`` does.

What a folder means is decided by ``transformers`` itself; nothing is converted here. Before it reads the files they
are checked against :data:`KEYS`, so that a truncated file or an invalid key is named instead of ending in a traceback.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from alpacare_jax.errors import ConversionError, DataError
from datagen.decoding import read_json_object

if TYPE_CHECKING:
    import transformers

logger = logging.getLogger(__name__)

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"
MOST_IDS = 1 << 22
"""Token ids are below this; the largest vocabularies known have a million. Tables are as long as the highest id."""
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy")


class WrittenOutToken(BaseModel, strict=True):
    """A token written as an object, with its matching options."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False
    special: bool = False


class NamedTemplate(BaseModel, strict=True):
    """One of several chat templates."""

    name: str
    template: str


class Kind:
    """The type of a key's value, and its description for messages."""

    def __init__(self, expected: str, allowed: Any) -> None:
        self.expected, self._type = expected, TypeAdapter(allowed, config=ConfigDict(strict=True))

    def wrong(self, value: Any) -> list[tuple[Any, ...]]:
        """Return the locations in a value that are not of the type."""
        try:
            self._type.validate_python(value)
        except ValidationError as error:
            return [problem["loc"] for problem in error.errors()]
        return []


_Id = Annotated[int, Field(ge=0, lt=MOST_IDS)]
_Token = str | WrittenOutToken
_ID = Kind(f"a whole number from 0 to {MOST_IDS - 1:,}", _Id)
_TOKEN = Kind('a string or an object with "content"', _Token)
_FLAG = Kind("true or false", bool)
_TEXT = Kind("a string", str)
_TOKENS = Kind("a list of tokens, or an object from names to tokens", list[_Token] | dict[str, _Token])
_DECODER = Kind(
    'an object from ids to objects with "content"',
    dict[Annotated[int, Field(strict=False, ge=0, lt=MOST_IDS)], WrittenOutToken],
)
_TEMPLATE = Kind(
    'a template, or a list of objects with "name" and "template"', str | dict[str, str] | list[NamedTemplate]
)
_ENDS = {"eos_token_id": Kind("a token id or a list of token ids", _Id | list[_Id])}
_VOCABULARY = Kind("token ids", dict[str, _Id])

KEYS: dict[str, dict[str, Kind]] = {
    CONFIG: {
        **dict.fromkeys(ROLES, _TOKEN),
        **dict.fromkeys((*FLAGS, "clean_up_tokenization_spaces", "split_special_tokens"), _FLAG),
        **dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), _TOKENS),
        "added_tokens_decoder": _DECODER,
        "chat_template": _TEMPLATE,
        "tokenizer_class": _TEXT,
        "model_max_length": Kind("a number", float),
    },
    MAP: {
        **dict.fromkeys(ROLES, _TOKEN),
        "additional_special_tokens": Kind("a list of tokens", list[_Token]),
        "extra_special_tokens": _TOKENS,
    },
    "generation_config.json": _ENDS,
    "config.json": _ENDS | {"tokenizer_class": _TEXT, "vocab_size": _ID},
}
"""What the keys of each file hold where they are given and not null."""


def read_keys(file: Path) -> dict[str, Any]:
    """Read a JSON object and check its keys; a missing file is read as an empty object.

    Raises:
        DataError: The file is broken, or a value is not of the type that :data:`KEYS` gives for its key.
    """
    if not file.exists():
        return {}
    read_whole(file)
    content = read_json_object(file)
    kinds = dict.fromkeys(content, _ID) if file.name == ADDED else KEYS[file.name]
    for key, kind in kinds.items():
        value = content.get(key)
        if (value is not None or file.name == ADDED) and kind.wrong(value):
            raise DataError(
                f"the file has an invalid {key}",
                where=f"{file}: {key}",
                found=json.dumps(value, ensure_ascii=False)[:100],
                expected=kind.expected,
            )
    return content


def read_whole(file: Path) -> bytes:
    """Read a file that must not be empty.

    Raises:
        DataError: It is empty, a folder, unreadable, or a pointer that git-lfs left in place of the file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError("the file cannot be read", where=file, found=error.strerror) from None
    if not content.strip():
        raise DataError("the file is empty", where=file, remedy="fetch it again")
    if content.startswith(b"version https://git-lfs"):
        raise DataError(
            "the file is a git-lfs pointer, not the file itself",
            where=file,
            remedy="run `git lfs pull` in its repository, or fetch it with `hf download`",
        )
    return content


def load_backend(file: Path) -> "transformers.PreTrainedTokenizerFast":
    """Read a ``tokenizer.json`` or a sentencepiece model with the files beside it, as ``transformers`` does.

    The class is that which ``AutoTokenizer`` takes, except that a byte-level ``tokenizer.json`` is always followed as
    it is, where some classes would rebuild it and lose its rules for digits. ``AutoTokenizer`` itself is not used:
    it imports torch where that is installed.

    Args:
        file: The vocabulary.

    Raises:
        DataError: A file is broken.
        ConversionError: The class would not follow the rules of the sentencepiece model.
    """
    config = read_keys(file.parent / CONFIG)
    pieces = None if file.suffix == ".json" else read_pieces(file)
    added = _read_added(file) if pieces is None else {}
    kind = _class_of(file, config)
    if pieces is not None:
        _check_llama_layout(pieces, file, rebuilt=_rebuilds(kind))
    named = config if pieces is None else _roles_of(pieces) | config
    with _staged(file, named) as folder:
        try:
            backend = kind.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the Rust library raises nothing more special
            if pieces is None:
                _check_format(file)
            raise DataError(
                "transformers cannot read the tokenizer with what its configuration says",
                where=file.parent / CONFIG if config else file,
                found=f"{type(error).__name__}: {str(error).replace(str(folder), str(file.parent))[:300]}",
                expected=f"keys that {kind.__name__} takes",
                remedy=f"mend {CONFIG} (or {MAP}), or fetch it again",
            ) from error
    if pieces is not None and "add_bos_token" not in config:
        _settle_bos(backend, file.parent / CONFIG)
    _refuse_cleaning(backend, file.parent / CONFIG)
    _check_added(backend, file, added)
    if pieces is None and not _rebuilds(kind):
        return backend
    if "added_tokens_decoder" in config:
        decoder = config["added_tokens_decoder"] or {}
        listed = {token["content"]: int(index) for index, token in decoder.items()}
        _check_added(backend, file.parent / CONFIG, listed)
    else:
        _check_added(backend, file.parent / ADDED, read_keys(file.parent / ADDED))
    return backend


def _class_of(file: Path, config: dict[str, Any]) -> "type[transformers.PreTrainedTokenizerFast]":
    """Return the class that ``AutoTokenizer`` takes for a tokenizer."""
    import transformers

    general = transformers.PreTrainedTokenizerFast
    if file.suffix == ".json" and b'"ByteLevel"' in read_whole(file):  # AutoTokenizer's own test
        return general
    name = config.get("tokenizer_class") or read_keys(file.parent / "config.json").get("tokenizer_class")
    name = (name or "").removesuffix("Fast")
    found = getattr(transformers, name, None) if name.endswith("Tokenizer") else None
    return found if isinstance(found, type) and issubclass(found, general) else general


def _read_added(file: Path) -> dict[str, int]:
    """Return the ids that a ``tokenizer.json`` gives its added tokens.

    Raises:
        DataError: It is not valid JSON, or has an invalid id.
    """
    read_whole(file)
    content = read_json_object(file)
    model, added = content.get("model"), content.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    listed: dict[str, Any] = {str(token.get("content")): token.get("id") for token in tokens}
    known = (vocabulary if isinstance(vocabulary, dict) else {}) | listed
    if wrong := _VOCABULARY.wrong(known):
        text = wrong[0][0]
        raise DataError(
            "the vocabulary has an invalid token id",
            where=f"{file}: {text!r}",
            found=str(known[text])[:50],
            expected=_ID.expected,
            remedy="fetch it again",
        )
    return listed


def _check_format(file: Path) -> None:
    """Say what is wrong with a ``tokenizer.json`` that cannot be read, if it is at fault."""
    import tokenizers

    try:
        tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises nothing more special
        raise DataError(
            "the file is not a tokenizer.json", where=file, found=str(error)[:300], remedy="fetch it again"
        ) from error


def _rebuilds(kind: type) -> bool:
    """Return whether a class takes only the vocabulary and has its own rules, as LlamaTokenizer does."""
    return "__init__" in vars(kind) and kind.__name__ not in ("PreTrainedTokenizerFast", "TokenizersBackend")


@contextlib.contextmanager
def _staged(file: Path, config: dict[str, Any]) -> Iterator[Path]:
    """Make a folder of only the tokenizer's files, under the names that ``transformers`` looks for.

    Keys without a value are left out of them, because ``transformers`` would read them as values.
    """
    with tempfile.TemporaryDirectory(prefix="alpacare-tokenizer-") as name:
        folder = Path(name)
        (folder / f"tokenizer{'.json' if file.suffix == '.json' else '.model'}").symlink_to(file.resolve())
        special = read_keys(file.parent / MAP)
        read_keys(file.parent / ADDED)
        for written, content in ((CONFIG, config), (MAP, special)):
            if content:
                kept = {key: _as_added(value, written) for key, value in content.items() if _says(key, value)}
                (folder / written).write_text(json.dumps(kept), encoding="utf-8")
        for place in (
            TEMPLATE,
            *(f"{TEMPLATES}/{t.name}" for t in (file.parent / TEMPLATES).glob("*.jinja")),
        ):
            if (file.parent / place).exists():
                _check_text(file.parent / place)
                (folder / place).parent.mkdir(exist_ok=True)
                (folder / place).symlink_to((file.parent / place).resolve())
        for beside in (ADDED, "config.json"):
            if (file.parent / beside).exists():
                (folder / beside).symlink_to((file.parent / beside).resolve())
        yield folder


def _says(key: str, value: Any) -> bool:
    if key == "fast_tokenizer_files":  # names of files that are not here
        return False
    if key in ROLES:
        return value not in ("", {"content": ""})
    return value is not None or key in FLAGS


def _as_added(value: Any, file: str) -> Any:
    """Mark a token that is written as an object the way ``transformers`` knows it in the config."""
    if file == CONFIG and isinstance(value, dict) and isinstance(value.get("content"), str):
        return {"__type": "AddedToken"} | value
    return value


def _check_text(file: Path) -> None:
    try:
        read_whole(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text", where=file, found=str(error)) from None


def read_pieces(file: Path) -> Any:
    """Read a sentencepiece model.

    Returns:
        Its ``ModelProto``: pieces, scores, types, and the rules for normalising.

    Raises:
        DataError: It is not a sentencepiece model, or was cut short.
    """
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as schema

    content = read_whole(file)
    try:
        sentencepiece.SentencePieceProcessor(model_proto=content)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError("the file is not a sentencepiece model", where=file, found=str(error)) from None
    proto = schema.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(content)
    if not (proto.HasField("trainer_spec") and proto.HasField("normalizer_spec")):
        raise DataError(
            "the file is not a sentencepiece model, or it was cut short",
            where=file,
            found=f"{len(proto.pieces):,} pieces without the settings that follow them",
            remedy="fetch it again",
        )
    return proto


def _roles_of(proto: Any) -> dict[str, str]:
    """Return the pieces that a sentencepiece model itself names as BOS, EOS and unknown."""
    spec = proto.trainer_spec
    ids = {"bos_token": spec.bos_id, "eos_token": spec.eos_id, "unk_token": spec.unk_id}
    return {role: proto.pieces[i].piece for role, i in ids.items() if 0 <= i < len(proto.pieces)}


def _check_llama_layout(proto: Any, file: Path, *, rebuilt: bool) -> None:
    """Check that a model is of LLaMA's kind; a class with LLaMA's own rules must do what the model itself says."""
    rules, trainer = proto.normalizer_spec, proto.trainer_spec
    problems = [
        text
        for wrong, text in (
            (trainer.model_type != trainer.BPE, "it is not a BPE model"),
            (bool(rules.precompiled_charsmap), f"it normalises text ({rules.name})"),
            (rules.remove_extra_whitespaces, "it removes extra spaces"),
            (rebuilt and not rules.add_dummy_prefix, "it adds no space in front"),
            (rebuilt and not trainer.byte_fallback, "it has no byte pieces for unknown characters"),
        )
        if wrong
    ]
    if problems:
        raise ConversionError(
            "the sentencepiece model is of a kind that is not supported",
            where=file,
            found="; ".join(problems),
            expected="BPE without normalising" + ", with byte fallback and a space in front" * rebuilt,
            remedy="give a folder with tokenizer.json instead"
            + f", or take tokenizer_class out of {CONFIG}" * rebuilt,
        )


def _settle_bos(backend: "transformers.PreTrainedTokenizerFast", config: Path) -> None:
    """Decide about BOS where no key does: LLaMA's way where there are no keys at all."""
    if not config.exists():
        setattr(backend, "add_bos_token", backend.bos_token is not None)  # noqa: B010 (typed as read-only)
        return
    logger.warning(
        f"{config} has no add_bos_token, so no {backend.bos_token} is put before a text, as in transformers 5; "
        "models that were trained with one need add_bos_token: true there"
    )


def _refuse_cleaning(backend: "transformers.PreTrainedTokenizerFast", config: Path) -> None:
    """Refuse a key that takes spaces out of decoded text, which no reply that is streamed could follow."""
    forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    is_bpe = type(backend.backend_tokenizer.model).__name__ == "BPE"  # transformers passes over the key there
    if backend.clean_up_tokenization_spaces and (not is_bpe or getattr(backend, forced)):
        raise DataError(
            "spaces before punctuation would be removed from every answer",
            where=f"{config}: {forced if is_bpe else 'clean_up_tokenization_spaces'}",
            found="true",
            expected="false",
        )


def _check_added(backend: "transformers.PreTrainedTokenizerFast", file: Path, listed: dict[str, int]) -> None:
    """Check that added tokens have the ids that a file gives them; the Rust library numbers them by itself."""
    known = backend.get_vocab()
    for text, index in sorted(listed.items(), key=lambda item: item[1]):
        if known.get(text) != index:
            raise DataError(
                "an added token does not follow the pieces",
                where=file,
                found=f"{text!r} with id {index}",
                expected=f"id {known.get(text)}",
                remedy="mend the id there, or fetch the tokenizer's files again",
            )
