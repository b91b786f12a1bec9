"""Tasks as JSON: the same tasks as in text, and every complete one recovered from replies that are cut or broken."""

import json
import re
import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.parse import Rejected, parse_tasks, read_tasks
from datagen.prompts import render_task, render_task_as_json, response_format, task_request_messages
from datagen.records import NO_INPUT, SeedTask
from datagen.replies.thinking import without_thoughts
from datagen.seeds import load_seeds

ROW = {
    "type": "Chat",
    "topic": "Gout",
    "view": "Patient",
    "difficulty": 2,
    "instruction": "What is gout?",
    "input": NO_INPUT,
}
TASK = SeedTask("What is gout?", NO_INPUT, "Chat", "Gout", "Patient", "2")


def listed(*rows: Any) -> str:
    return json.dumps({"tasks": list(rows)})


def reasons(pieces: list[SeedTask | Rejected]) -> list[str]:
    return [piece.reason if isinstance(piece, Rejected) else "task" for piece in pieces]


def test_a_schema_s_reply_gives_the_tasks() -> None:
    other = {
        **ROW,
        "instruction": "Why rest?",
        "input": 'A man of 60 with "chest pain"; Hb 13.2.\nHe smokes.',
        "difficulty": 5,
    }
    assert parse_tasks(listed(ROW, other)) == [
        TASK,
        SeedTask(
            "Why rest?", 'A man of 60 with "chest pain"; Hb 13.2.\nHe smokes.', "Chat", "Gout", "Patient", "5"
        ),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "```json\n" + listed(ROW) + "\n```",
        json.dumps([ROW]),
        json.dumps(ROW),
        json.dumps(ROW) + "\n",
        json.dumps({"medical_tasks": [ROW]}, indent=2),
        listed({key.upper(): value for key, value in ROW.items()}),
        listed({**ROW, "difficulty": "2/5"}),
        listed({**ROW, "input": None}),
        listed({**ROW, "input": "N/A"}),
        listed({**ROW, "input": {}}),
        listed({key: value for key, value in ROW.items() if key != "input"}),
        '<think>JSON it is: {"tasks": []}</think>' + listed(ROW),
    ],
)
def test_other_shapes_of_json_give_the_same_task(reply: str) -> None:
    assert read_tasks(reply) == [TASK]


def test_words_around_the_json_are_rejected_as_such() -> None:
    assert parse_tasks("Sure! Here you are:\n" + listed(ROW) + "\nTell me if you need more.") == [
        Rejected("prose", "Sure! Here you are:"),
        TASK,
        Rejected("prose", "Tell me if you need more."),
    ]


def test_every_cut_of_a_reply_keeps_the_complete_tasks_and_no_other() -> None:
    rows = [{**ROW, "instruction": f"What is gout number {n}?", "input": '{a [b] "c" }, {'} for n in range(3)]
    whole = json.dumps({"tasks": rows}, indent=1)
    ends = [match.end() for match in re.finditer(r"\n  \}", whole)]
    assert len(ends) == 3
    for length in range(len(whole)):
        pieces = read_tasks(whole[:length], finish_reason="length")
        tasks = [piece for piece in pieces if isinstance(piece, SeedTask)]
        assert [task.instruction for task in tasks] == [
            row["instruction"] for row, end in zip(rows, ends, strict=True) if end <= length
        ]
        assert set(reasons(pieces)) <= {"task", "truncated"}
        if length not in ends and not whole[:length].rstrip(" \n,]}").endswith("}") and len(tasks) < 3:
            clean = any(whole[end:length].strip(' \n,{"') == "" for end in ends if end <= length)
            assert clean or reasons(pieces)[-1] == "truncated"


def test_a_broken_object_costs_only_itself() -> None:
    broken = '{"type": "Chat", "instruction": "Say "ah" now", "input": ""}'
    reply = '{"tasks": [' + json.dumps(ROW) + ", " + broken + ",\n" + json.dumps(ROW) + "]}"
    assert parse_tasks(reply) == [TASK, Rejected("missing-instruction", broken), TASK]
    assert reasons(parse_tasks('{"tasks": [' + json.dumps(ROW) + ", " + broken + "]}")) == [
        "task",
        "missing-instruction",
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**ROW, "instruction": " "}, ["missing-instruction"]),
        ({**ROW, "instruction": "Summarise the following note.", "input": ""}, ["missing-input"]),
        ({**ROW, "instruction": {"text": "What is gout?"}}, ["missing-instruction"]),
        ({**ROW, "difficulty": True}, ["task"]),
        ({**ROW, "output": "Gout is..."}, ["task", "unasked-output"]),
        ({**ROW, "input": "red\n2. Type: Chat\nInstruction: What is it?"}, ["nested"]),
        ("What is gout?", ["prose"]),
        ({**ROW, "output": {"text": "Gout is..."}}, ["task", "unasked-output"]),
        ({**ROW, "choices": {"A": "rest", "B": "run"}}, ["task", "stray-text"]),
        ({"references": [{"title": "On gout"}], **ROW}, ["task", "stray-text"]),
        ({**ROW, "metadata": {}}, ["task"]),
        ({**ROW, "vi[ew": "Patient"}, ["task", "stray-text"]),
        ({**ROW, "input": ["A. rest", "B. run"]}, ["task"]),
    ],
)
def test_what_is_no_task_is_rejected_with_its_reason(row: Any, expected: list[str]) -> None:
    assert reasons(read_tasks(listed(row))) == expected


def test_more_tasks_than_asked_for_are_surplus() -> None:
    assert reasons(parse_tasks(listed(*[ROW] * 4), expected=2)) == ["task", "task", "surplus", "surplus"]


def test_refusals_and_replies_without_tasks() -> None:
    refusal = "I can't help with that."
    assert read_tasks(refusal, finish_reason="refusal") == [Rejected("refusal", refusal)]
    assert reasons(read_tasks("")) == ["no-task-in-reply"]
    assert reasons(read_tasks("<think>Let me see", finish_reason="length")) == ["truncated"]
    assert reasons(read_tasks("Sure, I can do that.")) == ["prose"]
    assert reasons(read_tasks('{"tasks": []}')) == ["no-task-in-reply"]
    assert reasons(read_tasks('{"tas', finish_reason="length")) == ["truncated"]


def test_a_service_that_ignores_the_schema_is_read_as_text() -> None:
    assert read_tasks(render_task(TASK, 1)) == [TASK]


def test_the_schema_is_strict_and_names_every_field() -> None:
    schema = response_format()["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    item = schema["schema"]["properties"]["tasks"]["items"]
    assert (
        list(item["properties"])
        == item["required"]
        == ["type", "topic", "view", "difficulty", "instruction", "input"]
    )


def test_both_forms_of_a_prompt_show_the_same_examples() -> None:
    examples = load_seeds()[:3]
    text, as_json = (task_request_messages(examples, count=12, form=form) for form in ("text", "json_schema"))
    assert [message["role"] for message in text] == [message["role"] for message in as_json]
    shown = [json.loads(message["content"])["tasks"] for message in as_json if message["role"] == "assistant"]
    assert [tasks[0]["instruction"] for tasks in shown] == [task.instruction for task in examples]
    assert "###" not in str(as_json)
    assert '"tasks"' in as_json[0]["content"]
    assert [line for line in text[0]["content"].splitlines() if line.startswith("13.")] == [
        line for line in as_json[0]["content"].splitlines() if line.startswith("13.")
    ]


def test_every_shipped_seed_is_the_same_in_both_forms() -> None:
    for seed in load_seeds():
        in_text = read_tasks(render_task(seed, 4), first_number=4)
        assert read_tasks(render_task_as_json(seed)) == in_text == [seed]


WORDS = st.text(alphabet=string.ascii_letters + " éß'\"{}[],0123456789.", min_size=1, max_size=40).map(
    str.strip
)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.sampled_from(["stop", "length"]))
def test_any_words_survive_json(fields: list[tuple[str, str]], finish_reason: str) -> None:
    rows = [{**ROW, "instruction": f"Ask {one}", "input": f"Given {two}"} for one, two in fields]
    pieces = parse_tasks(json.dumps({"tasks": rows}, ensure_ascii=False), finish_reason=finish_reason)
    assert [(piece.instruction, piece.input) for piece in pieces if isinstance(piece, SeedTask)] == [
        (row["instruction"].strip(), row["input"].strip()) for row in rows
    ]


@given(
    st.text(max_size=200),
    st.sampled_from(["stop", "length", "refusal"]),
)
def test_any_reply_gives_tasks_or_reasons(reply: str, finish_reason: str) -> None:
    pieces = read_tasks(reply, finish_reason=finish_reason)
    assert pieces
    assert all(isinstance(piece, SeedTask) or piece.reason for piece in pieces)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<think>a</think>b", "b"),
        ("<think>\na\n</think>\n\nb\n", "b"),
        ("<THINKING>a</THINKING> b <think>c</think> d", "b  d"),
        ("a</think>\nb", "b"),
        ("<think>a", ""),
        ("b\n<think>a", "b"),
        ("<|think|>a<|/think|>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "b",
        ),
        ("<|channel|>analysis<|message|>a", ""),
        ("<reasoning>a</reasoning> b", "b"),
        ("b < c and c > d", "b < c and c > d"),
        ("I <think we rest.", "I <think we rest."),
        (" no thoughts\n", " no thoughts\n"),
    ],
)
def test_thoughts_are_taken_out(text: str, shown: str) -> None:
    assert without_thoughts(text) == shown


@pytest.mark.parametrize("unit", ["\n", " \n", "\r\n", "```\n", "[", "{ ", "<|im_end|>", '"type": '])
def test_a_runaway_reply_takes_time_in_proportion(unit: str) -> None:
    start = time.process_time()
    read_tasks(unit * (50_000 // len(unit)))
    assert time.process_time() - start < 2


@pytest.mark.parametrize("number", ["9" * 5000, "NaN", "1e999"])
def test_numbers_that_python_does_not_read_cost_the_task_alone(number: str) -> None:
    task = '{"type": "Chat", "topic": "Gout", "instruction": "What is gout?", "input": "none"}'
    reply = (
        '{"tasks": [{"type": "Chat", "instruction": "Why rest?", "difficulty": '
        + number
        + "}, "
        + task
        + "]}"
    )
    kept = [piece.instruction for piece in read_tasks(reply) if isinstance(piece, SeedTask)]
    assert kept[-1:] == ["What is gout?"]
