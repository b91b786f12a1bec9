"""The text of a reply, which services give whole or in parts, without the model's thoughts."""

import ast
import contextlib
import dataclasses
import json
import re
from typing import Any

# Parts whose text is the reply's; a part may also have no type.
_TEXT = frozenset({"", "text", "output_text", "message", "output_message"})
_IS_THOUGHT = re.compile(r"think|thought|reason|analysis|summary|redact|signature", re.IGNORECASE)
# Parts that hold no text of the reply: calls of tools, media and references.
_NO_TEXT = re.compile(
    r"tool|function|call|image|audio|video|file|document|media|reference|citation|annotation|search",
    re.IGNORECASE,
)
_HOLDS_TEXT = ("text", "output_text", "content", "parts", "value")
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thinking_content", "reasoning_details",
             "thought")  # fmt: skip
# A text that begins as a list of parts, or as one, whose first key is one of a part's.
_LIKE_PARTS = re.compile(r"\s*\[?\s*\{\s*(?:\"|')(?:type|text|thinking|id|role|annotations)(?:\"|')\s*:")
_DEPTH = 5


class UnreadableError(Exception):
    """The content of a reply has a form in which nobody knows where its text is."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a message holds: its text, whether that is a refusal, and how many characters of thoughts there are."""

    text: str
    refused: bool = False
    thoughts: int = 0


def read_content(message: Any) -> Content:
    """Take the text out of an assistant's message.

    Args:
        message: As the service gave it.

    Raises:
        UnreadableError: Its content is of a form that may hold a text, and nobody knows where.

    Example:
        >>> parts = ["Rest", None, {"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": " well."}]
        >>> read_content({"content": parts})
        Content(text='Rest well.', refused=False, thoughts=3)
    """
    if not isinstance(message, dict):
        raise TypeError("the message is no object")
    content = message.get("content")
    thoughts = sum(_length(message.get(name)) for name in _THOUGHTS)
    if isinstance(content, str):
        content = _written_out(content) or content
    if content is None or isinstance(content, str):  # nearly all replies
        text, refusal = content or "", ""
    else:
        found = _Parts()
        found.take(content, 0)
        text, refusal, thoughts = "".join(found.texts), "".join(found.refusals), thoughts + found.thoughts
    told = message.get("refusal")
    if refusal:  # a part says so: what stands beside it is no answer
        return Content(f"{text}{refusal}", refused=True, thoughts=thoughts)
    if isinstance(told, str) and told and not text:
        return Content(told, refused=True, thoughts=thoughts)
    return Content(text, thoughts=thoughts)


def _written_out(content: str) -> list[Any] | None:
    """Return the parts that some gateways write into one text, as JSON or as Python does; None for any other text."""
    if not _LIKE_PARTS.match(content):
        return None
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            said = read(content.strip())
            parts = said if isinstance(said, list) else [said]
            known = [part for part in parts if isinstance(part, dict) and _is_known(part)]
            return parts if known and all(isinstance(part, str) or part in known for part in parts) else None
    return None


def _is_known(part: dict[str, Any]) -> bool:
    kind = str(part.get("type") or ("message" if part.get("role") == "assistant" else "unknown"))
    return (
        kind.lower() in _TEXT or kind == "refusal" or bool(_IS_THOUGHT.search(kind) or _NO_TEXT.search(kind))
    )


class _Parts:
    """Collects texts, refusals and the length of thoughts from content in parts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.thoughts = 0

    def take(self, part: Any, depth: int) -> None:
        """Take in a part, or a list of them."""
        if part is None:
            return
        if isinstance(part, str):
            self.texts.append(part)
        elif isinstance(part, list) and depth < _DEPTH:
            for each in part:
                self.take(each, depth + 1)
        elif isinstance(part, dict) and depth < _DEPTH:
            self._take_object(part, depth)
        else:
            raise UnreadableError("it is no text")

    def _take_object(self, part: dict[str, Any], depth: int) -> None:
        kind = str(part.get("type") or "")
        if kind == "refusal" or (not kind and isinstance(part.get("refusal"), str)):
            self.refusals.append(str(part.get("refusal") or part.get("text") or ""))
        elif _IS_THOUGHT.search(kind) or part.get("thought") is True:
            self.thoughts += _length(part)
        elif _NO_TEXT.search(kind):
            return
        elif kind.lower() in _TEXT:
            held = [part[name] for name in _HOLDS_TEXT if name in part]
            if not held and kind:
                raise UnreadableError("a part of it holds no text")
            if held:
                self.take(next((each for each in held if each is not None), None), depth + 1)
            elif not any(name in part for name in _THOUGHTS):
                raise UnreadableError("a part of it holds no text")
        else:
            raise UnreadableError("a part of it is of an unknown type")


def _length(value: Any, depth: int = 0) -> int:
    """Count the characters of the texts within a value."""
    if isinstance(value, str):
        return len(value)
    if depth >= _DEPTH:
        return 0
    if isinstance(value, dict):
        return sum(_length(each, depth + 1) for name, each in value.items() if name != "type")
    return sum(_length(each, depth + 1) for each in value) if isinstance(value, list) else 0
