"""Extracts the text of a reply, a string or a list of parts, without the model's reasoning."""

import ast
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from datagen.providers import names, pattern

_DEPTH = 5


class UnreadableError(Exception):
    """The content of a reply has an unknown form."""


@dataclasses.dataclass(frozen=True)
class Content:
    """A message: its text, whether that is a refusal, and the number of characters of reasoning."""

    text: str
    refused: bool = False
    thoughts: int = 0


def read_content(message: Any) -> Content:
    """Take the text out of an assistant's message.

    Args:
        message: As the service gave it.

    Raises:
        UnreadableError: Its content has an unknown form, which may hold a text.

    Example:
        >>> parts = ["Rest", None, {"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": " well."}]
        >>> read_content({"content": parts})
        Content(text='Rest well.', refused=False, thoughts=3)
    """
    if not isinstance(message, dict):
        raise TypeError("the message is no object")
    content = message.get("content")
    thoughts = sum(len(text) for name in _beside() for text in _texts(message.get(name)))
    if isinstance(content, str):
        content = _written_out(content) or content
    pieces = list(_pieces(content))
    text, refusal = ("".join(said for kind, said in pieces if kind == each) for each in ("text", "refusal"))
    thoughts += sum(len(said) for kind, said in pieces if kind == "thoughts")
    told = message.get("refusal")
    if not refusal and not text and isinstance(told, str):
        refusal = told
    # If a part is a refusal, the other parts are not an answer.
    return Content(text + refusal, refused=bool(refusal), thoughts=thoughts)


def _kind_of(part: dict[str, Any]) -> str:
    """Return whether a part is "text", "refusal", "thoughts", "no text" or of a type that is unknown: ""."""
    kind = str(part.get("type") or "")
    if kind == "refusal" or (not kind and isinstance(part.get("refusal"), str)):
        return "refusal"
    if part.get("thought") is True or pattern("content", "thoughts").search(kind):
        return "thoughts"
    if pattern("content", "no text").search(kind):
        return "no text"
    return "text" if kind.lower() in ("", *names("content", "text")) else ""


def _written_out(content: str) -> list[Any] | None:
    """Return the parts that some gateways write into one text, as JSON or as Python does; None for any other text."""
    if not pattern("content", "written out").match(content):
        return None
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            said = read(content.strip())
            parts = said if isinstance(said, list) else [said]
            known = [part for part in parts if isinstance(part, dict) and _says_its_kind(part)]
            return parts if known and all(isinstance(part, str) or part in known for part in parts) else None
    return None


def _says_its_kind(part: dict[str, Any]) -> bool:
    named = part.get("type") or part.get("role") == "assistant"
    return bool(named) and _kind_of(part) != ""


def _pieces(part: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the texts of a part, or of a list of them, each with its kind: "text", "refusal" or "thoughts"."""
    if isinstance(part, str):
        yield "text", part
    elif isinstance(part, list) and depth < _DEPTH:
        for each in part:
            yield from _pieces(each, depth + 1)
    elif isinstance(part, dict) and depth < _DEPTH:
        kind = _kind_of(part)
        held = [part[name] for name in names("content", "held in") if name in part]
        if kind == "refusal":
            yield kind, str(part.get("refusal") or part.get("text") or "")
        elif kind == "thoughts":
            yield from ((kind, text) for text in _texts(part))
        elif kind == "text" and held:
            yield from _pieces(next((each for each in held if each is not None), None), depth + 1)
        elif kind == "text" and (part.get("type") or not any(name in part for name in _beside())):
            raise UnreadableError("a part of it holds no text")
        elif kind == "":
            raise UnreadableError("a part of it is of an unknown type")
    elif part is not None:
        raise UnreadableError("it is no text")


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts within a value, but for the types of parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < _DEPTH:
        for name, each in value.items():
            yield from _texts(each, depth + 1) if name != "type" else ()
    elif isinstance(value, list) and depth < _DEPTH:
        for each in value:
            yield from _texts(each, depth + 1)


def _beside() -> tuple[str, ...]:
    return names("content", "thoughts beside")
