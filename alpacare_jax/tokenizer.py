"""Tokenizers: a Hugging Face folder with ``tokenizer.json``, or a bare sentencepiece ``tokenizer.model``.

Both become one :class:`Tokenizer` around the Rust tokenizer, so that long files are encoded in parallel. A
bare sentencepiece model gives exactly the ids that the sentencepiece library gives (LLaMA's legacy
behaviour: every text that is encoded on its own starts with an invisible space).
"""

import copy
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacare_jax.errors import ConversionError, DataError

if TYPE_CHECKING:
    import tokenizers
    import transformers

SPACE = "\u2581"


class Tokenizer:
    """Text to token ids and back.

    Text can be encoded in two ways. With ``parse_special=True`` the spelling of a control token, such as
    ``<|im_end|>``, becomes that token: right for text rendered by a chat template, and what
    ``transformers`` does. With ``parse_special=False`` it is text like any other, so that a data set cannot
    smuggle in an end of turn; that is what the sentencepiece library does.

    Args:
        backend: The ``transformers`` fast tokenizer.
        eos_ids: All ids at which an answer ends; the first is the tokenizer's own end token.
        source: Where it was loaded from; named in errors.
    """

    def __init__(
        self,
        backend: "transformers.PreTrainedTokenizerFast",
        *,
        eos_ids: Sequence[int] = (),
        source: str = "",
    ) -> None:
        self.backend = backend
        self.source = source
        if backend.eos_token_id is None:
            raise DataError(
                "the tokenizer names no end token",
                where=source,
                expected="eos_token in tokenizer_config.json",
                remedy="add eos_token to tokenizer_config.json; without it no answer would ever end",
            )
        rust = _without_limits(backend.backend_tokenizer)
        self._parsing, self._plain = rust, copy.deepcopy(rust)
        self._parsing.encode_special_tokens = False
        self._plain.encode_special_tokens = True
        self.eos_id: int = int(backend.eos_token_id)
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys([self.eos_id, *map(int, eos_ids)]))
        self.bos_id: int | None = backend.bos_token_id
        # LLaMA has no padding token; in padded places the loss is off and attention is closed, so any id
        # serves.
        self.pad_id: int = self.eos_id if backend.pad_token_id is None else int(backend.pad_token_id)
        self.vocab_size: int = len(backend)
        self.adds_bos: bool = self.bos_id is not None and self._parsing.encode("x").ids[:1] == [self.bos_id]

    def encode(self, text: str, add_special_tokens: bool = False, *, parse_special: bool = True) -> list[int]:
        """Encode one text.

        Args:
            text: The text.
            add_special_tokens: Put the tokenizer's own frame around it, such as a leading BOS.
            parse_special: Turn spelled-out control tokens into control tokens.

        Returns:
            Token ids.
        """
        rust = self._parsing if parse_special else self._plain
        return list(rust.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = False, *, parse_special: bool = True
    ) -> list[list[int]]:
        """Encode many texts in parallel; the same ids as :meth:`encode` on each."""
        rust = self._parsing if parse_special else self._plain
        encoded = rust.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [list(item.ids) for item in encoded]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Decode token ids to text; control tokens are left out unless asked for."""
        return str(self._parsing.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens))

    @property
    def chat_template(self) -> str | None:
        """The model's chat template (Jinja), or None."""
        template = self.backend.chat_template
        return template.get("default") if isinstance(template, dict) else template

    def render_chat(self, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False) -> str:
        """Render messages to text with the model's chat template.

        Raises:
            DataError: The tokenizer has no chat template, or the template refuses the messages.
        """
        import jinja2

        if self.chat_template is None:
            raise DataError(
                "the tokenizer has no chat template",
                where=self.source,
                remedy="use the alpaca template instead",
            )
        try:
            text = self.backend.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            raise DataError(
                "the chat template refuses the messages", where=self.source, found=str(error)
            ) from error
        return str(text)

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False
    ) -> list[int]:
        """Render messages with the chat template and encode them; BOS is there if the template writes it."""
        return self.encode(self.render_chat(messages, add_generation_prompt))

    @functools.cached_property
    def special_texts(self) -> dict[str, int]:
        """The spelling of every control token, with its id."""
        added = self._parsing.get_added_tokens_decoder()
        return {token.content: int(index) for index, token in added.items() if token.special}

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides ids: vocabulary, merges, normalising, control tokens, chat template."""
        pipeline = json.loads(self._parsing.to_str())
        model = pipeline["model"]
        merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges", [])]
        state = {
            "model": [model.get("type"), model["vocab"], merges, model.get("byte_fallback", False)],
            "added": [
                [token["id"], token["content"], token["special"]] for token in pipeline["added_tokens"]
            ],
            "pipeline": [pipeline[name] for name in ("normalizer", "pre_tokenizer", "post_processor")],
            "bos": self.backend.bos_token,
            "eos": self.backend.eos_token,
            "chat_template": self.chat_template,
        }
        text = json.dumps(state, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, its config and the chat template, for ``transformers`` to load."""
        self.backend.save_pretrained(str(folder))


def load_tokenizer(source: str | Path) -> Tokenizer:
    """Load a tokenizer.

    Args:
        source: A folder with ``tokenizer.json`` (preferred) or ``tokenizer.model``, one of these files
            itself, or a model folder that holds such a folder under ``hf/``.

    Raises:
        DataError: There is no tokenizer, or its files are broken.
        ConversionError: The sentencepiece model is of a kind that LLaMA does not use.
    """
    path = Path(source)
    if not path.exists():
        raise DataError("the tokenizer does not exist", where=path, remedy="check the path")
    if path.is_dir() and not _holds_tokenizer(path) and _holds_tokenizer(path / "hf"):
        path = path / "hf"
    file = path
    if path.is_dir():
        if not _holds_tokenizer(path):
            names = sorted(entry.name for entry in path.iterdir())
            raise DataError(
                "the folder holds no tokenizer",
                where=path,
                found=", ".join(names[:8]) or "an empty folder",
                expected="tokenizer.json or tokenizer.model",
            )
        file = path / "tokenizer.json"
        file = file if file.exists() else path / "tokenizer.model"
    folder = file.parent
    backend = _load_json(file) if file.suffix == ".json" else _load_sentencepiece(file)
    if backend.eos_token_id is None:
        _take_eos_from_config(backend, folder)
    return Tokenizer(backend, eos_ids=_configured_eos_ids(folder), source=str(path))


def _holds_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").exists() or (folder / "tokenizer.model").exists()


def _load_json(file: Path) -> "transformers.PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    _check_tokenizer_json(file)
    # Not AutoTokenizer: its per-model classes rebuild the pipeline and may ignore what tokenizer.json says.
    if file.name == "tokenizer.json" and (file.parent / "tokenizer_config.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(str(file.parent), local_files_only=True)
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


def _check_tokenizer_json(file: Path) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("the tokenizer file is not valid JSON", where=file, found=str(error)) from None
    if not isinstance(found, dict) or "model" not in found:
        raise DataError("the file is not a tokenizer.json", where=file, expected='an object with a "model"')


def _without_limits(rust: "tokenizers.Tokenizer") -> "tokenizers.Tokenizer":
    rust = copy.deepcopy(rust)
    rust.no_truncation()
    rust.no_padding()
    return rust


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("the file is not valid JSON", where=file, found=str(error)) from None
    return value if isinstance(value, dict) else {}


def _configured_eos_ids(folder: Path) -> list[int]:
    """Return the end tokens that the model's generation config (or else its config) names."""
    for name in ("generation_config.json", "config.json"):
        found = _read_json(folder / name).get("eos_token_id")
        if found is not None:
            return [found] if isinstance(found, int) else [i for i in found if isinstance(i, int)]
    return []


def _take_eos_from_config(backend: "transformers.PreTrainedTokenizerFast", folder: Path) -> None:
    for index in _configured_eos_ids(folder)[:1]:
        backend.eos_token = backend.convert_ids_to_tokens(index)


def _load_sentencepiece(file: Path) -> "transformers.PreTrainedTokenizerFast":
    """Turn a sentencepiece BPE model of LLaMA's layout into a Rust tokenizer with the same ids."""
    import sentencepiece
    from transformers import PreTrainedTokenizerFast

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=os.fspath(file))
    except (RuntimeError, OSError) as error:
        raise DataError("the file is not a sentencepiece model", where=file, found=str(error)) from None
    _check_llama_layout(model, file)
    rust = _rust_from_sentencepiece(model)
    _add_tokens(rust, file.parent)
    names = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
    special = {name: model.id_to_piece(index) for name, index in names.items() if index >= 0}
    special |= _named_tokens(file.parent, rust)
    template: Any = _read_json(file.parent / "tokenizer_config.json").get("chat_template")
    template_file = file.parent / "chat_template.jinja"
    if template_file.exists():
        template = template_file.read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, chat_template=template, clean_up_tokenization_spaces=False, **special
    )


def _add_tokens(rust: "tokenizers.Tokenizer", folder: Path) -> None:
    """Add the tokens that a fine-tuned model put behind the pieces, such as the ``[PAD]`` of AlpaCare."""
    from tokenizers import AddedToken

    listed = {int(index): text for text, index in _read_json(folder / "added_tokens.json").items()}
    decoder = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    listed |= {int(index): token["content"] for index, token in decoder.items()}
    for index, text in sorted(listed.items()):
        if rust.token_to_id(text) is not None:
            continue
        rust.add_special_tokens([AddedToken(text, normalized=False, special=True)])
        if rust.token_to_id(text) != index:
            raise DataError(
                "an added token does not follow the pieces",
                where=folder,
                found=f"{text!r} with id {index}",
                expected=f"id {rust.token_to_id(text)}",
                remedy="give a folder with tokenizer.json instead",
            )


def _named_tokens(folder: Path, rust: "tokenizers.Tokenizer") -> dict[str, str]:
    """Return the roles (``eos_token`` ...) that the folder's files give to tokens the tokenizer has."""
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = _read_json(folder / name)
        for role in roles:
            token = content.get(role)
            text = token.get("content") if isinstance(token, dict) else token
            if text and rust.token_to_id(text) is not None:
                found[role] = text
    return found


def _check_llama_layout(model: Any, file: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model.serialized_model_proto())
    rules, trainer = proto.normalizer_spec, proto.trainer_spec
    problems = [
        text
        for wrong, text in (
            (trainer.model_type != trainer.BPE, "it is not a BPE model"),
            (bool(rules.precompiled_charsmap), f"it normalises text ({rules.name})"),
            (rules.remove_extra_whitespaces, "it removes extra spaces"),
            (not rules.add_dummy_prefix, "it adds no space in front"),
            (not trainer.byte_fallback, "it has no byte pieces for unknown characters"),
            (model.bos_id() < 0 or model.eos_id() < 0, "it lacks BOS or EOS"),
        )
        if wrong
    ]
    if problems:
        raise ConversionError(
            "the sentencepiece model is not of LLaMA's kind",
            where=file,
            found="; ".join(problems),
            expected="BPE with byte fallback, no normalising, a space in front, BOS and EOS",
            remedy="give a folder with tokenizer.json instead",
        )


def _rust_from_sentencepiece(model: Any) -> "tokenizers.Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    size = model.vocab_size()
    pieces = [model.id_to_piece(index) for index in range(size)]
    mergeable = {
        piece: index
        for index, piece in enumerate(pieces)
        if not (
            model.is_control(index)
            or model.is_unknown(index)
            or model.is_byte(index)
            or model.is_unused(index)
        )
    }
    rust = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=_merges(mergeable, model),
            unk_token=pieces[model.unk_id()],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    rust.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    rust.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = [i for i in range(size) if model.is_control(i) or model.is_unknown(i)]
    rust.add_special_tokens([AddedToken(pieces[i], normalized=False, special=True) for i in control])
    bos = pieces[model.bos_id()]
    rust.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, model.bos_id())]
    )
    return rust


def _merges(mergeable: dict[str, int], model: Any) -> list[tuple[str, str]]:
    """List the pairs that sentencepiece may join, best first.

    Sentencepiece joins any two neighbours that together spell a piece, taking the piece of the highest
    score; the Rust tokenizer wants the pairs written out in that order.
    """
    found = []
    for piece, index in mergeable.items():
        score = model.get_score(index)
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in mergeable and right in mergeable:
                found.append((-score, index, mergeable[left], mergeable[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
