"""The parser finds every task in messy replies, drops nothing silently and never nests one task in another."""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.parse import FIELDS, Rejected, parse_tasks
from datagen.prompts import render_task
from datagen.records import SeedTask
from datagen.replies.structures import mend
from datagen.seeds import load_seeds

CORPUS = yaml.safe_load((Path(__file__).parent / "messy_replies.yaml").read_text(encoding="utf-8"))


def read(case: dict[str, Any]) -> list[SeedTask | Rejected]:
    options = {key: case[key] for key in ("first_number", "expected", "finish_reason") if key in case}
    return parse_tasks(case["reply"], **options)


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_corpus(case: dict[str, Any]) -> None:
    results = read(case)
    found = [[getattr(r, field) for field in columns()] for r in results if isinstance(r, SeedTask)]
    if "missed" in case:
        assert found != case["tasks"], "no longer missed: say so in the corpus"
        return
    assert found == case.get("tasks", [])
    assert [r.reason for r in results if isinstance(r, Rejected)] == case.get("rejected", [])


def columns() -> tuple[str, ...]:
    return ("type", "topic", "view", "difficulty", "instruction", "input")


def test_corpus_is_recovered_whole() -> None:
    """Count tasks over the corpus, as the product's promise does: at least 99% of them."""
    wanted = found = 0
    for case in CORPUS:
        tasks = [[getattr(r, field) for field in columns()] for r in read(case) if isinstance(r, SeedTask)]
        wanted += len(case.get("tasks", []))
        found += sum(task in tasks for task in case.get("tasks", []))
    assert len(CORPUS) >= 200
    assert found >= 0.99 * wanted


def test_what_the_prompt_shows_is_read_back() -> None:
    """The shipped seeds, rendered as the prompt renders them, come back unchanged."""
    seeds = load_seeds()
    reply = "\n###\n".join(render_task(seed, number) for number, seed in enumerate(seeds, start=4))
    assert parse_tasks(reply, first_number=4) == seeds


def test_real_seeds_are_read_back_without_separators(real_data: Path) -> None:
    seeds = load_seeds(real_data / "med_seed.json")
    reply = "\n".join(render_task(seed, number) for number, seed in enumerate(seeds, start=1))
    read_back = [task for task in parse_tasks(reply) if isinstance(task, SeedTask)]
    assert [task.instruction for task in read_back] == [seed.instruction.strip() for seed in seeds]


# --- properties -------------------------------------------------------------------------------------------------

LABELS = {
    "plain": "{}: ",
    "bold": "**{}:** ",
    "bold outside": "**{}**: ",
    "bullet": "- {}: ",
    "wide": "{}：",
    "upper": "{}: ",
    "tag": "<b>{}:</b> ",
    "code": "`{}`: ",
    "arrow": "{} -> ",
    "remark": "{} (as asked): ",
    "heading": "### {}\n",
    "next line": "{}:\n",
    "picture": "📌 {}: ",
}
SEPARATORS = ["\n###\n", "\n\n", "\n", "\n\n###\n\n", "\n---\n", " ###\n", "\n#####\n"]
PLAIN_SEPARATORS = SEPARATORS[:1] + SEPARATORS[4:]
NUMBERS = ["{}. ", "{}) ", "({}) ", "Task {}: ", "**{}.** ", "{}.\n", ""]
word = st.sampled_from(
    [
        "pain",
        "acute",
        "DNA",
        "NAFLD",
        "13.2",
        "Hb",
        "g/dL",
        "naïve",
        "腰痛",
        "—",
        "(mild)",
        "5%",
        "β₂",
        "A.",
        "B)",
        "I",
    ]
)
sentence = st.lists(word, min_size=1, max_size=7).map(lambda words: "Has " + " ".join(words) + ".")
short = st.sampled_from(["Chat", "Open Q&A", "Gout", "Student (Medicine)", "USMLE-style Q&A", "Sjögren’s"])


@st.composite
def replies(draw: st.DrawFn) -> tuple[str, list[dict[str, str]]]:
    """A reply made of tasks with some fields missing, in one style of labels, numbers and separators."""
    label, number = draw(st.sampled_from(sorted(LABELS))), draw(st.sampled_from(NUMBERS))
    separator = draw(st.sampled_from(SEPARATORS if number else PLAIN_SEPARATORS))
    start = draw(st.integers(1, 20))
    tasks, blocks = [], []
    for place in range(draw(st.integers(1, 5))):
        task = {
            "type": draw(short),
            "topic": draw(short),
            "view": draw(short),
            "difficulty": draw(st.sampled_from("12345")),
            "instruction": draw(sentence),
            "input": draw(
                st.just("<noinput>") | sentence | st.lists(sentence, max_size=3, min_size=2).map("\n".join)
            ),
        }
        missing = draw(st.sets(st.sampled_from(["topic", "view", "difficulty"]), max_size=2))
        order = [field for field in FIELDS if field not in missing]
        text = "\n".join(
            LABELS[label].format(field.upper() if label == "upper" else field.capitalize()) + task[field]
            for field in order
        )
        blocks.append(number.format(start + place) + text)
        tasks.append({field: "" if field in missing else value for field, value in task.items()})
    return separator.join(blocks), tasks


pieces = st.sampled_from(
    [
        "Type:", "**Topic:**", "View :", "Difficulty: 3", "Instruction:", "Input:", "Output:", "###",
        "\n", "\n\n", "---", "4.", "5)", "Task 6", "<noinput>", "- ", "**", "```", ": ",
        "Instruction: the following note", "Input", "# "
    ]
)  # fmt: skip
marked = st.integers(0, 999_999).map(lambda number: f"w{number:06d}x")


@settings(max_examples=150, deadline=None)
@given(replies())
def test_tasks_come_back_whatever_the_style(made: tuple[str, list[dict[str, str]]]) -> None:
    reply, tasks = made
    assert [dataclasses.asdict(r) for r in parse_tasks(reply)] == [{**task, "extra": {}} for task in tasks]


@settings(max_examples=100, deadline=None)
@given(
    replies(),
    st.sampled_from(["\r\n", "\r", "\u2028"]),
    st.sampled_from(["", "Sure!\n\n", "\ufeff", "```\n"]),
)
def test_neither_line_ends_nor_words_before_change_a_task(
    made: tuple[str, list[dict[str, str]]], line_end: str, before: str
) -> None:
    reply, tasks = made
    results = parse_tasks(before + reply.replace("\n", line_end))
    found = [dataclasses.asdict(r) for r in results if isinstance(r, SeedTask)]
    assert found == [{**task, "extra": {}} for task in tasks]
    assert [r.text for r in results if isinstance(r, Rejected)] == (["Sure!"] if "Sure" in before else [])


values = st.text(min_size=1, max_size=40).map(lambda text: f"Say {text.strip()}.".replace("\x00", ""))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS[:3], short)), min_size=1, max_size=4),
    st.data(),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_tasks_written_as_json_come_back(
    headers: list[dict[str, str]], data: st.DataObject, indent: int | None, as_list: bool
) -> None:
    """Any characters in an instruction or input, quotation marks and braces included."""
    tasks = [
        {**header, "difficulty": "3", "instruction": data.draw(sentence), "input": data.draw(values)}
        for header in headers
    ]
    written = [json.dumps(task, indent=indent) for task in tasks]
    reply = "[" + ",\n".join(written) + "]" if as_list else "\n".join(written)
    found = [dataclasses.asdict(r) for r in parse_tasks(reply) if isinstance(r, SeedTask)]
    assert [task["instruction"] for task in found] == [task["instruction"] for task in tasks]
    assert [task["type"] for task in found] == [task["type"] for task in tasks]
    plain = [
        task["input"]
        for task in tasks
        if not set("*_`#\\") & set(task["input"]) and "  " not in task["input"]
    ]
    assert {text for text in plain if text == " ".join(text.split())} <= {task["input"] for task in found}


@settings(max_examples=100, deadline=None)
@given(replies().filter(lambda made: all("|" not in str(task) for task in made[1])), st.booleans())
def test_tasks_written_as_a_table_come_back(made: tuple[str, list[dict[str, str]]], bars: bool) -> None:
    _, tasks = made
    rows = [[field.capitalize() for field in FIELDS], ["---"] * 6]
    rows += [[task[field].replace("\n", "<br>") for field in FIELDS] for task in tasks]
    reply = "\n".join(("| {} |" if bars else "{}").format(" | ".join(row)) for row in rows)
    assert [dataclasses.asdict(r) for r in parse_tasks(reply)] == [{**task, "extra": {}} for task in tasks]


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces | marked, max_size=40).map(" ".join) | st.text(max_size=200))
def test_what_is_kept_or_rejected_stands_in_the_reply(reply: str) -> None:
    plain = " ".join(mend(reply).split())
    for result in parse_tasks(reply):
        for text in (result.instruction, result.input) if isinstance(result, SeedTask) else (result.text,):
            assert text == "<noinput>" or "`" in reply or " ".join(text.split()) in plain


@pytest.mark.parametrize("rest", ["#", "##", "###", "### ", "### V"])
def test_a_label_that_was_cut_closes_no_task(rest: str) -> None:
    task = (
        "### Type\nChat\n### Topic\nPain\n### View\nPatient\n### Difficulty\n1\n### Instruction\nAdvise me.\n"
    )
    reply = f"1. {task}### Input\nI have pain.\n\n2. ### Type\nChat\n### Topic\nPain\n{rest}"
    first, second = parse_tasks(reply, finish_reason="length")
    assert isinstance(first, SeedTask)
    assert first.input == "I have pain."
    assert isinstance(second, Rejected)


@settings(max_examples=100, deadline=None)
@given(replies(), st.data())
def test_a_cut_reply_loses_at_most_its_last_task(
    made: tuple[str, list[dict[str, str]]], data: st.DataObject
) -> None:
    reply, tasks = made
    at = data.draw(st.integers(0, len(reply)))
    results = parse_tasks(reply[:at], finish_reason="length")
    found = [r for r in results if isinstance(r, SeedTask)]
    assert [task.instruction for task in found] == [task["instruction"] for task in tasks[: len(found)]]
    assert all(
        (task.input, task.type, task.topic) == (made["input"], made["type"], made["topic"])
        for task, made in zip(found, tasks, strict=False)
    )
    whole = sum(reply.find(task["input"], 0, at) >= 0 for task in tasks[:-1])
    assert len(found) <= whole + 1


@settings(max_examples=250, deadline=None)
@given(
    st.lists(pieces | marked, max_size=40).map(" ".join),
    st.sampled_from(["stop", "length"]),
    st.none() | st.integers(0, 3),
)
def test_every_word_ends_in_one_task_or_rejection(
    reply: str, finish_reason: str, expected: int | None
) -> None:
    results = parse_tasks(reply, finish_reason=finish_reason, expected=expected)
    texts = [
        " ".join(getattr(r, field) for field in FIELDS) if isinstance(r, SeedTask) else r.text
        for r in results
    ]
    words = re.findall(r"w\d{6}x", reply)
    assert sorted(words) == sorted(re.findall(r"w\d{6}x", " ".join(texts)))


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces | marked, max_size=40).map(" ".join) | st.text(max_size=200))
def test_no_task_holds_another(reply: str) -> None:
    for task in parse_tasks(reply):
        if isinstance(task, SeedTask):
            assert task.instruction.strip()
            inner = [r for r in parse_tasks(f"{task.instruction}\n{task.input}") if isinstance(r, SeedTask)]
            assert not any(found.type and found.input != "<noinput>" for found in inner)


RUNS = (
    "\n", "#", "-", "* ", "1", "|", "-|", " ", "\\n", "{", '{"a":', '{"input":"', "<", "<|x|>", "'", "**", "# ", "<b>",
    "<a b='", "> Type: ", "#### 5\n", "a: b\n", "input: |\n  x\n",
)  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_long_runs_take_no_long_time(run: str) -> None:
    reply = run * (16_000 // len(run))
    start = time.process_time()
    parse_tasks(reply)
    parse_tasks("Input: " + reply + "\nInstruction: " + reply)
    assert time.process_time() - start < 2


# --- lines that number or head a task -----------------------------------------------------------------------------


def task_lines(topic: str, given: str) -> str:
    return f"Type: Chat\nTopic: {topic}\nView: Nurse\nDifficulty: 2\nInstruction: Explain it.\nInput: {given}"


HEADING_LINES = [
    "#### {}",
    "{}/12",
    "({})",
    "{})",
    "[{}]",
    "**{}.**",
    "{}\ufe0f\u20e3",
    "== {} ==",
    "*** {} ***",
    "--- Task {} ---",
    "### 🩺 Task {}",
    "### {}: Warfarin and diet",
    "**Tarea {}: Gota**",
    "Aufgabe {}",
    "Tâche n° {} :",
    "Задача №{}",
    "任务 {}",
    "第{}题",
    "[[tasks]]",
    "## Ordinary days",
    "{0}\n--------\nCase {0} of 12",
]


@pytest.mark.parametrize("line", HEADING_LINES)
@pytest.mark.parametrize("led", [True, False])
def test_a_line_that_heads_a_task_belongs_to_no_value(line: str, led: bool) -> None:
    inputs = ["Pain for 7 days.", "1. Warfarin\n2. Amiodarone", "History:\n- none\nBP 120/80"]
    blocks = [
        (f"{line.format(number)}\n" if led or number > 4 else "") + task_lines("Gout", given)
        for number, given in enumerate(inputs, start=4)
    ]
    if not led and line == "[[tasks]]":
        blocks = [f"{block}\n" for block in blocks]
    results = parse_tasks("\n\n".join(blocks), first_number=4)
    assert [task.input for task in results if isinstance(task, SeedTask)] == inputs
    assert {r.reason for r in results if isinstance(r, Rejected)} <= {"prose", "unlabelled"}


@pytest.mark.parametrize(
    "last",
    [
        "BP 120/80",
        "5/12 joints swollen",
        "7",
        "Day 5",
        "Vitamin B",
        "D. None of the above",
        "3. Atorvastatin",
        "Labs:",
        "Hb 9.1",
        "**Urgent**",
        "[signature]",
        "(5 mg)",
        "## second sample: Na 138",
        "Hepatitis E",
    ],
)
@pytest.mark.parametrize("between", ["\n", "\n\n", "\n###\n"])
def test_the_last_line_of_an_input_stays_in_it(last: str, between: str) -> None:
    inputs = ["A man of 60.", f"A woman of 40.\n{last}", "A child of 3."]
    reply = between.join(task_lines("Gout", given) for given in inputs)
    found = [task.input for task in parse_tasks(reply, first_number=3) if isinstance(task, SeedTask)]
    assert found == inputs


def test_lists_that_end_two_inputs_are_no_numbers_of_tasks() -> None:
    inputs = ["1. Warfarin\n2. Amiodarone", "1. Aspirin\n2. Clopidogrel\n3. Atorvastatin", "Rest.\n4. Iron"]
    reply = "\n\n".join(task_lines("Gout", given) for given in inputs)
    assert [task.input for task in parse_tasks(reply) if isinstance(task, SeedTask)] == inputs


@pytest.mark.parametrize("text", ["Output: 900 mL", "Output: about rest"])
def test_a_volume_is_no_answer(text: str) -> None:
    task, *rest = parse_tasks(task_lines("Gout", f"Fluids in: 1 L\n{text}"))
    assert isinstance(task, SeedTask)
    assert (task.input.endswith("900 mL"), bool(rest)) == ("900" in text, "rest" in text)


@pytest.mark.parametrize("written", ["无", "<keine Eingabe>", "なし", "sans entrée", "Ninguna"])
def test_no_input_is_said_in_other_languages(written: str) -> None:
    reply = f"1. Type: Chat\nTopic: Gout\nInstruction: Greet a patient.\nInput: {written}\n###"
    assert [task.input for task in parse_tasks(reply) if isinstance(task, SeedTask)] == ["<noinput>"]


@pytest.mark.parametrize(
    "written", ["无发热，咳嗽三天", "Keine Allergien bekannt.", "sin", '"It hurts," she said.']
)
def test_an_instruction_loses_its_quotation_marks_and_an_input_stays(written: str) -> None:
    reply = f'1. Type: Chat\nTopic: Gout\nInstruction: "Greet a patient."\nInput: {written}\n###'
    found = [(task.instruction, task.input) for task in parse_tasks(reply) if isinstance(task, SeedTask)]
    assert found == [("Greet a patient.", written)]


@pytest.mark.parametrize("unit", [" ", "\n", "[ ", "|", "4. ", "Type: "])
def test_a_reply_without_tasks_takes_time_in_proportion(unit: str) -> None:
    start = time.process_time()
    parse_tasks(unit * (40_000 // len(unit)) + "x")
    assert time.process_time() - start < 2
