"""Tasks as JSON, where a service can be held to a schema; and one door to the tasks of a reply in either form.

Both forms give the same :class:`SeedTask` and :class:`Rejected`. A list is read object by object, so that a reply
which is cut loses only its last task.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from datagen import parse
from datagen.finish import read_finish
from datagen.labels import normalise_difficulty
from datagen.parse import FIELDS, Rejected
from datagen.records import NO_INPUT, SeedTask
from datagen.replies.thinking import without_thoughts
from datagen.replies.values import clean
from datagen.service.chat import TEXT

REFUSED = "refusal"

_DECODER = json.JSONDecoder(strict=False)
_LIST = re.compile(r"\{\s*\"[^\"\n]{1,40}\"\s*:\s*\[(?=\s*[{\]]|\s*\Z)|\[(?=\s*\{)|(?=\{\s*\")")
_FENCE = re.compile(r"^[^\S\n]*`{3,}\w*[^\S\n]*$", re.MULTILINE)
_BETWEEN = re.compile(r"[\s,\]}`]*")
_OBJECT = re.compile(r"\{\s*\"[\w ]{1,40}\"\s*:")
_END_OF_OBJECT = re.compile(r"\}[\s,\]}]*(?=\{\s*\"[\w ]{1,40}\"\s*:)")


def response_format() -> dict[str, Any]:
    """Return OpenAI's ``response_format`` for a list of tasks; vLLM, llama.cpp, Ollama and OpenRouter take it, too."""
    text = {"type": "string"}
    fields = {
        "type": text,
        "topic": text,
        "view": text,
        "difficulty": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
        "instruction": text,
        "input": {"type": "string", "description": f"{NO_INPUT} where the task needs none"},
    }
    task = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    tasks = {"type": "array", "items": task}
    schema = {
        "type": "object",
        "properties": {"tasks": tasks},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "medical_tasks", "strict": True, "schema": schema}}


def read_tasks(
    reply: str, form: str, *, first_number: int = 1, expected: int | None = None, finish_reason: str = "stop"
) -> list[SeedTask | Rejected]:
    """Find every task in a reply, in the form that was asked for; thoughts before the reply are passed over.

    Args:
        reply: The teacher's text.
        form: "text" or "json_schema".
        first_number: The number at which a reply in text goes on with the list.
        expected: How many tasks were asked for; more are returned as rejected "surplus". None takes all.
        finish_reason: As the service gave it; "refusal" where the text stands in the reply's field for refusals.

    Returns:
        Tasks and rejected stretches in the order of the reply; never empty.
    """
    text = without_thoughts(reply)
    if finish_reason == REFUSED:
        return [Rejected("refusal", text)]
    if form == TEXT:
        pieces = parse.parse_tasks(
            text, first_number=first_number, expected=expected, finish_reason=finish_reason
        )
    else:
        pieces = parse_json_tasks(text, expected=expected, finish_reason=finish_reason)
    return pieces or [
        Rejected("truncated" if read_finish(finish_reason) != "whole" else "no-task-in-reply", reply)
    ]


def parse_json_tasks(
    reply: str, *, expected: int | None = None, finish_reason: str = "stop"
) -> list[SeedTask | Rejected]:
    """Find every task in a reply that was to be JSON; one without any JSON is read as text.

    Reasons of its own, beside those of :class:`Rejected`: ``broken-json``, ``wrong-field-type``.

    Example:
        >>> cut = '{"tasks": [{"type": "Chat", "instruction": "What is gout?", "input": "none"}, {"type": "Ch'
        >>> task, rest = parse_json_tasks(cut, finish_reason="length")
        >>> task.instruction, task.input, rest
        ('What is gout?', '<noinput>', Rejected(reason='truncated', text='{"type": "Ch'))
    """
    text = _FENCE.sub("", reply)
    start = _LIST.search(text)
    if start is None:
        if read_finish(finish_reason) != "whole" and text.lstrip().startswith(("{", "[")):
            return [Rejected("truncated", text.strip())]
        return parse.parse_tasks(text, expected=expected, finish_reason=finish_reason)
    results: list[SeedTask | Rejected] = []
    if lead := text[: start.start()].strip():
        results.append(Rejected("prose", lead))
    found = 0
    for piece in _pieces(text, start.end(), read_finish(finish_reason) != "whole"):
        for result in [piece] if isinstance(piece, Rejected) else _build(piece):
            found += isinstance(result, SeedTask)
            if isinstance(result, SeedTask) and expected is not None and found > expected:
                result = Rejected("surplus", json.dumps(result.to_dict(), ensure_ascii=False))
            results.append(result)
    return results


def _pieces(text: str, at: int, cut: bool) -> Iterator[Any]:
    """Yield the objects of a JSON list, from behind its bracket on; what cannot be read is rejected up to the next."""
    while True:
        at = _after(_BETWEEN, text, at)
        following = _OBJECT.search(text, at)
        if following is None:
            break
        if between := text[at : following.start()].strip():
            yield Rejected("broken-json", between)
        at = following.start()
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = _END_OF_OBJECT.search(text, at)
            if end is None:
                break
            yield Rejected("broken-json", text[at : end.start() + 1])
            at = end.start() + 1
        else:
            yield value
    rest = text[at:].strip()
    if rest:
        broken = "broken-json" if rest.startswith("{") else "prose"
        yield Rejected("truncated" if cut else broken, rest)


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _build(value: dict[str, Any]) -> Iterator[SeedTask | Rejected]:
    """Turn one object into a task, or say why it is none; fields that nobody asked for follow as rejected."""
    whole = json.dumps(value, ensure_ascii=False)
    given = {str(key).strip().lower(): _text(item) for key, item in value.items()}
    if any(given.get(field, "") is None for field in FIELDS):
        yield Rejected("wrong-field-type", whole)
        return
    values = {field: given.get(field) or "" for field in FIELDS}
    if clean("input", values["input"], final=False) == (NO_INPUT, []):
        values["input"] = NO_INPUT
    if values["difficulty"]:
        values["difficulty"] = normalise_difficulty(values["difficulty"])
    others = [
        ("unasked-output", json.dumps({key: item}, ensure_ascii=False))
        for key, item in value.items()
        if str(key).strip().lower() not in FIELDS and item not in (None, "", [], {})
    ]
    yield from parse.as_task(values, whole, others)


def _text(item: object) -> str | None:
    """Return a field as text; a list of texts, as models give choices, line by line; None for any other type."""
    if item is None:
        return ""
    if isinstance(item, str):
        return item.strip()
    if isinstance(item, int | float) and not isinstance(item, bool):
        return f"{item:g}"
    if isinstance(item, list) and all(isinstance(each, str) for each in item):
        return "\n".join(item).strip()
    return None
