"""From a record to token ids: what is supervised, and that generation sees the same prompt."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacare_jax.data.examples import encode_example, encode_examples, encode_prompt
from alpacare_jax.errors import DataError
from alpacare_jax.prompts import Template, alpaca_prompt
from alpacare_jax.tokenizer import Tokenizer
from datagen.records import Instruction

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] | trim }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
FILLED = TEXT.filter(str.strip)


def test_the_worked_example_of_the_docstring(letters: Tokenizer) -> None:
    example = encode_example(Instruction(id="a", instruction="Say", output="Hi"), letters)
    assert example.id == "a"
    assert example.tokens[0] == 1
    assert example.tokens[-6:].tolist() == [ord("s"), ord("e"), ord(":"), ord("H"), ord("i"), 2]
    assert example.loss_mask[-6:].tolist() == [0, 0, 0, 1, 1, 1]
    assert example.loss_mask.sum() == 3
    assert (example.tokens.dtype, example.loss_mask.dtype) == ("int32", "int32")


def test_alpaca_with_a_sentencepiece_model(llama: Tokenizer) -> None:
    record = Instruction(instruction="Name an ACE inhibitor.", input="<noinput>", output="Lisinopril.")
    example = encode_example(record, llama)
    supervised = example.tokens[example.loss_mask == 1].tolist()
    assert supervised == [*llama.encode("Lisinopril."), 2]
    prompt = example.tokens[example.loss_mask == 0].tolist()
    assert prompt == [1, *llama.encode(alpaca_prompt("Name an ACE inhibitor."))]
    assert llama.decode(supervised) == "Lisinopril."


def test_chat_supervises_the_answer_and_its_turn_end_alone(chat: Tokenizer) -> None:
    record = Instruction(instruction="Name one.", input="ACE inhibitors", output="Lisinopril.")
    example = encode_example(record, chat, "chat")
    whole = chat.decode(example.tokens.tolist(), skip_special_tokens=False)
    assert whole.endswith("ACE inhibitors<|im_end|>\n<|im_start|>assistant\nLisinopril.<|im_end|>")
    supervised = example.tokens[example.loss_mask == 1].tolist()
    assert chat.decode(supervised, skip_special_tokens=False) == "Lisinopril.<|im_end|>"


@given(instruction=FILLED, input=TEXT, output=FILLED)
@pytest.mark.parametrize(("name", "template"), [("llama", "alpaca"), ("chat", "alpaca"), ("chat", "chat")])
def test_generation_sees_the_prompt_of_training(
    request: Any, name: str, template: Template, instruction: str, input: str, output: str
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    record = Instruction(instruction=instruction, input=input, output=output)
    example = encode_example(record, tokenizer, template)
    prompt = encode_prompt(instruction, input, tokenizer, template)
    assert example.tokens[: len(prompt)].tolist() == prompt
    assert example.loss_mask.tolist() == [0] * len(prompt) + [1] * (len(example) - len(prompt))
    assert example.tokens[-1] == tokenizer.eos_id
    # The text of every response comes back: nothing of it is lost, nothing else is supervised.
    assert tokenizer.decode(example.tokens[len(prompt) :]) == (
        output.replace("▁", " ") if name == "llama" else output
    )


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_one_bos_and_no_more(llama_model_file: Any, template: Template) -> None:
    from alpacare_jax.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(llama_model_file)
    tokenizer.backend.chat_template = LLAMA3
    example = encode_example(
        Instruction(instruction="Name one.", output=" Lisinopril. "), tokenizer, template
    )
    assert (example.tokens == 1).sum() == 1
    assert example.tokens[0] == 1
    assert example.tokens[-1] == 2


def test_control_tokens_in_data_cannot_end_a_turn(chat: Tokenizer) -> None:
    record = Instruction(instruction="What does <|im_end|> do?", output="It ends <|im_end|> a turn.")
    alpaca = encode_example(record, chat, "alpaca")
    assert (alpaca.tokens == chat.eos_id).sum() == 1
    with pytest.raises(DataError, match="control token") as caught:
        encode_example(record, chat, "chat", where="tasks.jsonl:7")
    assert "tasks.jsonl:7" in str(caught.value)
    with pytest.raises(DataError, match="control token"):
        encode_prompt("What does <|im_end|> do?", "", chat, "chat")


def test_a_template_without_turn_end_or_with_a_shifting_prompt_is_refused(chat_folder: Any) -> None:
    from alpacare_jax.tokenizer import load_tokenizer

    record = Instruction(instruction="Name one.", output="Lisinopril.")
    tokenizer = load_tokenizer(chat_folder)
    tokenizer.backend.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(DataError, match="no control token"):
        encode_example(record, tokenizer, "chat")
    tokenizer.backend.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(DataError, match="not the beginning of the whole"):
        encode_example(record, tokenizer, "chat")


@pytest.mark.parametrize("field", ["instruction", "output"])
def test_an_empty_field_is_named_with_its_place(letters: Tokenizer, field: str) -> None:
    good = {"instruction": "Say", "output": "Hi"}
    records = [Instruction(**good), Instruction(**(good | {field: " \n"}))]
    with pytest.raises(DataError, match=f"empty {field}") as caught:
        encode_examples(records, letters, where=["a.jsonl:1", "a.jsonl:2"])
    assert caught.value.where == "a.jsonl:2"
