"""Prompt templates: the Alpaca prompt, or the messages of the model's own chat template.

Training and generation both render through this module (by way of ``alpacare_jax.data.examples``), so a
model is asked in exactly the words it was taught with. Every value is put in by concatenation, never by
repeated search and replace, so an instruction that talks about ``{input}`` or ``### Response:`` reaches the
model unchanged.
"""

from typing import Literal, get_args

from alpacare_jax.errors import ConfigError
from datagen.records import normal_input

Template = Literal["alpaca", "chat"]
TEMPLATES: tuple[Template, ...] = get_args(Template)

# The wording is a format, not prose: models tuned on Alpaca data answer to these very sentences.
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def check_template(template: str | None) -> None:
    """Refuse the name of a template that does not exist.

    Raises:
        ConfigError: The name is unknown.
    """
    if template not in TEMPLATES:
        raise ConfigError(
            "unknown template", where="template", found=template, expected=" or ".join(TEMPLATES)
        )


def alpaca_prompt(instruction: str, input: str = "") -> str:
    """Render the Alpaca prompt, up to and including ``### Response:``.

    Args:
        instruction: The task.
        input: Its input; "" and ``<noinput>`` (any spelling) choose the form without an input section.

    Returns:
        The prompt's text. The response follows it directly, without a line break.

    Example:
        >>> print(alpaca_prompt("Define the term.", "anaemia").partition("request.")[2].lstrip())
        ### Instruction:
        Define the term.
        <BLANKLINE>
        ### Input:
        anaemia
        <BLANKLINE>
        ### Response:

    Source: the prompt of Stanford Alpaca, which AlpaCare uses for training and for free-form evaluation.
    """
    context = normal_input(input)
    if context:
        sections = [
            _WITH_INPUT,
            f"### Instruction:\n{instruction}",
            f"### Input:\n{context}",
            "### Response:",
        ]
    else:
        sections = [_WITHOUT_INPUT, f"### Instruction:\n{instruction}", "### Response:"]
    return "\n\n".join(sections)


def chat_messages(instruction: str, input: str = "", output: str | None = None) -> list[dict[str, str]]:
    """Turn a task into chat messages: a turn of the user and, if there is an answer, a turn of the assistant.

    Args:
        instruction: The task.
        input: Its input, set below the instruction after an empty line; ``<noinput>`` counts as none.
        output: The answer, or None for a prompt that is still to be answered.

    Returns:
        Messages with ``role`` and ``content``. No system message: that is the template's own business.

    Example:
        >>> chat_messages("Define the term.", "anaemia", "Too little haemoglobin.")[0]
        {'role': 'user', 'content': 'Define the term.\\n\\nanaemia'}
    """
    context = normal_input(input)
    messages = [{"role": "user", "content": f"{instruction}\n\n{context}" if context else instruction}]
    if output is not None:
        messages.append({"role": "assistant", "content": output})
    return messages
