"""What is read as JSON and YAML, and what is refused with its reason and line, wherever such files come from."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.contamination.evaluation_files import read_evaluation
from datagen.decoding import (
    MAX_DEPTH,
    Malformed,
    parse_json,
    parse_yaml,
    read_json_object,
    read_yaml_mapping,
)
from datagen.errors import ConfigError, DataError, UserError
from datagen.records import read_objects, write_objects

NESTED = "[" * MAX_DEPTH + "]" * MAX_DEPTH
BILLION = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)

BAD_JSON = {
    "NaN": ('{"n": NaN}', 'NaN is not JSON, under "n"'),
    "NaN behind the word": ('{"NaN": ["NaN"], "n" : NaN}', 'NaN is not JSON, under "n"'),
    "NaN in a list": ('{"n": [1, NaN]}', "NaN is not JSON$|NaN is not JSON "),
    "Infinity": ('{"n": -Infinity}', '-Infinity is not JSON, under "n"'),
    "a float that overflows": ('{"n": 1e999}', "beyond the range"),
    "5,000 digits": ('{"n": ' + "9" * 5000 + "}", 'more than 4,300 digits, under "n"'),
    "5,000 digits, negative": ('{"n": -' + "9" * 5000 + "}", 'more than 4,300 digits, under "n"'),
    "lists in lists": ('{"n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 levels"),
    "lists never closed": ('{"n": ' + "[" * 100_000, "nested more than 100 levels"),
    "objects in objects": ('{"n": ' * 100_000, "nested more than 100 levels"),
    "just too deep": ('{"n": ' + NESTED + "}", "nested more than 100 levels"),
    "a high surrogate": ('{"n": "\\ud83d"}', "surrogate"),
    "a low surrogate in a key": ('{"\\uDE00": 1}', "surrogate"),
    "surrogates in the wrong order": ('{"n": "\\ude00\\ud83d"}', "surrogate"),
    "a word": ('{"n": nul}', "Expecting value"),
    "a cut object": ('{"n": [1, 2', "Expecting"),
    "a raw line break": ('{"n": "a\nb"}', "Invalid control character"),
    "two values": ('{"n": 1} {"n": 2}', "follows"),
}
GOOD_JSON = {
    "a whole surrogate pair": ('{"n": "\\ud83d\\ude00"}', {"n": "😀"}),
    "an escaped backslash": ('{"n": "\\\\ud83d"}', {"n": "\\ud83d"}),
    "4,000 digits": ('{"n": ' + "9" * 4000 + "}", {"n": int("9" * 4000)}),
    "the word NaN": ('{"n": "NaN"}', {"n": "NaN"}),
    "many lists side by side": ('{"n": [' + ", ".join(["[]"] * 500) + "]}", {"n": [[]] * 500}),
    "brackets in a text": ('{"n": "' + "[" * 500 + '"}', {"n": "[" * 500}),
    "U+2028": ('{"n": "a\u2028b"}', {"n": "a\u2028b"}),
    "a byte order mark": ('\ufeff{"n": 1}', {"n": 1}),
}
BAD_YAML = {
    "a key twice": ("a: 1\nb: {c: 2}\na: 3", "duplicate key 'a'", 4),
    "a key of a section twice": ("a: {b: 1, c: 2, b: 1}", "duplicate key 'b'", 2),
    "infinite under its key": ("optim:\n  learning_rate: .inf", "under learning_rate", 3),
    "nan": ("n: .nan", "not finite", 2),
    "inf": ("n: -.inf", "not finite", 2),
    "a float that overflows": ("n: 1.0e+999", "not finite", 2),
    "5,000 digits": ("n: " + "9" * 5000, "more than 4,300 digits", 2),
    "hexadecimal digits": ("n: 0x" + "f" * 5000, "more than 4,300 digits", 2),
    "lists in lists": ("n: " + "[" * 1000, "nested more than 100 levels", None),
    "half of a surrogate pair": ('n: "\\ud83d"', "surrogate", 2),
    "a date that is none": ("n: 2026-13-45", "month", 2),
    "a tag that does not fit": ("n: !!timestamp soon", "cannot be read", 2),
    "an object of Python": ("n: !!python/object:os.system x", "constructor", 2),
    "an alias of itself": ("n: &n [*n]", "nested more than 100 levels", None),
    "aliases of aliases": (BILLION, "more than 1,000,000 values", None),
    "a list as key": ("[a]: 1", "unhashable", 2),
    "a control character": ("n: \x00", "not allowed", 2),
    "a cut list": ("n: [1, 2", "expected", 2),
}


@pytest.mark.parametrize(("text", "reason"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_a_strict_reader_refuses_names_reason_file_and_line(
    text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(Malformed, match=reason) as caught:
        parse_json("\n\n" + text)
    assert caught.value.line in (3, 4)
    config, rows, listed = (tmp_path / name for name in ("config.json", "rows.jsonl", "list.json"))
    config.write_text("\n" + text)
    with pytest.raises(ConfigError) as error:
        read_json_object(config, error=ConfigError)
    assert "config.json is not valid JSON" in str(error.value)
    assert str(error.value.where).startswith(f"{config}:")
    if "\n" not in text and "} {" not in text:
        rows.write_text('{"n": 1}\n' + text + "\n")
        with pytest.raises(DataError) as error:
            list(read_objects(rows))
        assert error.value.where == f"{rows}:2"
        listed.write_text('[{"n": 1},\n' + text + "]")
        with pytest.raises(DataError) as error:
            list(read_objects(listed))
        assert error.value.where == f"{listed}:2"


@pytest.mark.parametrize(("text", "value"), GOOD_JSON.values(), ids=GOOD_JSON)
def test_what_merely_looks_like_it_is_read_and_written_again(
    text: str, value: object, tmp_path: Path
) -> None:
    assert parse_json(text) == parse_json(text.encode()) == value
    (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
    rows = [row for _, row in read_objects(tmp_path / "in.jsonl")]
    write_objects(tmp_path / "out.jsonl", rows)
    assert [row for _, row in read_objects(tmp_path / "out.jsonl")] == rows == [value]


@pytest.mark.parametrize(("text", "reason", "line"), BAD_YAML.values(), ids=BAD_YAML)
def test_yaml_that_python_stumbles_over_names_reason_file_and_line(
    text: str, reason: str, line: int | None, tmp_path: Path
) -> None:
    text = "# a comment\n" + text
    with pytest.raises(Malformed, match=reason) as caught:
        parse_yaml(text)
    assert caught.value.line == line
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml is not valid YAML") as error:
        read_yaml_mapping(tmp_path / "run.yaml")
    assert str(error.value.where) == f"{tmp_path / 'run.yaml'}" + (f":{line}" if line else "")


@pytest.mark.parametrize("content", ["", "[]", "1", "null", '"a"'])
@pytest.mark.parametrize("read", [read_json_object, read_yaml_mapping])
def test_a_file_of_another_kind_of_value_is_named(read, content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(UserError, match="file"):
        read(tmp_path / "file")
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '{"b": [{"a": {}, "c": 1, "a": "x"}]}'])
def test_a_json_key_that_stands_twice_is_refused_but_in_files_of_models(text: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="duplicate key 'a'"):
        parse_json(text)
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        list(read_objects(tmp_path / "rows.jsonl"))
    (tmp_path / "config.json").write_text(text)
    assert read_json_object(tmp_path / "config.json") == json.loads(text)


def test_merged_keys_of_yaml_may_be_written_over() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}"
    assert parse_yaml(text) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=r"not UTF-8 \(line 2, column 3\)"):
        parse_json(b"[\n1,\xff]")
    (tmp_path / "exam.json").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(DataError):
        read_evaluation(str(tmp_path / "exam.json"))


TEXTS = st.text(st.characters(exclude_categories=()))  # half surrogate pairs too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_read_as_it_was_written_or_holds_half_of_a_surrogate_pair(value: object) -> None:
    text = json.dumps(value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(Malformed, match="surrogate"):
            parse_json(text)
    else:
        assert parse_json(text) == parse_json(text.encode()) == value


def test_yaml_keys_may_stand_again_where_one_mapping_is_merged_into_another() -> None:
    text = "x: &x {k: 1}\ny: {z: &y {<<: *x, k: 2}}\nv: &v {m: 5}\nw: {<<: *y, k: 3, n: {<<: [*x, *v]}}\n"
    assert parse_yaml(text) == {
        "x": {"k": 1},
        "y": {"z": {"k": 2}},
        "v": {"m": 5},
        "w": {"k": 3, "n": {"k": 1, "m": 5}},
    }
