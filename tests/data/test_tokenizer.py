"""The sentencepiece conversion against the sentencepiece library, and folders against transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.errors import ConversionError, DataError
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer

MEDICAL = [
    "",
    " ",
    "Metformin 500 mg twice daily; HbA1c 8.2 % → 6.9 %.",
    "  two leading spaces, and two trailing  ",
    "line one\nline two\n\n\tindented\r\nwindows",
    "µg/mL, −3.5 °C, β-blocker, naïve, Ångström, e\u0301 (combining)",
    "患者は高血圧です。 مريض السكري 🧬🫀 𝒳",
    "INR 2.0-3.0    (four spaces)     five",
    "<s>no control token</s> <unk> <0x0A>",
    "\x00\x01\x7f null and control characters",
    "▁ the space symbol itself ▁",
    "||||||||---------========........................",
]


@pytest.fixture(scope="module")
def library(llama_model_file: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(llama_model_file))


@pytest.mark.parametrize("text", MEDICAL)
def test_sentencepiece_ids_are_those_of_the_library(llama: Tokenizer, library: Any, text: str) -> None:
    assert llama.encode(text, parse_special=False) == library.encode(text)


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_sentencepiece_ids_of_any_text(llama: Tokenizer, library: Any, text: str) -> None:
    ids = llama.encode(text, parse_special=False)
    assert ids == library.encode(text)
    assert llama.decode(ids) == text.replace("▁", " ")


@given(text=st.text(alphabet=" a-.=\n▁", max_size=60))
def test_sentencepiece_ids_of_runs(llama: Tokenizer, library: Any, text: str) -> None:
    assert llama.encode(text, parse_special=False) == library.encode(text)


def test_sentencepiece_ids_of_real_answers(llama: Tokenizer, library: Any, real_data: Path) -> None:
    lines = (real_data / "medquad_valid.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["output"] for line in lines]
    assert llama.encode_batch(texts, parse_special=False) == library.encode(texts)


def test_control_tokens_of_a_sentencepiece_model(llama: Tokenizer) -> None:
    assert (llama.bos_id, llama.eos_id, llama.eos_ids, llama.vocab_size) == (1, 2, (2,), 32_000)
    assert llama.adds_bos
    assert llama.encode("Hi", add_special_tokens=True) == [1, *llama.encode("Hi")]
    assert llama.encode("<s>Hi</s>")[0] == 1
    assert 1 not in llama.encode("<s>Hi</s>", parse_special=False)
    assert llama.decode([1, *llama.encode("Hi"), 2]) == "Hi"


def test_a_saved_tokenizer_is_the_same_and_transformers_reads_it(llama: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    llama.save(tmp_path)
    again = load_tokenizer(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == llama.fingerprint
    for text in MEDICAL:
        assert theirs(text).input_ids == again.encode(text, add_special_tokens=True)
        assert again.encode(text) == llama.encode(text)


def test_a_padding_token_added_behind_the_pieces(llama_model_file: Path, tmp_path: Path) -> None:
    shutil.copy(llama_model_file, tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 32000}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "[PAD]", "eos_token": "</s>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.vocab_size) == (32_000, 2, 32_001)
    assert tokenizer.encode("[PAD]") == [32_000]


def test_a_folder_with_chat_template(chat: Tokenizer) -> None:
    assert (chat.bos_id, chat.eos_id, chat.adds_bos, chat.pad_id) == (1, 2, False, 2)
    text = chat.render_chat([{"role": "user", "content": "Why?"}], add_generation_prompt=True)
    assert text == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    ids = chat.apply_chat_template([{"role": "user", "content": "Why?"}], add_generation_prompt=True)
    assert ids.count(1) == 2
    assert ids.count(2) == 1
    assert chat.decode(ids, skip_special_tokens=False) == text


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_byte_level_round_trip_and_batch(chat: Tokenizer, text: str) -> None:
    ids = chat.encode(text, parse_special=False)
    assert chat.decode(ids) == text
    assert chat.encode_batch([text, "x"], parse_special=False)[0] == ids


def test_the_fingerprint_follows_what_decides_ids(chat_folder: Path, chat: Tokenizer, tmp_path: Path) -> None:
    def changed(name: str, before: str, after: str) -> str:
        folder = tmp_path / after.strip()
        shutil.copytree(chat_folder, folder)
        content = (folder / name).read_text(encoding="utf-8")
        assert before in content
        (folder / name).write_text(content.replace(before, after, 1), encoding="utf-8")
        return load_tokenizer(folder).fingerprint

    assert load_tokenizer(chat_folder).fingerprint == chat.fingerprint
    assert changed("chat_template.jinja", "assistant", "model") != chat.fingerprint
    assert (
        changed("tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true') != chat.fingerprint
    )
    assert changed("tokenizer_config.json", '"<|im_end|>"', '"<|endoftext|>"') != chat.fingerprint


def test_end_tokens_of_the_generation_config_are_kept(chat_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model" / "hf"
    shutil.copytree(chat_folder, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert load_tokenizer(tmp_path / "model").eos_ids == (2, 0)


def test_a_padding_or_truncating_tokenizer_file_does_neither_here(chat_folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Rust

    folder = shutil.copytree(chat_folder, tmp_path / "limits")
    rust = Rust.from_file(str(folder / "tokenizer.json"))
    rust.enable_truncation(2)
    rust.enable_padding(length=9)
    rust.save(str(folder / "tokenizer.json"))
    text = "heart failure and blood pressure"
    assert load_tokenizer(folder).encode(text) == load_tokenizer(chat_folder).encode(text)


def test_errors_say_what_is_wrong(tmp_path: Path, chat_folder: Path, llama: Tokenizer) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_tokenizer(tmp_path / "missing")
    with pytest.raises(DataError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "other.model").write_bytes(b"not a model")
    with pytest.raises(DataError, match="not a sentencepiece model"):
        load_tokenizer(tmp_path / "other.model")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(chat_folder / "tokenizer.json", bare)
    with pytest.raises(DataError, match="names no end token"):
        load_tokenizer(bare)
    with pytest.raises(DataError, match="no chat template"):
        llama.render_chat([{"role": "user", "content": "Why?"}])


def test_a_sentencepiece_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("what lowers blood pressure\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "unigram"), vocab_size=18, minloglevel=2
    )
    with pytest.raises(ConversionError, match="of a kind that is not supported") as caught:
        load_tokenizer(tmp_path / "unigram.model")
    assert "not a BPE model" in str(caught.value)
