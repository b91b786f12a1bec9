"""Records are strict about what they know, keep what they do not, and are written whole or not at all."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import DataError, UserError
from datagen.files import write_text
from datagen.records import (
    Instruction,
    Prompt,
    Record,
    Response,
    SeedTask,
    Verdict,
    normal_input,
    read_objects,
    read_records,
    shorten,
    write_objects,
    write_records,
)

texts_of_models = st.text(max_size=8) | st.just("🤕")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts_of_models,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.dictionaries(st.text(min_size=1, max_size=8), json_values, max_size=4),
)
def test_a_record_comes_back_with_its_unknown_fields(
    instruction: str, output: str, more: dict[str, Any]
) -> None:
    known = {"id", "input", "type", "topic", "view", "difficulty", "source", "schema_version"}
    row = {key: value for key, value in more.items() if key not in known}
    row |= {"instruction": instruction, "output": output}
    record = Instruction.from_dict(row, where="x:1")
    assert {key: record.to_dict()[key] for key in row} == row
    assert Instruction.from_dict(record.to_dict(), where="x:1") == record


@given(st.lists(st.dictionaries(st.text(max_size=6), json_values, max_size=3), min_size=1, max_size=5))
def test_objects_come_back_from_a_file(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_objects(path, rows) == len(rows)
    assert [row for _, row in read_objects(path)] == rows


def test_line_separators_inside_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "a\u2028b\u2029c\x85d\x0be"}
    write_objects(path, [row, row])
    assert [where for where, _ in read_objects(path)] == [f"{path}:1", f"{path}:2"]


def test_a_list_is_read_with_the_line_of_each_object(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.json", '[\n {"instruction": "a"},\n {"instruction":\n "b"}\n]\n')
    assert [where for where, _ in read_objects(path)] == [f"{path}:2", f"{path}:3"]
    assert [seed.instruction for seed in read_records(path, SeedTask)] == ["a", "b"]


def test_long_lists_are_read_in_time_that_grows_with_their_length(tmp_path: Path) -> None:
    rows = [{"instruction": f"task {number}", "output": "x" * 400} for number in range(20_000)]
    path = write(tmp_path / "rows.json", json.dumps(rows, indent=1))
    start = time.perf_counter()
    places = [where for where, _ in read_objects(path)]
    assert time.perf_counter() - start < 5
    assert places[-1] == f"{path}:{2 + 4 * 19_999}"


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '\ufeff{"a": 1}\n\n  \n{"a": 2}\r\n')
    assert [(where, row["a"]) for where, row in read_objects(path)] == [(f"{path}:1", 1), (f"{path}:4", 2)]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "", "empty"),
        (" \n\n", "", "empty"),
        ('{"instruction": "a"}\n{"instruction": \n', ":2", "not valid JSON"),
        ('{"instruction": "a"}\n[1]\n', ":2", "must be a JSON object"),
        ('{"instruction": "a"}\n"text"\n', ":2", "must be a JSON object"),
        ('{"input": "a"}\n', ":1", "'instruction' is missing"),
        ('{"instruction": 1.5}\n', ":1", "'instruction' must be str, not float"),
        ('{"instruction": null}\n', ":1", "'instruction' must be str, not NoneType"),
        ('{"instruction": true}\n', ":1", "'instruction' must be str, not bool"),
        ('{"instruction": 5}\n', ":1", "'instruction' must be str, not int"),
        ('{"instruction": "a", "input": 7}\n', ":1", "'input' must be str, not int"),
        ('{"instruction": "a", "topic": 7}\n', ":1", "'topic' must be str, not int"),
        ('{"instruction": "a", "schema_version": 99}\n', ":1", "newer schema"),
        ('[\n{"instruction": "a"},\n{"instruction": "b"\n', ":", "not a valid JSON list"),
        ('[\n{"instruction": "a"},\n{"instruction": "b"}\n', ":", "list"),
        ('[{"instruction": "a"}] and more\n', ":1", "after the list"),
        ('[{"instruction": "a"} {"instruction": "b"}]\n', ":1", "not a valid JSON list"),
    ],
)
def test_broken_files_are_named_by_file_and_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = write(tmp_path / "rows.jsonl", text)
    with pytest.raises(DataError) as caught:
        read_records(path, SeedTask)
    assert what in str(caught.value)
    assert f"{path}{where}" in str(caught.value)


def test_missing_file_folder_and_other_encoding(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"instruction": "naïve"}'.encode("latin-1"))
    for path, what in [("none.jsonl", "does not exist"), ("", "folder"), ("latin.jsonl", "UTF-8")]:
        with pytest.raises(DataError, match=what):
            list(read_objects(tmp_path / path))


def test_all_problems_of_a_record_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        Instruction.from_dict({"instruction": [], "input": 2.5}, where="rows.jsonl:7")
    message = str(caught.value)
    assert all(
        part in message for part in ("'instruction' must be str", "'output' is missing", "'input' must be")
    )


@pytest.mark.parametrize("kind", [Instruction, Response])
def test_optional_texts_are_checked_too(kind: type) -> None:
    """A wrong type in a field that may be absent is an error, not a surprise three stages later."""
    row = {"id": "1", "instruction": "a", "output": "b", "response": "c", "model": ["x"], "type": ["x"]}
    with pytest.raises(DataError, match="must be str, not list"):
        kind.from_dict(row, where="x:1")


def test_null_in_an_optional_field_is_as_absent() -> None:
    record = Instruction.from_dict({"instruction": "a", "output": "b", "topic": None}, where="x:1")
    assert record.topic is None


def test_difficulty_and_id_may_be_numbers() -> None:
    assert SeedTask.from_dict({"instruction": "a", "difficulty": 3}, where="x:1").difficulty == "3"
    assert Prompt.from_dict({"id": 7, "instruction": "a"}, where="x:1").id == "7"
    assert (
        Instruction.from_dict({"instruction": "a", "output": "b", "difficulty": 3}, where="x:1").difficulty
        == "3"
    )


def test_known_fields_of_published_files_are_read(real_data: Path) -> None:
    assert len(read_records(real_data / "med_seed.json", SeedTask)) == 167
    assert len(read_records(real_data / "medquad_valid.jsonl", Instruction)) == 500
    verdicts = read_records(real_data / "verdicts_alpaca-llama-2-7b-chat.jsonl", Verdict)
    assert len(verdicts) == 1728
    assert all(verdict.raw for verdict in verdicts)


@pytest.mark.parametrize("text", ["<noinput>", " <NoInput> ", "< noinput >", "<noinput>.", ""])
def test_no_input_in_any_spelling(text: str) -> None:
    assert normal_input(text) == ""
    assert SeedTask("a", text).normal_input() == Prompt("1", "a", text).normal_input() == ""


@pytest.mark.parametrize("text", ["DNA", "NAFLD", "no input", "<noinput> but this", "NA"])
def test_texts_that_are_inputs(text: str) -> None:
    assert normal_input(text) == text


def test_failed_write_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", "old\n")

    def parts() -> Iterator[str]:
        yield "half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_text(path, parts())
    assert path.read_text(encoding="utf-8") == "old\n"
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_generator_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", "old\n")

    def rows() -> Any:
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_objects(path, rows())
    assert path.read_text(encoding="utf-8") == "old\n"


def test_written_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", "")
    write_records(tmp_path / "new" / "rows.jsonl", [SeedTask("a")])
    assert (tmp_path / "new" / "rows.jsonl").stat().st_mode == plain.stat().st_mode


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_objects(tmp_path / "rows.jsonl", [{"a": "naïve 腰痛"}])
    assert (tmp_path / "rows.jsonl").read_bytes() == '{"a": "naïve 腰痛"}\n'.encode()


def test_none_is_left_out() -> None:
    assert "id" not in Instruction("a", "b").to_dict()
    assert json.loads(json.dumps(SeedTask("a").to_dict()))["input"] == ""


def test_a_message_says_what_where_found_expected_and_remedy() -> None:
    message = str(DataError("it broke", where="f:3", found=0, expected="1", remedy="mend it"))
    assert message.split("\n") == [
        "it broke",
        "  where:    f:3",
        "  found:    0",
        "  expected: 1",
        "  remedy:   mend it",
    ]
    assert issubclass(DataError, UserError)


def test_shorten() -> None:
    assert shorten("a  b\nc") == "a b c"
    assert shorten("x" * 200, 10) == "x" * 9 + "…"


TURNS = {
    "messages": [{"role": "user", "content": "Hello"}],
    "conversations": [{"from": "human", "value": "Hello"}],
    "history": [["Hello", "Good day"]],
    "system": "You are a nurse.",
    "system_prompt": "You are a nurse.",
    "systemPrompt": "You are a nurse.",
    "chat_history": "User: Hello",
}


@pytest.mark.parametrize("kind", [Instruction, Prompt, Response])
@pytest.mark.parametrize("field", TURNS)
def test_turns_that_a_record_of_one_turn_would_lose_are_refused_by_name(
    kind: type[Record], field: str
) -> None:
    row = {"id": "1", "instruction": "Greet.", "output": "Hi", "response": "Hi"}
    with pytest.raises(DataError) as error:
        kind.from_dict({**row, field: TURNS[field]}, where="tasks.jsonl:3")
    assert error.value.where == "tasks.jsonl:3"
    assert field in str(error.value.found)
    assert "`instruction`" in str(error.value.expected)


@pytest.mark.parametrize("blank", ["", " ", None, [], {}, [["", ""]], [{"value": None}], False])
def test_blank_turns_lose_nothing(blank: object) -> None:
    row = {"instruction": "Greet.", "output": "Hi", "system": blank, "history": blank}
    assert Instruction.from_dict(row, where="tasks.jsonl:3").output == "Hi"


def test_a_conversation_without_an_instruction_is_told_which_format_is_wanted() -> None:
    with pytest.raises(DataError, match="only single-turn records are supported"):
        Instruction.from_dict({"messages": TURNS["messages"]}, where="tasks.jsonl:1")
