"""GGUF files: their tensors, and the config and generation config that Hugging Face's files would have."""

import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alpacare_jax.convert.sources import ForeignTensor, Source
from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig, RopeConfig
from alpacare_jax.model.rope import inverse_frequencies
from datagen.configuration import check
from datagen.records import shorten

if TYPE_CHECKING:
    import gguf

FIXED_LLAMA3: dict[str, Any] = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


#: The keys ``llama.*`` that are read, and those that change no number. Others must be zero or false.
KEYS = re.compile(
    r"attention\.(head_count(_kv)?|key_length|value_length|layer_norm(_rms)?_epsilon)|block_count|context_length"
    r"|embedding_length|expert_used_count|feed_forward_length|pooling_type|tensor_data_layout|vocab_size"
    r"|rope\.(dimension_count|freq_base|scale_linear|scaling\.(attn_factor|factor|finetuned|original_context_length|type"
    r"|yarn_beta_(fast|slow)))"
)
#: Keys with one supported value.
KEYS_THAT_MUST_BE = {
    "attention.causal": True,
    "embedding_scale": 1.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
}
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)


def _open(path: Path) -> "gguf.GGUFReader":
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, UnicodeDecodeError) as error:
        raise ConversionError(
            "the file cannot be read as GGUF",
            where=path,
            found=str(error) or type(error).__name__,
            expected="a whole GGUF file, version 2 or 3",
            remedy="fetch the file again; it may have been cut short",
        ) from error


def _parts(path: Path, count: int) -> list[Path]:
    """Return all files of a model that llama.cpp split, in order.

    Raises:
        ConversionError: A part is not there.
    """
    name = PART.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        raise ConversionError(
            f"the file is one of {count} parts of a split model, and its name does not say which",
            where=path,
            expected=f"names as llama-gguf-split gives them: NAME-00001-of-{count:05d}.gguf",
            remedy="give the parts their names back, side by side in one folder",
        )
    names = [f"{name['stem']}-{part:05d}-of-{count:05d}{name['suffix']}" for part in range(1, count + 1)]
    missing = [part for part in names if not (path.parent / part).exists()]
    if missing:
        raise ConversionError(
            f"the file is one of {count} parts of a split model, and other parts are missing",
            where=path,
            found=f"no {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''} beside it",
            remedy="fetch all parts into one folder",
        )
    return [path.parent / part for part in names]


class GgufFile:
    """A GGUF file of a LLaMA, mapped into memory.

    Args:
        path: The file, or any part of a split one, the others beside it.

    Raises:
        ConversionError: It is not a GGUF file, is cut short, or its architecture is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self.reader = _open(path)
        self._readers = [self.reader]
        count = self.get("split.count", 1)
        if not isinstance(count, int):
            raise self.wrong("split.count", count, "a whole number")
        if count > 1:
            parts = _parts(path, count)
            self.path, self.name = parts[0], parts[0].name[: -len("-00001-of-00002.gguf")]
            self._readers = [_open(part) for part in parts]
            self.reader = self._readers[0]  # the first part holds the metadata
        if (kind := self.get("general.type", "model")) != "model":
            remedy = "for an adapter, merge it into its base first (llama-export-lora of llama.cpp)"
            raise self.error("the GGUF file is not a whole model", "general.type", kind, "model", remedy)
        if (kind := self.get("general.architecture")) != "llama":
            raise self.error(
                "the model's architecture is not supported", "general.architecture", kind, "llama"
            )
        if found := self.get("llama.expert_count", 0):
            raise self.error("mixtures of experts are not supported", "llama.expert_count", found)

    def error(
        self, what: str, key: str, found: object = None, expected: object = None, remedy: str | None = None
    ) -> ConversionError:
        """Return the error for a metadata entry."""
        found = None if found is None else shorten(str(found), 100)
        where = f"{self.path}: {key}"
        return ConversionError(what, where=where, found=found, expected=expected, remedy=remedy)

    def wrong(self, key: str, found: object, expected: object) -> ConversionError:
        """Return the error for an invalid metadata entry."""
        remedy = "import the model's Hugging Face folder instead, or make the file again"
        return self.error("the GGUF file has an invalid metadata entry", key, found, expected, remedy)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a metadata value as a Python value, or the default."""
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def need(self, key: str) -> Any:
        """Return a metadata value that must be there.

        Raises:
            ConversionError: It is not.
        """
        value = self.get(key)
        if value is None:
            raise ConversionError("the GGUF file lacks a metadata entry", where=self.path, expected=key)
        return value

    @functools.cached_property
    def source(self) -> Source:
        """The tensors."""
        tensors, problems = {}, []
        for tensor in [tensor for reader in self._readers for tensor in reader.tensors]:
            if tensor.name in tensors:
                problems.append(f"duplicate: {tensor.name}")
            kind = tensor.tensor_type.name
            shape = tuple(int(size) for size in reversed(tensor.shape))
            read = functools.partial(self._read, tensor)
            tensors[tensor.name] = ForeignTensor(shape, kind, self.path, read, mapped=kind == "F32")
        return Source("gguf", tensors, self.path, tuple(problems))

    def _read(self, tensor: Any) -> np.ndarray:
        import gguf

        try:
            return gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise self.error(
                "the tensor's quantisation is not supported",
                tensor.name,
                tensor.tensor_type.name,
                remedy="use a GGUF file of another quantisation, such as Q8_0 or F16",
            ) from None

    @functools.cached_property
    def config(self) -> LlamaConfig:
        """The model's shape, from the metadata.

        Raises:
            ConversionError: An entry is missing, of a wrong type, or asks for what LLaMA does not do.
        """
        heads, width = self._whole("attention.head_count"), self._whole("embedding_length")
        tensors = self.source.tensors
        vocabulary = tensors.get("token_embd.weight")
        fallback = vocabulary.shape[0] if vocabulary else len(self.get("tokenizer.ggml.tokens", []))
        config = LlamaConfig(
            vocab_size=fallback,
            hidden_size=width,
            intermediate_size=self._whole("feed_forward_length"),
            num_hidden_layers=self._whole("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=self._whole("attention.head_count_kv", heads),
            head_dim=self._whole("attention.key_length", width // heads),
            max_position_embeddings=self._whole("context_length"),
            rms_norm_eps=self._number("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings="output.weight" not in tensors,
            attention_bias="blk.0.attn_q.bias" in tensors,
            mlp_bias="blk.0.ffn_up.bias" in tensors,
        )
        for key, what in (
            ("rope.dimension_count", "partial rotary embeddings are"),
            ("attention.value_length", "values of another size than keys are"),
        ):
            if (found := self._whole(key, config.head_dim)) != config.head_dim:
                raise self.error(f"{what} not supported", f"llama.{key}", found, config.head_dim)
        self._refuse_other_keys(config)
        config = dataclasses.replace(config, rope=self._rope(config))
        check(config, f"{self.path}: llama", error=ConversionError)
        check(config.rope, f"{self.path}: llama.rope", error=ConversionError)
        return config

    def _whole(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number of the model's metadata."""
        value = self.need(f"llama.{key}") if default is None else self.get(f"llama.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000_000:
            raise self.wrong(f"llama.{key}", value, "a whole number from 1 to 1,000,000,000")
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """Return a positive number of the model's metadata, as the decimal that was meant."""
        value = self.need(f"llama.{key}") if default is None else self.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.wrong(f"llama.{key}", value, "a number above 0")
        return _shortest(value)

    def _rope(self, config: LlamaConfig) -> RopeConfig:
        """Read the rotary embedding as llama.cpp does: a factor without a type means linear scaling.

        Source: llama.cpp, ``llama-model.cpp`` (``load_hparams``) and ``ggml`` (``rope_yarn``).
        """
        rope = RopeConfig(theta=self._number("rope.freq_base", 10_000.0))
        has_factor = self.get("llama.rope.scaling.factor", 0) != 0
        factor = self._number("rope.scaling.factor" if has_factor else "rope.scale_linear", 1.0)
        kind = self.get("llama.rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn"):
            what = "this kind of rotary embedding is not supported"
            raise self.error(what, "llama.rope.scaling.type", kind, "none, linear, yarn")
        scaled = kind == "yarn" or (kind == "linear" and factor != 1)
        attention = self._number("rope.scaling.attn_factor", 1.0)
        if "rope_freqs.weight" in self.source.tensors:
            if scaled:
                what = "two scalings of the rotary embedding at once are not supported"
                found = f"{kind} by {factor:g}, and rope_freqs.weight"
                raise self.error(what, "llama.rope.scaling.type", found)
            return self._llama3(config, rope, self.source.tensors["rope_freqs.weight"].read())
        if not scaled:
            return rope
        length = self._whole("rope.scaling.original_context_length", config.max_position_embeddings)
        rope = dataclasses.replace(rope, kind=kind, factor=factor)
        if kind == "linear":
            return rope
        magnitude = 1 + 0.1 * math.log(factor) if factor > 1 else 1.0
        return dataclasses.replace(
            rope,
            original_max_position_embeddings=length,
            beta_fast=self._number("rope.scaling.yarn_beta_fast", rope.beta_fast),
            beta_slow=self._number("rope.scaling.yarn_beta_slow", rope.beta_slow),
            attention_factor=None if attention == 1 else attention * magnitude,
        )

    def _refuse_other_keys(self, config: LlamaConfig) -> None:
        """Refuse metadata whose effect on the model is not supported.

        Raises:
            ConversionError: There is such a key.
        """
        prefix, must_be = "llama.", dict(KEYS_THAT_MUST_BE)
        found = {
            key.removeprefix(prefix): self.get(key) for key in self.reader.fields if key.startswith(prefix)
        }
        if found.get("rope.scaling.type") != "yarn":
            must_be |= {"rope.scaling.yarn_ext_factor": 0.0, "rope.scaling.attn_factor": 1.0}
        scale = found.get("attention.scale")
        if isinstance(scale, float) and math.isclose(scale, config.head_dim**-0.5, rel_tol=1e-4):
            del found["attention.scale"]
        wrong = {
            key: value
            for key, value in found.items()
            if (value != must_be[key] if key in must_be else value and not KEYS.fullmatch(key))
        }
        if wrong:
            raise ConversionError(
                "the file has parameters that are not supported",
                where=self.path,
                found=", ".join(
                    f"{prefix}{key}: {shorten(str(value), 60)}" for key, value in sorted(wrong.items())
                ),
                remedy="import the model's Hugging Face folder instead",
            )

    def _llama3(self, config: LlamaConfig, plain: RopeConfig, factors: np.ndarray) -> RopeConfig:
        """Find the llama3 rule behind per-frequency divisors; GGUF keeps the divisors and not the rule."""
        rope = dataclasses.replace(plain, kind="llama3", factor=_shortest(factors.max()), **FIXED_LLAMA3)
        made, _ = inverse_frequencies(dataclasses.replace(config, rope=rope))
        wanted, _ = inverse_frequencies(dataclasses.replace(config, rope=plain))
        if factors.shape != made.shape or not np.allclose(wanted / made, factors, rtol=1e-4):
            raise self.error(
                "the file's rotary frequencies are not supported",
                "rope_freqs.weight",
                expected="the frequencies of LLaMA 3.1 or 3.2 (trained on 8,192 positions)",
                remedy="import the model's Hugging Face folder instead",
            )
        return rope

    def hf_config(self) -> dict[str, Any]:
        """Return the ``config.json`` that the model would have at Hugging Face."""
        names = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        ids = {f"{name}_token_id": self._token_id(key) for name, key in names}
        found = {name: index for name, index in ids.items() if index is not None}
        return self.config.to_hf() | found | {"torch_dtype": "float32", "use_cache": True}

    def _token_id(self, key: str) -> int | None:
        name = f"tokenizer.ggml.{key}_token_id"
        index = self.get(name)
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise self.wrong(name, index, "a token id")
        return index

    def generation_config(self) -> dict[str, Any]:
        """Return the ``generation_config.json``: the ids at which an answer starts and ends."""
        config = self.hf_config()
        ends = [config["eos_token_id"]] if "eos_token_id" in config else []
        for key in ("eot", "eom"):
            index = self._token_id(key)
            if index is not None and index not in ends:
                ends.append(index)
        found = {key: config[key] for key in ("bos_token_id", "pad_token_id") if key in config}
        return found | ({"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {})


def _shortest(value: Any) -> float:
    """Return the decimal that was meant: 1e-05, not the nearest float32, 9.999999747378752e-06."""
    return float(str(np.float32(value)))
