"""Both requests to the teacher: what they ask, that they are pure, and that a reply fits onto them."""

import re

import pytest

from datagen.parse import parse_tasks
from datagen.prompts import PROMPT_VERSION, answer_request_messages, render_task, task_request_messages
from datagen.records import SeedTask
from datagen.seeds import load_seeds


@pytest.fixture(scope="module")
def seeds() -> list[SeedTask]:
    return load_seeds()


def user(messages: tuple[dict[str, str], ...]) -> str:
    assert [message["role"] for message in messages] == ["system", "user"]
    return messages[1]["content"]


def test_task_prompt_carries_the_whole_method(seeds: list[SeedTask]) -> None:
    text = task_request_messages(seeds[:3], count=9)[0]["content"].lower()
    assert len(re.findall(r"(?m)^\d+\. ", text)) == 15
    for wanted in (
        "medic",
        "patient",
        "topic",
        "rewriting",
        "usmle-style",
        "single-hop",
        "multi-hop",
        "1 (easy) to 5",
        "questions",
        "<noinput>",
        "50 to 200 words",
        "never ask for it",
        "choices",
        "more than 50 words",
        "first person",
        "lengths",
        "type, topic, view, difficulty, instruction, input",
        "###",
    ):
        assert wanted in text, wanted


def test_each_example_is_an_earlier_turn_of_the_teacher(seeds: list[SeedTask]) -> None:
    messages = task_request_messages(seeds[:3], count=9)
    assert [message["role"] for message in messages] == ["system"] + 3 * ["user", "assistant"] + ["user"]
    assert messages[1]["content"] == "List of 12 tasks. Write medical task 1."
    assert messages[3]["content"] == "Write medical task 2."
    shown = [message["content"] for message in messages if message["role"] == "assistant"]
    assert shown == [render_task(seed, number) for number, seed in enumerate(seeds[:3], start=1)]
    assert parse_tasks("\n###\n".join(shown)) == seeds[:3]
    assert messages[-1]["content"] == "Write medical tasks 4 to 12 in the same form, with ### between them."


def test_one_task_is_asked_for_in_the_form_of_the_earlier_turns(seeds: list[SeedTask]) -> None:
    messages = task_request_messages(seeds[:2], count=1)
    assert messages[-1] == {"role": "user", "content": "Write medical task 3."}


def test_without_examples_the_user_only_asks() -> None:
    assert user(task_request_messages([], count=12)).startswith("Write medical tasks 1 to 12 ")


def test_a_reply_goes_on_where_the_prompt_stops(seeds: list[SeedTask]) -> None:
    """Whether the teacher repeats the open label or not, the same tasks are read."""
    block = render_task(seeds[5], 4)
    for reply in (block, block.removeprefix("4. "), block.removeprefix("4. Type:")):
        assert parse_tasks(reply, first_number=4) == [seeds[5]]


def test_braces_in_a_task_are_left_alone() -> None:
    task = SeedTask("Explain {x} and {count}.", "{0} {total}", "Chat", "{", "}", "1")
    assert "Explain {x} and {count}." in task_request_messages([task], count=2)[2]["content"]
    assert user(answer_request_messages(task)) == "Explain {x} and {count}.\n\n{0} {total}"


def test_prompts_are_pure(seeds: list[SeedTask]) -> None:
    assert task_request_messages(seeds[:2], count=3) == task_request_messages(tuple(seeds[:2]), count=3)
    assert answer_request_messages(seeds[0]) == answer_request_messages(seeds[0])


def test_task_prompt_stays_small(seeds: list[SeedTask]) -> None:
    """The offline teacher reads the rules with every request: keep them under 350 words."""
    assert len(task_request_messages([], count=2)[0]["content"].split()) < 350


def test_answer_prompt_asks_for_reasoning_and_the_closing_form() -> None:
    system = answer_request_messages(SeedTask("What is gout?"))[0]["content"]
    assert "step by step" in system
    assert "The answer is (" in system


@pytest.mark.parametrize("given", ["", "<noinput>", " <NoInput> "])
def test_answer_prompt_leaves_out_an_input_that_is_none(given: str) -> None:
    assert user(answer_request_messages(SeedTask("What is gout?", given))) == "What is gout?"


def test_the_prompts_carry_a_version() -> None:
    assert re.fullmatch(r"\d{4}-\d{2}\.\d+", PROMPT_VERSION)
