"""Tokenizers: a Hugging Face folder with ``tokenizer.json``, or with a sentencepiece ``tokenizer.model``.

Both are read by ``transformers`` and become one :class:`Tokenizer` around its Rust tokenizer, so that long files are
encoded in parallel and the ids are those which every program built on ``transformers`` gives. A sentencepiece model
without a class of its own gives exactly the ids of the sentencepiece library.
"""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alpacare_jax.errors import DataError
from alpacare_jax.tokenizer_files import CONFIG, TEMPLATE, load_backend, read_keys

if TYPE_CHECKING:
    import transformers

PROBE = ({"role": "user", "content": "A question?"}, {"role": "assistant", "content": "qzx7"})
TEMPLATE_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a chat template can raise beside Jinja's own errors."""


class Ends(NamedTuple):
    """The ids at which a model's answers end, and the key they come from (``DIR/config.json: eos_token_id``)."""

    where: str
    ids: tuple[int, ...]


class Tokenizer:
    """Text to token ids and back.

    Text can be encoded in two ways. With ``parse_special=True`` the spelling of a control token, such as
    ``<|im_end|>``, becomes that token: right for text rendered by a chat template, and what
    ``transformers`` does. With ``parse_special=False`` it is text like any other, so that a data set cannot
    smuggle in an end of turn; that is what the sentencepiece library does.

    Args:
        backend: The ``transformers`` fast tokenizer.
        ends: The end tokens that the model's configs name.
        source: Where it was loaded from; named in errors.
    """

    def __init__(
        self,
        backend: "transformers.PreTrainedTokenizerFast",
        *,
        ends: Ends = Ends("tokenizer_config.json: eos_token", ()),  # noqa: B008
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
        self._parsing = backend.backend_tokenizer
        self._parsing.no_truncation()
        self._parsing.no_padding()
        self._parsing.encode_special_tokens = bool(backend.split_special_tokens)
        self._plain = copy.deepcopy(self._parsing)
        self._plain.encode_special_tokens = True
        self.eos_id: int = int(backend.eos_token_id)
        self.configured_ends = Ends(ends.where, ends.ids or (self.eos_id,))
        self.bos_id: int | None = backend.bos_token_id
        # In padded places the loss is off and attention is closed, so any id serves that has an embedding; a padding
        # token that was added behind the pieces, such as AlpaCare's [PAD], may have none.
        self.filler_id: int = self.eos_id
        self.pad_id: int = self.eos_id if backend.pad_token_id is None else int(backend.pad_token_id)
        self.vocab_size: int = 1 + max(backend.get_vocab().values())  # the ids may have gaps
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
        return self.encode_batch([text], add_special_tokens, parse_special=parse_special)[0]

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = False, *, parse_special: bool = True
    ) -> list[list[int]]:
        """Encode many texts in parallel; the same ids as :meth:`encode` on each."""
        if parse_special:
            encoded = self._parsing.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
            return [list(item.ids) for item in encoded]
        encoded = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        spelled = [self._spell(item.ids) for item in encoded]
        return [self._frame(ids) for ids in spelled] if add_special_tokens else spelled

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a text to be continued: with a BOS if the tokenizer adds BOS, and without an end token."""
        return self.with_bos(self.encode(text))

    def with_bos(self, ids: list[int]) -> list[int]:
        """Prepend BOS to token ids, if the tokenizer adds BOS and they do not begin with it."""
        if not self.adds_bos or self.bos_id is None or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

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
            DataError: The tokenizer has no chat template, the template is broken, or it refuses the messages.
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
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                "the chat template is not valid Jinja",
                where=f"{self._template_place}, line {error.lineno} of the template",
                found=error.message,
            ) from error
        except (jinja2.TemplateError, *TEMPLATE_ERRORS) as error:
            raise DataError(
                "the chat template refuses the messages",
                where=self._template_place,
                found=f"{type(error).__name__}: {error}",
            ) from error
        return str(text)

    @property
    def _template_place(self) -> str:
        folder = Path(self.source) if Path(self.source).is_dir() else Path(self.source).parent
        file = folder / TEMPLATE
        return str(file) if file.exists() else f"{folder / CONFIG}: chat_template"

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False
    ) -> list[int]:
        """Render messages with the chat template and encode them; only the template can add BOS."""
        return self.encode(self.render_chat(messages, add_generation_prompt))

    @functools.cached_property
    def special_texts(self) -> dict[str, int]:
        """The spelling of every control token, with its id; the end of a turn is one, marked as special or not."""
        added = self._parsing.get_added_tokens_decoder()
        found = {token.content: int(index) for index, token in added.items() if token.special}
        if self.turn_end_id is not None:
            found[self.decode([self.turn_end_id], skip_special_tokens=False)] = self.turn_end_id
        return found

    @property
    def rows_needed(self) -> int:
        """Rows of embeddings that a model must have for it; a last token that only pads needs none."""
        only_pads = self.pad_id == self.vocab_size - 1 and self.pad_id not in (self.bos_id, *self.eos_ids)
        return self.vocab_size - only_pads

    @functools.cached_property
    def turn_end_id(self) -> int | None:
        """The token by which the chat template closes an answer, such as ``<|im_end|>``, or None."""
        if self.chat_template is None:
            return None
        try:
            text = self.render_chat(PROBE)
        except DataError:  # told where the template is needed
            return None
        _, answer, tail = text.rpartition(PROBE[1]["content"])
        whole = self._whole_ids
        return next((i for i in self.encode(tail) if i in whole), None) if answer else None

    @functools.cached_property
    def _whole_ids(self) -> set[int]:
        """The tokens that are never built from others: added ones, and a sentencepiece model's user-defined pieces."""
        found = set(self._parsing.get_added_tokens_decoder())
        steps = json.loads(self._parsing.to_str()).get("pre_tokenizer") or {}
        for step in steps.get("pretokenizers", []):
            pattern = step.get("pattern", {}).get("Regex") if step["type"] == "Split" else None
            if pattern and any(other["type"] == "Metaspace" for other in steps["pretokenizers"]):
                # How transformers keeps user-defined pieces whole: it splits the text at them.
                vocabulary = self._parsing.get_vocab()
                found |= {index for text, index in vocabulary.items() if re.fullmatch(pattern, text)}
        return found

    @functools.cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """All ids at which an answer ends: the tokenizer's end token, those of the configs, and the end of a turn."""
        turn_end = () if self.turn_end_id is None else (self.turn_end_id,)
        return tuple(dict.fromkeys([self.eos_id, *self.configured_ends.ids, *turn_end]))

    def describe_missing_ends(self, taught: Iterable[int]) -> str | None:
        """Say which end tokens the model's configs lack.

        Args:
            taught: The tokens at which answers end, in training or by the chat template.

        Returns:
            One phrase that names the file, its key and the tokens; None where nothing lacks.
        """
        where, ids = self.configured_ends
        missing = [index for index in dict.fromkeys(taught) if index not in ids]
        if not missing:
            return None
        names = ", ".join(f"{self.backend.convert_ids_to_tokens(i)!r} (id {i})" for i in missing)
        return f"{where} names {', '.join(map(str, ids))} and not {names}"

    def _frame(self, ids: list[int]) -> list[int]:
        """Put the tokenizer's own frame around ids, such as a leading BOS."""
        inner = self._parsing.encode("x", add_special_tokens=False).ids
        whole = self._parsing.encode("x").ids
        before = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
        return [*whole[:before], *ids, *whole[before + len(inner) :]]

    @functools.cached_property
    def _control_ids(self) -> set[int]:
        # Characters without a piece come out as the unknown token, unless there are pieces for all bytes.
        meant = set() if getattr(self._plain.model, "byte_fallback", False) else {self.backend.unk_token_id}
        return {*self.special_texts.values()} - meant

    def _spell(self, ids: list[int]) -> list[int]:
        """Replace control tokens that plain text came out as by the pieces of their spelling.

        A text like ``</s>`` can still meet the vocabulary's entry of that name, by merging or as a whole word.
        """
        if self._control_ids.isdisjoint(ids):
            return list(ids)
        return [piece for i in ids for piece in (self._spelling[i] if i in self._control_ids else [i])]

    @functools.cached_property
    def _spelling(self) -> dict[int, list[int]]:
        model = copy.deepcopy(self._plain).model
        if hasattr(model, "ignore_merges"):
            model.ignore_merges = False
        found = {}
        for text, index in self.special_texts.items():
            pieces = [piece.id for piece in model.tokenize(text)]
            if not pieces or index in pieces:
                letters = [self._plain.encode(letter, add_special_tokens=False).ids for letter in text]
                pieces = [piece for letter in letters for piece in letter if piece != index]
            found[index] = pieces
        return found

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
        # The one class name that every version reads and that rebuilds nothing of the pipeline.
        file = Path(folder) / CONFIG
        config = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    if path.suffix.lower() == ".gguf":
        raise DataError(
            "a .gguf file cannot be used as a tokenizer directly",
            where=path,
            expected="a folder with tokenizer.json or tokenizer.model, or one of these files",
            remedy=f"run `alpacare import {path.name} --out MODEL` and name that folder",
        )
    if path.is_dir() and not _holds_tokenizer(path) and _holds_tokenizer(path / "hf"):
        path = path / "hf"
    file = path
    if path.is_dir():
        if not _holds_tokenizer(path):
            names = sorted(entry.name for entry in path.iterdir())
            raise DataError(
                "the folder has no tokenizer",
                where=path,
                found=", ".join(names[:8]) or "an empty folder",
                expected="tokenizer.json or tokenizer.model",
            )
        file = path / "tokenizer.json"
        file = file if file.exists() else path / "tokenizer.model"
    backend = load_backend(file)
    ends = configured_ends(file.parent)
    if backend.eos_token_id is None and ends.ids:
        backend.eos_token = backend.convert_ids_to_tokens(ends.ids[0])
    return Tokenizer(backend, ends=ends, source=str(path))


def _holds_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").exists() or (folder / "tokenizer.model").exists()


def configured_ends(folder: Path) -> Ends:
    """Return the end tokens that a model's generation config (or else its config) names.

    Raises:
        DataError: One of the files is broken.
    """
    rows = read_keys(folder / "config.json").get("vocab_size")
    for name in ("generation_config.json", "config.json"):
        found = read_keys(folder / name).get("eos_token_id")
        if found is None:
            continue
        ids, where = found if isinstance(found, list) else [found], f"{folder / name}: eos_token_id"
        if rows is not None and max(ids, default=0) >= rows:
            raise DataError(
                "an end token is beyond the model's vocabulary, so no answer would ever end with it",
                where=where,
                found=max(ids),
                expected=f"at most {rows - 1:,} (vocab_size {rows:,} in config.json)",
                remedy="name the id of the token that ends an answer",
            )
        return Ends(where, tuple(ids))
    return Ends(f"{folder / CONFIG}: eos_token", ())
