"""GGUF files: their tensors, their model shape, and a config for what only Hugging Face's files would say."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from alpacare_jax.convert.sources import ForeignTensor, Source
from alpacare_jax.errors import ConversionError
from alpacare_jax.model import LlamaConfig, RopeConfig
from alpacare_jax.model.rope import inverse_frequencies

FIXED_LLAMA3: dict[str, Any] = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


class GgufFile:
    """A GGUF file of a LLaMA, mapped into memory.

    Args:
        path: The file.

    Raises:
        ConversionError: It is not a GGUF file, is torn, or holds another architecture.
    """

    def __init__(self, path: Path) -> None:
        import gguf

        self.path = path
        try:
            self.reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
            raise ConversionError(
                "the file cannot be read as GGUF",
                where=path,
                found=str(error) or type(error).__name__,
                expected="a whole GGUF file, version 2 or 3",
                remedy="fetch the file again; it may have been cut short",
            ) from error
        architecture = self.get("general.architecture")
        if architecture != "llama":
            raise ConversionError(
                "the model is of another architecture",
                where=f"{path}: general.architecture",
                found=architecture,
                expected="llama",
            )
        if self.get("llama.expert_count", 0):
            raise ConversionError(
                "mixtures of experts are not supported", where=f"{path}: llama.expert_count"
            )

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
        for tensor in self.reader.tensors:
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
            raise ConversionError(
                "the tensor is quantised in a way that cannot be decoded here",
                where=f"{self.path}: {tensor.name}",
                found=tensor.tensor_type.name,
                remedy="use a GGUF file of another quantisation, such as Q8_0 or F16",
            ) from None

    @functools.cached_property
    def config(self) -> LlamaConfig:
        """The model's shape, from the metadata."""
        heads = int(self.need("llama.attention.head_count"))
        width = int(self.need("llama.embedding_length"))
        tensors = self.source.tensors
        vocabulary = tensors.get("token_embd.weight")
        fallback = vocabulary.shape[0] if vocabulary else len(self.get("tokenizer.ggml.tokens", []))
        config = LlamaConfig(
            vocab_size=fallback,
            hidden_size=width,
            intermediate_size=int(self.need("llama.feed_forward_length")),
            num_hidden_layers=int(self.need("llama.block_count")),
            num_attention_heads=heads,
            num_key_value_heads=int(self.get("llama.attention.head_count_kv", heads)),
            head_dim=int(self.get("llama.attention.key_length", width // heads)),
            max_position_embeddings=int(self.need("llama.context_length")),
            rms_norm_eps=_shortest(self.need("llama.attention.layer_norm_rms_epsilon")),
            tie_word_embeddings="output.weight" not in tensors,
            attention_bias="blk.0.attn_q.bias" in tensors,
            mlp_bias="blk.0.ffn_up.bias" in tensors,
        )
        rotated = int(self.get("llama.rope.dimension_count", config.head_dim))
        if rotated != config.head_dim:
            raise ConversionError(
                "partial rotary embeddings are not supported",
                where=f"{self.path}: llama.rope.dimension_count",
                found=rotated,
                expected=config.head_dim,
            )
        return self._with_rope(config)

    def _with_rope(self, config: LlamaConfig) -> LlamaConfig:
        rope = RopeConfig(theta=_shortest(self.get("llama.rope.freq_base", 10_000.0)))
        kind = self.get("llama.rope.scaling.type", "none")
        if "rope_freqs.weight" in self.source.tensors:
            factors = self.source.tensors["rope_freqs.weight"].read()
            return dataclasses.replace(config, rope=self._llama3(config, rope, factors))
        if kind not in ("none", "linear", "yarn"):
            raise ConversionError(
                "this kind of rotary embedding is not supported",
                where=f"{self.path}: llama.rope.scaling.type",
                found=kind,
                expected="none, linear, yarn",
            )
        if kind != "none":
            length = self.get("llama.rope.scaling.original_context_length")
            factor = _shortest(self.get("llama.rope.scaling.factor", 1.0))
            rope = dataclasses.replace(
                rope, kind=kind, factor=factor, original_max_position_embeddings=length
            )
        return dataclasses.replace(config, rope=rope)

    def _llama3(self, config: LlamaConfig, plain: RopeConfig, factors: np.ndarray) -> RopeConfig:
        """Find the llama3 rule behind per-frequency divisors; GGUF keeps the divisors and not the rule."""
        rope = dataclasses.replace(plain, kind="llama3", factor=_shortest(factors.max()), **FIXED_LLAMA3)
        made, _ = inverse_frequencies(dataclasses.replace(config, rope=rope))
        wanted, _ = inverse_frequencies(dataclasses.replace(config, rope=plain))
        if factors.shape != made.shape or not np.allclose(wanted / made, factors, rtol=1e-4):
            raise ConversionError(
                "the file's rotary frequencies follow no rule known here",
                where=f"{self.path}: rope_freqs.weight",
                expected="the frequencies of LLaMA 3.1 or 3.2 (trained on 8,192 positions)",
                remedy="import the model's Hugging Face folder instead",
            )
        return rope

    def hf_config(self) -> dict[str, Any]:
        """Return the ``config.json`` that the model would have at Hugging Face."""
        ids = {
            f"{name}_token_id": self.get(f"tokenizer.ggml.{key}_token_id")
            for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        }
        found = {name: int(value) for name, value in ids.items() if value is not None}
        return self.config.to_hf() | found | {"torch_dtype": "float32", "use_cache": True}

    def generation_config(self) -> dict[str, Any]:
        """Return the ``generation_config.json``: the ids at which an answer starts and ends."""
        config = self.hf_config()
        ends = [config["eos_token_id"]] if "eos_token_id" in config else []
        for key in ("eot", "eom"):
            value = self.get(f"tokenizer.ggml.{key}_token_id")
            if value is not None and int(value) not in ends:
                ends.append(int(value))
        found = {key: config[key] for key in ("bos_token_id", "pad_token_id") if key in config}
        return found | ({"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {})


def _shortest(value: Any) -> float:
    """Return the decimal that was meant: 1e-05, not the nearest float32, 9.999999747378752e-06."""
    return float(str(np.float32(value)))
