"""The two requests to the teacher: write new tasks, and answer one task. Pure functions of their arguments.

The method is AlpaCare's (arXiv 2310.14558, section 3); the wording is this project's own and carries a version,
which travels with every published row. Each example is shown as an earlier turn of the teacher's own: models of every
size go on in its form, where a small one loses the form under a long list of rules.
"""

import copy
import json
from collections.abc import Sequence
from typing import Any

from datagen.phrases import read_table
from datagen.records import NO_INPUT, SeedTask
from datagen.service.chat import TEXT

PROMPT_VERSION = "2026-11.3"

_TEXTS: dict[str, Any] = read_table("datagen", "prompts.yaml")


def task_request_messages(
    examples: Sequence[SeedTask], *, count: int, form: str = TEXT
) -> tuple[dict[str, str], ...]:
    """Ask for new tasks, with example tasks shown as the beginning of the list that is to be continued.

    Args:
        examples: Tasks to show, in order; they are numbered from 1.
        count: New tasks to write; they are numbered from ``len(examples) + 1``.
        form: "text", or "json_schema" for examples and tasks in JSON.

    Returns:
        Chat messages: the rules from the system; then, for each example, the user's request and the example as its
        answer; last the user's request for the new tasks.

    Example:
        >>> seed = SeedTask("What is gout?", "", "Open Q&A", "Rheumatology", "Student", "1")
        >>> _, first, shown, last = task_request_messages([seed], count=2)
        >>> print(first["content"], shown["content"], last["content"], sep="\\n--\\n")
        List of 3 tasks. Write medical task 1.
        --
        1. Type: Open Q&A
        Topic: Rheumatology
        View: Student
        Difficulty: 1
        Instruction: What is gout?
        Input: <noinput>
        --
        Write medical tasks 2 to 3 in the same form, with ### between them.
    """
    shown, total, as_text = len(examples), len(examples) + count, form == TEXT
    rules = f"{_TEXTS['new tasks']}\n{_TEXTS['tasks as text' if as_text else 'tasks as JSON']}"
    messages = [{"role": "system", "content": rules}]
    for number, task in enumerate(examples, start=1):
        asked = f"Write medical task {number}."
        messages.append(
            {"role": "user", "content": f"List of {total} tasks. {asked}" if number == 1 else asked}
        )
        written = render_task(task, number) if as_text else render_task_as_json(task)
        messages.append({"role": "assistant", "content": written})
    together = "with ### between them" if as_text else "together in one JSON object"
    asked = f"Write medical tasks {shown + 1} to {total} in the same form, {together}."
    messages.append({"role": "user", "content": asked if count > 1 else f"Write medical task {total}."})
    return tuple(messages)


def response_format() -> dict[str, Any]:
    """Return OpenAI's ``response_format`` for a list of tasks; vLLM, llama.cpp, Ollama and OpenRouter take it, too."""
    schema = {"name": "medical_tasks", "strict": True, "schema": copy.deepcopy(_TEXTS["schema"])}
    return {"type": "json_schema", "json_schema": schema}


def render_task(task: SeedTask, number: int) -> str:
    """Write a task as the numbered block that the teacher is to imitate."""
    return (
        f"{number}. Type: {task.type}\nTopic: {task.topic}\nView: {task.view}\n"
        f"Difficulty: {task.difficulty}\n"
        f"Instruction: {task.instruction.strip()}\nInput: {task.normal_input() or NO_INPUT}"
    )


def render_task_as_json(task: SeedTask) -> str:
    """Write a task as the JSON object that the teacher is to imitate."""
    level = task.difficulty
    fields = {
        "type": task.type,
        "topic": task.topic,
        "view": task.view,
        "difficulty": int(level) if level.isdecimal() else level,
        "instruction": task.instruction.strip(),
        "input": task.normal_input() or NO_INPUT,
    }
    return json.dumps({"tasks": [fields]}, ensure_ascii=False)


def answer_request_messages(task: SeedTask) -> tuple[dict[str, str], ...]:
    """Ask for the answer to one task; a task without input is asked without one.

    Example:
        >>> answer_request_messages(SeedTask("What is gout?", "<noinput>"))[1]
        {'role': 'user', 'content': 'What is gout?'}
    """
    given = task.normal_input()
    text = task.instruction.strip() + (f"\n\n{given}" if given else "")
    return {"role": "system", "content": _TEXTS["answer"]}, {"role": "user", "content": text}
