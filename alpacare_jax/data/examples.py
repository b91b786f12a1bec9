"""From a record to token ids with a loss mask; and from a prompt to the same ids, for generation.

Only the response and its end token are supervised. In the Alpaca template prompt and response are encoded
apart and then joined, so the prompt's ids in training are the very ids that generation feeds to the model;
encoding the two in one go would let a piece reach across the border, and the model would meet a prompt it
had never seen. In the chat template the whole conversation is encoded at once, and the prompt's ids must be
a prefix of it.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from alpacare_jax.errors import DataError
from alpacare_jax.prompts import Template, alpaca_prompt, chat_messages
from alpacare_jax.tokenizer import Tokenizer
from datagen.records import Instruction, shorten


@dataclasses.dataclass(frozen=True)
class Example:
    """One training example.

    Args:
        tokens: int32 [n], prompt, response and end token.
        loss_mask: int32 [n], 1 where the token itself is a target (predicted from the one before it).
        id: The record's id.
        truncated: Whether its end is cut off.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    id: str
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, length: int) -> "Example":
        """Return the first ``length`` tokens; the end token is lost with the rest."""
        return Example(self.tokens[:length], self.loss_mask[:length], self.id, truncated=True)


def encode_example(
    instruction: Instruction, tokenizer: Tokenizer, template: Template = "alpaca", *, where: str | None = None
) -> Example:
    """Encode one record for training; see :func:`encode_examples`.

    Example:
        With a tokenizer that spells every character as its code point, BOS 1 and EOS 2, the instruction
        "Say" with the output "Hi" becomes (the prompt shortened to its last four characters)::

            token        1  ...  's'  'e'  ':'  'H'  'i'   2
            loss_mask    0  ...   0    0    0    1    1    1
    """
    return encode_examples([instruction], tokenizer, template, where=[where or "the record"])[0]


def encode_examples(
    instructions: Sequence[Instruction],
    tokenizer: Tokenizer,
    template: Template = "alpaca",
    *,
    where: Sequence[str] | None = None,
) -> list[Example]:
    """Encode records for training, in parallel.

    Args:
        instructions: The records.
        tokenizer: The model's tokenizer.
        template: "alpaca", or "chat" for the model's own chat template.
        where: A place per record, such as ``tasks.jsonl:12``, named in errors.

    Returns:
        One example per record, in order. The last token is the end token: the tokenizer's EOS in the Alpaca
        template, the template's own end of turn in the chat template.

    Raises:
        DataError: A record has no output, or the chat template cannot carry it.
    """
    places = list(where) if where is not None else [f"record {index}" for index in range(len(instructions))]
    for record, place in zip(instructions, places, strict=True):
        for field in ("instruction", "output"):
            if not getattr(record, field).strip():
                remedy = "fill it in or delete the record"
                raise DataError(f"the record has an empty {field}", where=place, remedy=remedy)
    encode = _encode_alpaca if template == "alpaca" else _encode_chat
    examples = []
    for (prompt, response), record, place in zip(
        encode(instructions, tokenizer, places), instructions, places, strict=True
    ):
        mask = np.repeat(np.array([0, 1], np.int32), [len(prompt), len(response)])
        examples.append(Example(np.asarray(prompt + response, np.int32), mask, record.id or place))
    return examples


def encode_prompt(
    instruction: str,
    input: str,
    tokenizer: Tokenizer,
    template: Template = "alpaca",
    *,
    where: str = "the prompt",
) -> list[int]:
    """Encode a prompt for generation: exactly the ids that precede the response in training.

    Args:
        instruction: The task.
        input: Its input, "" or ``<noinput>`` for none.
        tokenizer: The model's tokenizer.
        template: "alpaca" or "chat".
        where: The place named in errors.

    Raises:
        DataError: The chat template cannot carry the prompt.
    """
    if template == "alpaca":
        return tokenizer.with_bos(tokenizer.encode(alpaca_prompt(instruction, input), parse_special=False))
    _check_plain(tokenizer, instruction + input, where)
    return tokenizer.apply_chat_template(chat_messages(instruction, input), add_generation_prompt=True)


def _encode_alpaca(
    instructions: Sequence[Instruction], tokenizer: Tokenizer, places: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    prompts = [alpaca_prompt(record.instruction, record.input) for record in instructions]
    encoded = tokenizer.encode_batch(prompts, parse_special=False)
    answers = tokenizer.encode_batch([record.output for record in instructions], parse_special=False)
    return [
        (tokenizer.with_bos(prompt), [*answer, tokenizer.eos_id])
        for prompt, answer in zip(encoded, answers, strict=True)
    ]


def _encode_chat(
    instructions: Sequence[Instruction], tokenizer: Tokenizer, places: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    prompts, wholes = [], []
    for record, place in zip(instructions, places, strict=True):
        _check_plain(tokenizer, record.instruction + record.input + record.output, place)
        messages = chat_messages(record.instruction, record.input, record.output)
        prompts.append(tokenizer.render_chat(messages[:1], add_generation_prompt=True))
        wholes.append(tokenizer.render_chat(messages))
    encoded = zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(wholes), places, strict=True)
    return [_split_chat(tokenizer, prompt, whole, place) for prompt, whole, place in encoded]


def _split_chat(
    tokenizer: Tokenizer, prompt: list[int], whole: list[int], where: str
) -> tuple[list[int], list[int]]:
    """Split an encoded conversation behind the prompt, and drop what follows the end of the answer's turn."""
    if whole[: len(prompt)] != prompt:
        raise DataError(
            "the chat template gives a prompt that is not the beginning of the whole conversation",
            where=where,
            found=shorten(repr(tokenizer.decode(whole[: len(prompt)], skip_special_tokens=False)[-80:])),
            expected=shorten(repr(tokenizer.decode(prompt, skip_special_tokens=False)[-80:])),
            remedy="use the alpaca template",
        )
    special = set(tokenizer.special_texts.values())
    answer = whole[len(prompt) :]
    # The texts hold no control token (checked before), so the first one after the prompt closes the turn.
    ends = next((index for index, token in enumerate(answer) if token in special), None)
    if ends is None:
        raise DataError(
            "the chat template closes the answer with no control token, so no answer would ever end",
            where=where,
            remedy="use the alpaca template",
        )
    return prompt, answer[: ends + 1]


def _check_plain(tokenizer: Tokenizer, text: str, where: str) -> None:
    """Refuse a text that spells a control token: in a chat it would open or close a turn."""
    pattern = "|".join(map(re.escape, sorted(tokenizer.special_texts, key=len, reverse=True)))
    found = re.search(pattern, text) if pattern else None
    if found:
        raise DataError(
            "the record spells a control token of the chat template",
            where=where,
            found=found.group(),
            remedy="delete it from the record, or use the alpaca template, where it is read as plain text",
        )
