import errno
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.batch.files import (
    BatchLimits,
    Line,
    Question,
    Replies,
    as_question,
    input_line,
    next_part,
    scratch_file,
)
from datagen.errors import ConfigError, DataError


def line(custom: object, status: int = 200) -> bytes:
    row = {"custom_id": custom, "response": {"status_code": status, "body": {"x": 1}}, "error": None}
    return json.dumps(row).encode() + b"\n"


def test_a_line_is_one_line_whatever_the_words() -> None:
    body = {"messages": [{"role": "user", "content": "a\u2028b\x85c\nd\r\né \N{PILL}"}]}
    text = input_line("answers", "t000001-00", body)
    assert len(text.decode().splitlines()) == 1
    assert json.loads(text)["body"] == body
    assert json.loads(text)["custom_id"] == "answers-t000001-00"
    assert as_question("answers", "t000001-00", body).size == len(text)


@given(
    st.lists(st.integers(1, 400), max_size=40),
    st.integers(1, 12),
    st.integers(1000, 3000),
    st.integers(0, 1000),
)
def test_parts_keep_every_limit_and_lose_nothing(
    sizes: list[int], most: int, most_bytes: int, room: int
) -> None:
    limits = BatchLimits(max_requests=most, max_megabytes=most_bytes / 1e6)
    left = [Question(str(number), {}, size) for number, size in enumerate(sizes)]
    taken = []
    while left:
        part = next_part(left, limits, room)
        assert 1 <= len(part) <= most
        assert sum(each.size for each in part) <= most_bytes
        assert len(part) == 1 or sum(each.prompt_tokens for each in part) <= room
        taken += part
        left = left[len(part) :]
    assert [each.id for each in taken] == [str(number) for number in range(len(sizes))]


def test_a_request_larger_than_a_file_is_named() -> None:
    with pytest.raises(ConfigError, match="larger than a batch's file") as caught:
        next_part([Question("t1", {}, 2000)], BatchLimits(max_megabytes=0.001), 1e9)
    assert "t1" in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"max_requests": 0}, {"max_megabytes": -1}, {"poll_s": 0}, {"surplus": -0.1}]
)
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"batch.{next(iter(wrong))}"):
        BatchLimits(**wrong)  # type: ignore[arg-type]


def test_replies_are_found_by_id_and_useless_lines_are_told() -> None:
    replies = Replies("tasks", ["0", "1", "2"])
    file = io.BytesIO(
        line("tasks-2")
        + b"\n"
        + b"<html>bad gateway</html>\n"
        + line("tasks-7")
        + line("tasks-0", 500)
        + line("tasks-2")
        + b"[1, 2]\n"
        + line(5)
        + b'{"custom_id": "tasks-1", "response": {"status_code": 200, "bo'
    )
    found = list(replies.read(file, "output"))
    assert found == [Line("2", 200, {"x": 1}, None), Line("0", 500, {"x": 1}, None)]
    assert replies.seen == {"0", "2"}
    assert [problem.split(":")[0] for problem in replies.problems] == [
        f"output, line {number}" for number in (3, 4, 6, 7, 8, 9)
    ]
    told = "\n".join(replies.problems)
    for words in ("'tasks-7' was not asked for", "'tasks-2' for the second time", "<html>", "'5' was not"):
        assert words in told


@pytest.mark.parametrize(
    "row",
    [
        {"custom_id": "tasks-0", "response": None, "error": "gone"},
        {"custom_id": "tasks-0", "response": {"status_code": "200"}, "error": None},
        {"custom_id": "tasks-0"},
    ],
)
def test_odd_rows_are_a_reply_without_a_status(row: dict[str, object]) -> None:
    (found,) = Replies("tasks", ["0"]).read(io.BytesIO(json.dumps(row).encode()), "output")
    assert (found.id, found.status) == ("0", 0)


def test_a_body_in_quotation_marks_is_read_as_what_it_says() -> None:
    row = {"custom_id": "tasks-0", "response": {"status_code": 200, "body": json.dumps({"choices": []})}}
    assert list(Replies("tasks", ["0"]).read(io.BytesIO(json.dumps(row).encode()), "output")) == [
        Line("0", 200, {"choices": []}, None)
    ]


def test_a_response_that_is_no_object_is_told() -> None:
    replies = Replies("tasks", ["0"])
    assert not list(replies.read(io.BytesIO(b'{"custom_id": "tasks-0", "response": [1]}\n'), "output"))
    assert len(replies.problems) == 1


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with scratch_file(tmp_path) as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="cannot be written") as caught:
        fill()
    assert "free some disk space" in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="cannot be written"), scratch_file(tmp_path / "missing"):
        pass
