"""Folders with a sentencepiece model: ids and texts are those of transformers, whatever the files beside it say."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alpacare_jax.errors import ConversionError
from alpacare_jax.generate.text import Decoder
from alpacare_jax.tokenizer import load_tokenizer

CORPUS = """the patient has a fever and a cough, the blood pressure is high
describe the treatment of anaemia with iron 1 2 3 4 5 6 7 8 9 0
hello world: what lowers fever? <s> </s> [PAD] user assistant"""
BEHIND = ["<|im_start|>", "<|im_end|>", "[PAD]", "BRCA2", "é₂"]
USER_DEFINED = ["<|user|>", "BRCA1", "a b"]
WORDS = [
    "hello",
    "the blood",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t",
    "▁",
    "é",
    "🩺",
    "患者",
    "<0x0A>",
    "x",
    ".",
    "1234",
]
WORDS += ["<s>", "</s>", "<unk>", "BRCA1BRCA1", *BEHIND, *USER_DEFINED]
PIECES = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
TEXTS = st.lists(PIECES, max_size=9).map("".join)
FLAG = st.sampled_from(["left out", None, True, False])


def train(folder: Path, **options: Any) -> Path:
    import sentencepiece

    corpus = folder / "corpus.txt"
    corpus.write_text((CORPUS + "\n") * 10)
    rules = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False} | options
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "made"), vocab_size=350, model_type="bpe", byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, **rules,
    )  # fmt: skip
    return (folder / "made.model").rename(folder / "tokenizer.model")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, pieces in (("plain", []), ("user-defined", USER_DEFINED)):
        found[name] = train(tmp_path_factory.mktemp(name), user_defined_symbols=pieces)
    return found


def sizes(file: Path) -> int:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(file)).vocab_size()


@st.composite
def configs(draw: Any, size: int) -> dict[str, dict[str, Any]]:
    """Draw the files beside a model of ``size`` pieces, as people and programs write them."""
    flags = ("add_bos_token", "add_eos_token", "legacy", "add_prefix_space")
    said = {key: draw(FLAG) for key in flags}
    config: dict[str, Any] = {key: value for key, value in said.items() if value != "left out"}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    name = draw(st.sampled_from(["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", None]))
    config |= {"tokenizer_class": name} if name else {}
    behind = draw(st.lists(st.sampled_from(BEHIND), unique=True))
    form = st.fixed_dictionaries(
        {key: st.booleans() for key in ("special", "lstrip", "rstrip", "normalized", "single_word")}
    )
    files = {"tokenizer_config.json": config}
    if draw(st.booleans()):
        listed = {str(size + k): {"content": text, **draw(form)} for k, text in enumerate(behind)}
        config["added_tokens_decoder"] = listed
    elif behind:
        files["added_tokens.json"] = {text: size + k for k, text in enumerate(behind)}
        files["special_tokens_map.json"] = {"eos_token": "</s>", "pad_token": behind[0]}
    return files


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", ["plain", "user-defined"])
def test_ids_and_texts_are_those_of_transformers(models: dict[str, Path], name: str, beside: bool) -> None:
    from transformers import AutoTokenizer

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(files=configs(sizes(models[name])), texts=st.lists(TEXTS, min_size=8, max_size=8))
    def check(files: dict[str, dict[str, Any]], texts: list[str]) -> None:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            shutil.copy(models[name], folder)
            for file, content in files.items():
                (folder / file).write_text(json.dumps(content))
            if beside:  # tokenizer.json, and a config that may say something else
                AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
                (folder / "tokenizer_config.json").write_text(json.dumps(files["tokenizer_config.json"]))
            theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
        for text in texts:
            ids = ours.encode(text)
            assert ids == theirs(text, add_special_tokens=False)["input_ids"]
            assert ours.encode(text, add_special_tokens=True) == theirs(text)["input_ids"]
            for skip in (True, False):
                assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
            decoder = Decoder(ours)
            assert "".join([*map(decoder.feed, ids), decoder.finish()]) == ours.decode(ids)
            assert not set(ours.encode(text, parse_special=False)) & ({1, 2} - {ours.backend.unk_token_id})

    check()


# A byte's name that is written out between two pieces that stay whole is taken for the byte by transformers.
RULES = [({}, ""), ({"add_dummy_prefix": False}, ""), ({"user_defined_symbols": USER_DEFINED}, "<0x0A>")]


@pytest.mark.parametrize(("rules", "left_out"), RULES, ids=str)
def test_a_model_alone_gives_the_ids_of_the_sentencepiece_library(
    tmp_path: Path, rules: dict[str, Any], left_out: str
) -> None:
    import sentencepiece

    file = train(tmp_path, **rules)
    ours, library = load_tokenizer(file), sentencepiece.SentencePieceProcessor(model_file=str(file))
    assert ours.adds_bos

    @settings(max_examples=40)
    @given(text=TEXTS)
    def check(text: str) -> None:
        text = text.replace(left_out, "") if left_out else text
        assert ours.encode(text, parse_special=False) == library.encode(text)

    check()


@pytest.mark.parametrize(
    "rules", [{"remove_extra_whitespaces": True}, {"normalization_rule_name": "nmt_nfkc"}]
)
def test_a_model_that_changes_text_is_refused(tmp_path: Path, rules: dict[str, Any]) -> None:
    with pytest.raises(ConversionError, match="of a kind that is not supported"):
        load_tokenizer(train(tmp_path, **rules))


def test_text_never_becomes_a_control_token_between_pieces_that_stay_whole(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train(tmp_path, user_defined_symbols=["BRCA1"]))
    ids = tokenizer.encode("BRCA1</s>BRCA1", parse_special=False)
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "BRCA1</s>BRCA1"
    framed = tokenizer.encode("a </s>", add_special_tokens=True, parse_special=False)
    assert framed.count(tokenizer.bos_id) == 1
    assert tokenizer.eos_id not in framed


def test_a_config_without_add_bos_token_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert not load_tokenizer(tmp_path).adds_bos
    assert "add_bos_token" in caplog.text
