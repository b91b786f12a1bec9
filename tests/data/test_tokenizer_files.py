"""Broken, cut and oddly typed files of a tokenizer: one error that names file and key, never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_sentencepiece_folders import train

from alpacare_jax.errors import DataError, UserError
from alpacare_jax.tokenizer import load_tokenizer
from alpacare_jax.tokenizer_files import KEYS, read_keys

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n"
STRANGE: list[Any] = [
    5,
    -1,
    2.5,
    "x",
    [[]],
    ["x", 5],
    {"a": 1},
    {"content": 5},
    True,
    {"x": {"content": "z"}},
]
CONFIG = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pieces")
    train(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(params=["pieces", "chat_folder"])
def folder(request: Any, tmp_path: Path) -> Path:
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "model")


def use(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.encode("a </s>", add_special_tokens=True)
    assert tokenizer.eos_ids
    if tokenizer.chat_template is not None:
        tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}])


@pytest.mark.parametrize("file", [*KEYS, "added_tokens.json"])
def test_a_key_of_another_kind_is_named(folder: Path, file: str) -> None:
    before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    for key in KEYS.get(file, {"[PAD]": None}):
        refused = []
        for value in STRANGE:
            (folder / file).write_text(json.dumps(before | {key: value}))
            try:
                use(folder)
            except UserError as error:
                refused.append(str(error))
        assert any(key in error for error in refused)
        for error in refused:
            assert file in error
            assert "alpacare-tokenizer" not in error, "the place is the user's"
        (folder / file).write_text(json.dumps(before | {key: None}))
        if file != "added_tokens.json" and key != "eos_token":
            use(folder)
        (folder / file).write_text(json.dumps(before))


@pytest.mark.parametrize(
    "content", [b"", b" \n", POINTER, b"\xff\xfe", b"null", b"[]", b'{"eos_token": "</', b"[" * 99_999]
)
@pytest.mark.parametrize("file", [*KEYS, "special_tokens_map.json", "added_tokens.json", "tokenizer.json"])
def test_a_broken_file_is_named(folder: Path, file: str, content: bytes) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        use(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("chat_template", [{"name": "default", "template": "{{ messages }}", "description": "plain"}], True),
        ("chat_template", [{"name": "default"}], False),
        ("chat_template", [{"template": "{{ messages }}"}], False),
        ("added_tokens_decoder", {"4194303": {"content": "<x>", "__type": "AddedToken"}}, True),
        ("added_tokens_decoder", {"4194304": {"content": "<x>"}}, False),
        ("added_tokens_decoder", {"x": {"content": "<x>"}}, False),
        ("model_max_length", 10**30, True),
    ],
)
def test_what_a_key_of_the_tokenizer_config_holds(tmp_path: Path, key: str, value: Any, valid: bool) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({key: value}))
    if valid:
        assert read_keys(file) == {key: value}
    else:
        with pytest.raises(DataError, match=f"invalid {key}"):
            read_keys(file)


def test_a_broken_model_or_template_is_named(pieces: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pieces, tmp_path / "model")
    whole = (folder / "tokenizer.model").read_bytes()
    for content in (b"", POINTER, b"junk", whole[:-1], whole[: len(whole) // 2], whole[:999], whole * 2):
        (folder / "tokenizer.model").write_bytes(content)
        with pytest.raises(DataError) as caught:
            use(folder)
        assert str(folder / "tokenizer.model") in str(caught.value)
    (folder / "tokenizer.model").write_bytes(whole)
    for template in ("{% if", "{{ 1 / 0 }}", "{{ messages + 1 }}", "{{ raise_exception('no') }}", "\xff"):
        (folder / "chat_template.jinja").write_text(template, encoding="latin-1")
        with pytest.raises(DataError) as caught:
            use(folder)
        assert str(folder / "chat_template.jinja") in str(caught.value)


def test_an_added_token_has_the_id_that_the_file_says(pieces: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pieces, tmp_path / "model")
    (folder / "added_tokens.json").write_text('{"[PAD]": 9000}')
    with pytest.raises(DataError, match="does not follow the pieces"):
        load_tokenizer(folder)


@pytest.mark.parametrize("index", [10**9, 2**22, -1, 1.5, "7", None, True])
@pytest.mark.parametrize("place", ["vocabulary", "added token"])
def test_an_id_that_no_model_has_is_named_before_tables_grow_to_it(
    chat_folder: Path, tmp_path: Path, place: str, index: Any
) -> None:
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    if place == "vocabulary":
        content["model"]["vocab"]["zebra"] = index
    else:
        content["added_tokens"].append({**content["added_tokens"][0], "id": index, "content": "zebra"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="invalid token id") as caught:
        load_tokenizer(folder)
    assert f"{folder / 'tokenizer.json'}: 'zebra'" in str(caught.value)


def test_ids_with_gaps_count_up_to_the_highest(chat_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert load_tokenizer(folder).vocab_size == 5001
    content["added_tokens"].append({**content["added_tokens"][0], "id": 7000, "content": "<x>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not follow the pieces"):
        load_tokenizer(folder)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("ends", [4000, [1, 4000]])
def test_an_end_token_beyond_the_vocabulary_is_named(
    chat_folder: Path, tmp_path: Path, file: str, ends: Any
) -> None:
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"vocab_size": 4000}))
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(content | {"eos_token_id": ends}))
    with pytest.raises(DataError, match="end token is beyond") as caught:
        load_tokenizer(folder)
    assert f"{folder / file}: eos_token_id" in str(caught.value)


def test_keys_that_change_ids_or_texts_are_followed_or_refused(chat_folder: Path, tmp_path: Path) -> None:
    import tokenizers
    import transformers

    folder = shutil.copytree(chat_folder, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    cleaning = "clean_up_tokenization_spaces"
    changed = config | {"split_special_tokens": True, cleaning: True}
    (folder / "tokenizer_config.json").write_text(json.dumps(changed))
    mine, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    end = mine.backend.eos_token
    for text in (f"a {end} b", f"{end}{end}", "what ? it 's 5 ."):
        ids = theirs(text)["input_ids"]
        assert mine.encode(text, add_special_tokens=True) == ids
        assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, "a"))
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", cleaning: True}))
    with pytest.raises(DataError, match="removed from every answer") as caught:
        load_tokenizer(folder)
    assert cleaning in str(caught.value)


def test_a_gguf_file_as_a_tokenizer_is_sent_to_import(tmp_path):
    (tmp_path / "Model.GGUF").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"alpacare import Model\.GGUF"):
        load_tokenizer(tmp_path / "Model.GGUF")
