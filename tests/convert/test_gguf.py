import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_llama import TINY

from alpacare_jax import checkpoint, convert, load
from alpacare_jax.errors import ConversionError
from alpacare_jax.model.rope import inverse_frequencies
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original": 8192}


def bytes_as_letters() -> list[str]:
    """The 256 letters in which byte-level vocabularies spell bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(others)) for b in range(256)]


def add_byte_level_tokenizer(
    writer: gguf.GGUFWriter, pre: str | None = "smollm", begins: bool | None = False
) -> list[str]:
    tokens = ["<|none|>", "<|start|>", "<|end|>", *bytes_as_letters(), "he", "Ġhe", "12", "123"]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e", "Ġ he", "1 2", "12 3"])
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    if begins is not None:
        writer.add_bos_token_id(1)
        writer.add_add_bos_token(begins)
    writer.add_chat_template(TEMPLATE)
    return tokens


def write_gguf(
    path: Path, hf: Path, changes: dict | None = None, tokenizer=add_byte_level_tokenizer, **more
) -> Path:
    """Write a Hugging Face folder as GGUF the way llama.cpp lays it out: queries and keys with rows exchanged."""
    config = TINY | (changes or {})
    writer = gguf.GGUFWriter(path, more.get("architecture", "llama"))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    for key, value in more.get("metadata", {}).items():
        add = {
            bool: writer.add_bool,
            str: writer.add_string,
            float: writer.add_float32,
            int: writer.add_uint32,
            list: writer.add_array,
        }
        add[type(value)](key, value)
    if more.get("rope"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(more["rope"]))
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)
    tokenizer(writer)
    for name, tensor in load_file(hf / "model.safetensors").items():
        for ours, theirs in NAMES.items():
            name = name.replace("model.layers", "blk").replace(ours + ".", theirs + ".")
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        count = heads.get(name.split(".")[-2])
        if count:
            shape = (count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
            tensor = tensor.reshape(shape).swapaxes(1, 2).reshape(tensor.shape)
        if more.get("only", lambda name: True)(name):
            writer.add_tensor(name, np.ascontiguousarray(tensor))
    for name, tensor in more.get("extra", {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PLAIN = {"rope_scaling": None}


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}]
)
def test_a_gguf_file_gives_the_same_model_as_the_folder_it_was_made_from(make_folder, tmp_path, changes):
    hf = make_folder(PLAIN | changes)
    path = write_gguf(tmp_path / "tiny.gguf", hf, changes)
    expected, loaded = load(hf), load(path)
    assert loaded.config == expected.config
    ours = checkpoint.flatten(loaded.params)
    for name, leaf in checkpoint.flatten(expected.params).items():
        assert np.array_equal(ours[name], leaf), name
    config = json.loads((loaded.hf_folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert config["rms_norm_eps"] == 1e-05  # and not the nearest float32


def llama3_factors(head_dim: int = 16) -> np.ndarray:
    """The divisors as llama.cpp writes them for LLaMA 3.1, by its own formula."""
    found = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * TINY["rope_theta"] ** (i / head_dim)
        low, high = (
            LLAMA3["original"] / LLAMA3["low_freq_factor"],
            LLAMA3["original"] / LLAMA3["high_freq_factor"],
        )
        if wavelength < high:
            found.append(1.0)
        elif wavelength > low:
            found.append(LLAMA3["factor"])
        else:
            smooth = (LLAMA3["original"] / wavelength - 1) / 3
            found.append(1 / ((1 - smooth) / LLAMA3["factor"] + smooth))
    return np.array(found, np.float32)


def test_rotary_scaling_is_found_again(make_folder, tmp_path):
    hf = make_folder(PLAIN)
    rope = load(write_gguf(tmp_path / "a.gguf", hf, rope="linear")).config.rope
    assert (rope.kind, rope.factor, rope.theta) == ("linear", 4.0, 500_000.0)
    rope = load(write_gguf(tmp_path / "b.gguf", hf, rope="yarn")).config.rope
    assert (rope.kind, rope.factor, rope.original_max_position_embeddings) == ("yarn", 4.0, 16)
    wide, factors = {"hidden_size": 64}, llama3_factors()
    hf = make_folder(PLAIN | wide, name="wide")
    path = write_gguf(tmp_path / "c.gguf", hf, wide, extra={"rope_freqs.weight": factors})
    rope = load(path).config.rope
    assert (rope.kind, rope.factor, rope.original_max_position_embeddings) == ("llama3", 8.0, 8192)
    odd = write_gguf(tmp_path / "d.gguf", hf, wide, extra={"rope_freqs.weight": factors[::-1].copy()})
    with pytest.raises(ConversionError, match="rotary frequencies are not supported"):
        load(odd)


def rotations_of_llama_cpp(factor=1.0, ext=0.0, attention=1.0, fast=32.0, slow=1.0, length=64, size=4):
    """Angles per position and magnitude, by ggml's ``rope_yarn`` written out."""
    theta = 500_000.0 ** (-np.arange(0, size, 2) / size)
    low, high = (
        size * np.log(length / (turns * 2 * np.pi)) / (2 * np.log(500_000.0)) for turns in (fast, slow)
    )
    low, high = max(0, np.floor(low)), min(size - 1, np.ceil(high))
    ramp = (1 - np.clip((np.arange(size // 2) - low) / max(0.001, high - low), 0, 1)) * ext
    magnitude = attention * (1 + 0.1 * np.log(factor) if ext else 1)
    return theta / factor * (1 - ramp) + theta * ramp, magnitude


SCALING, BEFORE = "llama.rope.scaling.", {"llama.rope.scaling.original_context_length": 16}
HARMLESS = {
    "attention.causal": True,
    "attention.scale": 0.5,
    "attention.sliding_window": 0,
    "logit_scale": 1.0,
} | {"vocab_size": 32, "tensor_data_layout": "Meta AI original pth", "use_parallel_residual": False}
ROPES = {
    "nothing": ({}, {}),
    "keys that change nothing": ({f"llama.{key}": value for key, value in HARMLESS.items()}, {}),
    "linear": ({SCALING + "type": "linear", SCALING + "factor": 4.0}, {"factor": 4}),
    "a factor without type": ({SCALING + "factor": 4.0}, {"factor": 4}),
    "the key of before": ({"llama.rope.scale_linear": 4.0}, {"factor": 4}),
    "both keys": ({"llama.rope.scale_linear": 2.0, SCALING + "factor": 4.0}, {"factor": 4}),
    "a factor that does not count": ({SCALING + "type": "none", SCALING + "factor": 4.0}, {}),
    "yarn": (
        {SCALING + "type": "yarn", SCALING + "factor": 4.0} | BEFORE,
        {"factor": 4, "ext": 1, "length": 16},
    ),
    "yarn without length": ({SCALING + "type": "yarn", SCALING + "factor": 4.0}, {"factor": 4, "ext": 1}),
    "betas": (
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "yarn_beta_fast": 2.0}
        | {SCALING + "yarn_beta_slow": 0.001},
        {"factor": 4, "ext": 1, "fast": 2, "slow": 0.001},
    ),
    "attention factor": (
        {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "attn_factor": 0.5} | BEFORE,
        {"factor": 4, "ext": 1, "attention": 0.5, "length": 16},
    ),
}


@pytest.mark.parametrize(("metadata", "meaning"), ROPES.values(), ids=ROPES)
def test_rotary_keys_mean_what_they_mean_in_llama_cpp(make_folder, tmp_path, metadata, meaning):
    path = write_gguf(tmp_path / "a.gguf", make_folder(PLAIN), metadata=metadata)
    ours, scale = inverse_frequencies(convert.find_model(path).config)
    theirs, magnitude = rotations_of_llama_cpp(**meaning)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert scale == pytest.approx(magnitude)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({SCALING + "type": "longrope"}, "longrope"),
        ({SCALING + "attn_factor": 0.5}, "attn_factor"),
        (
            {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "yarn_ext_factor": 0.5},
            "yarn_ext_factor",
        ),
        ({SCALING + "yarn_log_multiplier": 0.1}, "yarn_log_multiplier"),
        ({SCALING + "alpha": 1000.0}, "scaling.alpha"),
        ({"llama.rope.dimension_count": 2}, "dimension_count"),
        ({SCALING + "factor": "4"}, "scaling.factor"),
        ({"llama.attention.key_length": "4"}, "key_length"),
        ({"llama.attention.value_length": 8}, "value_length"),
        ({"general.type": "adapter"}, "general.type"),
        ({"llama.rope.freq_base": 0.5}, "llama.rope.theta must be above 1"),
        ({"split.count": "two"}, "split.count"),
        ({"llama.attention.scale": 0.3}, "llama.attention.scale: 0.3"),
        ({"llama.attention.causal": False}, "llama.attention.causal: False"),
        ({"llama.attention.sliding_window": 4096}, "llama.attention.sliding_window: 4096"),
        ({"llama.final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"llama.logit_scale": 0.25}, "logit_scale"),
        ({"llama.attention.clamp_kqv": 8.0, "llama.swin_norm": True}, "swin_norm: True"),
    ],
)
def test_metadata_that_is_not_computed_here_is_refused_by_its_key(make_folder, tmp_path, metadata, named):
    path = write_gguf(tmp_path / "a.gguf", make_folder(PLAIN), metadata=metadata)
    with pytest.raises(ConversionError) as error:
        convert.find_model(path)
    assert named in str(error.value)


def test_a_split_file_is_read_whole_from_any_of_its_parts(make_folder, tmp_path):
    hf = make_folder(PLAIN)
    whole = load(write_gguf(tmp_path / "whole.GGUF", hf))
    parts = [tmp_path / f"tiny-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(parts):
        first = lambda name: name.startswith(("blk.0", "token"))  # noqa: E731
        only = lambda name, number=number, first=first: first(name) == (number == 0)  # noqa: E731
        write_gguf(path, hf, metadata={"split.no": number, "split.count": 2}, only=only)
    for path in parts:
        model = load(path)
        assert model.name == "tiny"
        assert model.config == whole.config
        for name, leaf in checkpoint.flatten(whole.params).items():
            assert np.array_equal(checkpoint.flatten(model.params)[name], leaf), name
    alone = parts[1].rename(tmp_path / "second.gguf")
    with pytest.raises(ConversionError, match="one of 2 parts"):
        convert.find_model(alone)
    with pytest.raises(ConversionError, match=r"tiny-00002-of-00002\.gguf"):
        convert.find_model(parts[0])


def spell(tokenizer, text: str) -> list[str]:
    return tokenizer.backend.convert_ids_to_tokens(tokenizer.encode(text))


def test_a_byte_level_tokenizer_cuts_as_its_name_says(make_folder, tmp_path):
    hf = make_folder(PLAIN)
    smollm = load(write_gguf(tmp_path / "a.gguf", hf)).tokenizer
    assert spell(smollm, "he he123") == ["he", "Ġhe", "1", "2", "3"]
    assert smollm.encode("<|start|>he<|end|>") == [1, 259, 2]
    assert (smollm.bos_id, smollm.eos_id, smollm.pad_id, smollm.adds_bos) == (1, 2, 2, False)
    assert smollm.chat_template == TEMPLATE
    assert smollm.apply_chat_template([{"role": "he", "content": "he"}])[:2] == [1, 259]
    text = "naïve 東京 🩺\t\n  he’s 50%"
    assert smollm.decode(smollm.encode(text)) == text

    def as_llama3(writer):
        add_byte_level_tokenizer(writer, "llama-bpe")

    llama3 = load(write_gguf(tmp_path / "b.gguf", hf, tokenizer=as_llama3)).tokenizer
    assert spell(llama3, "he he1231") == ["he", "Ġhe", "123", "1"]
    assert llama3.decode(llama3.encode(text)) == text

    def as_stranger(writer):
        add_byte_level_tokenizer(writer, "tekken")

    with pytest.raises(ConversionError, match="tekken"):
        load(write_gguf(tmp_path / "c.gguf", hf, tokenizer=as_stranger))


def test_a_sentencepiece_vocabulary_gives_the_ids_of_the_model_it_came_from(make_folder, tmp_path):
    import mistral_common
    import sentencepiece
    from transformers import AutoTokenizer

    real = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    model = sentencepiece.SentencePieceProcessor(model_file=str(real))
    size = model.vocab_size()

    def kind(i: int) -> int:
        return 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([model.id_to_piece(i) for i in range(size)])
        writer.add_token_scores([model.get_score(i) for i in range(size)])
        writer.add_token_types([kind(i) for i in range(size)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_chat_template(TEMPLATE)

    hf = make_folder(PLAIN)
    loaded = load(write_gguf(tmp_path / "a.gguf", hf, tokenizer=add))
    expected = load_tokenizer(real)
    convert.export(loaded.params, loaded.config, loaded.hf_folder, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.chat_template == TEMPLATE
    for text in ("Take 500 mg twice daily.", "  two  spaces\n\ttab", "naïve 東京 🩺", "x", "<s>"):
        ids = loaded.tokenizer.encode(text)
        assert ids == expected.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += ["▁", "h", "i", "▁h", "hi", "▁hi", "<|end of turn|>", "[UNUSED]", "<|turn|>"]
KINDS = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1, 1, 4, 5, 3]


def ids_of_gguf(folder: Path, hf: Path, write) -> Tokenizer:
    found = convert.find_model(
        write_gguf(folder / f"{len(list(folder.iterdir()))}.gguf", hf, tokenizer=write)
    )
    return load_tokenizer(found.hf_folder)


def add_pieces(writer, kinds=KINDS, last_score: float = -1000.0, **ids: int | None) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(PIECES)
    writer.add_token_scores([0.0] * 259 + [-1.0 * k for k in range(6)] + [-1000.0] * 2 + [last_score])
    writer.add_token_types(kinds)
    named = {"bos": 1, "eos": 2} | ids
    for name, index in ((name, index) for name, index in named.items() if index is not None):
        getattr(writer, f"add_{name}_token_id")(index)


def test_a_sentencepiece_vocabulary_follows_the_keys_and_types_of_the_file(make_folder, tmp_path):
    hf, end = make_folder(PLAIN), PIECES.index("<|end of turn|>")

    def ids(write, text: str = "hi", **more):
        return ids_of_gguf(tmp_path, hf, write).encode(text, add_special_tokens=True)

    hi, space = PIECES.index("▁hi"), PIECES.index("▁")
    assert ids(add_pieces) == [1, hi]
    assert ids(lambda w: (add_pieces(w), w.add_add_bos_token(False))) == [hi]
    assert ids(lambda w: (add_pieces(w), w.add_add_eos_token(True))) == [1, hi, 2]
    assert ids(lambda w: (add_pieces(w, bos=None, eos=None), w.add_add_eos_token(True))) == [1, hi, 2]
    assert ids(lambda w: (add_pieces(w), w.add_add_space_prefix(False))) == [1, PIECES.index("hi")]
    assert ids(lambda w: add_pieces(w, [1 if k in (2, 6) else k for k in KINDS]), "\n\n") == [
        1,
        space,
        13,
        13,
    ]
    assert ids(add_pieces, "é\n\n") == [1, space, 3 + 0xC3, 3 + 0xA9, 13, 13]
    assert ids(add_pieces, "hi<|end of turn|>hi<|turn|>")[:4] == [1, hi, end, PIECES.index("hi")]
    assert PIECES.index("[UNUSED]") not in ids(add_pieces, "[UNUSED]")


def test_the_end_of_a_turn_is_known_from_the_template_where_the_file_names_none(make_folder, tmp_path):
    template = "{% for m in messages %}<|turn|>{{ m.content }}<|end of turn|>{% endfor %}"
    tokenizer = ids_of_gguf(
        tmp_path, make_folder(PLAIN), lambda w: (add_pieces(w), w.add_chat_template(template))
    )
    assert tokenizer.eos_ids == (2, PIECES.index("<|end of turn|>"))
    assert "<|end of turn|>" in tokenizer.special_texts


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: add_byte_level_tokenizer(w, ""), "tokenizer.ggml.pre"),
        (lambda w: add_byte_level_tokenizer(w, None), "tokenizer.ggml.pre"),
        (lambda w: add_byte_level_tokenizer(w, "llama-bpe", begins=None), "tokenizer.ggml.bos_token_id"),
        (lambda w: (add_pieces(w), w.add_uint32("tokenizer.ggml.add_bos_token", 1)), "add_bos_token"),
        (lambda w: add_pieces(w, KINDS[:-1]), "tokenizer.ggml.token_type"),
        (lambda w: add_pieces(w, [*KINDS[:-1], 9]), "tokenizer.ggml"),
        (lambda w: add_pieces(w, last_score=float("nan")), "tokenizer.ggml.scores"),
        (lambda w: add_pieces(w, eos=5_000), "tokenizer.ggml.eos_token_id"),
        (lambda w: (add_pieces(w), w.add_uint32("tokenizer.chat_template", 5)), "chat_template"),
        (lambda w: w.add_tokenizer_model("bert"), "tokenizer.ggml.model"),
        (lambda w: (add_pieces(w), w.add_array("tokenizer.ggml.eot_token_id", [1])), "eot_token_id"),
        (
            lambda w: (
                add_byte_level_tokenizer(w, "llama-bpe"),
                w.add_bool("tokenizer.ggml.add_space_prefix", True),
            ),
            "add_space_prefix",
        ),
    ],
)
def test_a_tokenizer_that_the_file_describes_badly_is_refused_by_its_key(
    make_folder, tmp_path, change, named
):
    with pytest.raises(ConversionError) as caught:
        ids_of_gguf(tmp_path, make_folder(PLAIN), change)
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value.where)


def test_what_is_no_llama_in_gguf_is_refused(make_folder, tmp_path):
    hf = make_folder(PLAIN)
    with pytest.raises(ConversionError, match="architecture is not supported"):
        load(write_gguf(tmp_path / "a.gguf", hf, architecture="gemma"))
    whole = write_gguf(tmp_path / "b.gguf", hf).read_bytes()
    for i, length in enumerate((3, 100, len(whole) // 2, len(whole) - 40)):
        torn = tmp_path / f"torn{i}.gguf"
        torn.write_bytes(whole[:length])
        with pytest.raises(ConversionError, match=str(torn)):
            load(torn)
    extra = {"blk.0.ffn_gate_inp.weight": np.ones((4, 16), np.float32)}
    with pytest.raises(ConversionError, match=r"unmapped: blk\.0\.ffn_gate_inp\.weight"):
        load(write_gguf(tmp_path / "c.gguf", hf, extra=extra))


@pytest.mark.parametrize("quantisation", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_quantised_weights_are_decoded(make_folder, tmp_path, quantisation):
    """Against the gguf package's own decoder, through our layouts and a mesh that asks for slices."""
    from alpacare_jax import sharding

    wide = {"hidden_size": 64, "intermediate_size": 96}
    hf = make_folder(PLAIN | wide)
    kind = gguf.GGMLQuantizationType[quantisation]
    path = tmp_path / "a.gguf"
    real = load_file(hf / "model.safetensors")
    original = gguf.GGUFWriter.add_tensor

    def add_quantised(writer, name, tensor, **more):
        if name == "blk.1.ffn_up.weight":
            return original(writer, name, gguf.quantize(tensor, kind), raw_dtype=kind)
        return original(writer, name, tensor, **more)

    gguf.GGUFWriter.add_tensor = add_quantised
    try:
        write_gguf(path, hf, wide)
    finally:
        gguf.GGUFWriter.add_tensor = original
    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=4, tensor=2))
    up = load(path, mesh=mesh).params["layers"]["mlp"]["up"]
    exact = real["model.layers.1.mlp.up_proj.weight"]
    decoded = gguf.dequantize(gguf.quantize(exact, kind), kind)
    assert np.array_equal(up[1], decoded.T)
    assert np.array_equal(up[0], real["model.layers.0.mlp.up_proj.weight"].T)
