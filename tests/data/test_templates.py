"""Prompts: the Alpaca wording, one-pass substitution, chat messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.prompts import alpaca_prompt, chat_messages

# As the Alpaca recipe publishes it; models answer to these very characters.
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def test_the_published_wording() -> None:
    given_both = {"instruction": "Define the term.", "input": "anaemia"}
    assert alpaca_prompt(**given_both) == WITH_INPUT.format(**given_both)
    assert alpaca_prompt("Define anaemia.") == WITHOUT_INPUT.format(instruction="Define anaemia.")


@pytest.mark.parametrize("marker", ["", "  ", "<noinput>", "<NoInput>", " <no input>. "])
def test_no_input_has_one_form(marker: str) -> None:
    assert alpaca_prompt("Define anaemia.", marker) == alpaca_prompt("Define anaemia.")
    assert chat_messages("Define anaemia.", marker) == [{"role": "user", "content": "Define anaemia."}]


def test_an_input_that_mentions_dna_is_an_input() -> None:
    assert "### Input:\nDNA of a NAFLD patient\n" in alpaca_prompt("Explain.", "DNA of a NAFLD patient")


@given(instruction=st.text(), input=st.text(min_size=1).map(lambda text: f"x{text}x"))
def test_values_reach_the_prompt_unchanged(instruction: str, input: str) -> None:
    frame = [alpaca_prompt("\0", "\1").split(sign)[part] for sign, part in (("\0", 0), ("\1", 1))]
    prompt = alpaca_prompt(instruction, input)
    assert prompt == f"{frame[0]}{instruction}\n\n### Input:\n{input}{frame[1]}"


def test_placeholders_in_values_are_text() -> None:
    prompt = alpaca_prompt("Fill {input} and {instruction} in.", "### Response: {instruction} \\1 %s")
    assert "Fill {input} and {instruction} in." in prompt
    assert "### Response: {instruction} \\1 %s" in prompt


def test_chat_messages_carry_input_and_answer() -> None:
    assert chat_messages("Define the term.", "anaemia", "Too little haemoglobin.") == [
        {"role": "user", "content": "Define the term.\n\nanaemia"},
        {"role": "assistant", "content": "Too little haemoglobin."},
    ]
