"""Builds the body of an OpenAI-compatible chat request; services differ in the fields they accept."""

import dataclasses
import hashlib
import json
from typing import Annotated, Any

from datagen.configuration import Range, check
from datagen.errors import ConfigError

# Not allowed in ``extra_body``: fields that affect the cost, that yield no text, or that have their own setting.
_RESERVED = (
    "model",
    "messages",
    "stream",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "response_format",
    "models",
    "plugins",
    "tools",
    "functions",
    "web_search_options",
)
TEXT, JSON_SCHEMA = "text", "json_schema"
FORMATS = (TEXT, JSON_SCHEMA)
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The sampling settings of a request.

    Attributes:
        temperature: None leaves the field out, for models that refuse it.
        top_p: None leaves the field out.
        presence_penalty: None leaves the field out.
        max_tokens: Longest reply in tokens, including a model's reasoning.
        stop: Texts at which the model stops.
        seed: Sent only if set.
        max_tokens_field: The request field for it: "max_tokens", or "max_completion_tokens" for models that want that.
        extra_body: Further fields of the body that a provider knows, such as ``{"reasoning_effort": "low"}``; a field
            with the name of a setting above replaces it.
        format: Form of a reply with tasks: "text" as the paper has it, or "json_schema" (structured output) where the
            service can be held to a schema.
    """

    temperature: Annotated[float | None, Range(0, 2)] = 1.0
    top_p: Annotated[float | None, Range(0, 1)] = 1.0
    presence_penalty: Annotated[float | None, Range(-2, 2)] = 0.0
    max_tokens: Annotated[int, Range(1, 2**31)] = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None
    max_tokens_field: Annotated[str, LENGTH_FIELDS] = LENGTH_FIELDS[0]
    extra_body: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: Annotated[str, FORMATS] = TEXT

    def __post_init__(self) -> None:
        check(self)
        if wrong := [key for key in self.extra_body if key in _RESERVED]:
            raise ConfigError(
                "extra_body may not set fields that the run sets or accounts for",
                found=", ".join(wrong),
                remedy="use the setting of its own (max_tokens, max_tokens_field, format), or leave it out",
            )


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """One chat request; ``id`` is unique within its stage.

    ``response_format`` asks for structured output, in the form of OpenAI's field of that name.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    sampling: Sampling
    response_format: dict[str, Any] | None = None

    def body(self, model: str) -> dict[str, Any]:
        """Return the body of the HTTP request.

        Examples:
            >>> sampling = Sampling(temperature=None, presence_penalty=None, max_tokens_field="max_completion_tokens")
            >>> ChatRequest("0", (), sampling).body("m")
            {'model': 'm', 'messages': [], 'top_p': 1.0, 'max_completion_tokens': 1024}
        """
        sampling = self.sampling
        body: dict[str, Any] = {"model": model, "messages": list(self.messages)}
        for name in ("temperature", "top_p", "presence_penalty"):
            value = getattr(sampling, name)
            if value is not None:
                body[name] = float(value)
        body[sampling.max_tokens_field] = sampling.max_tokens
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self.response_format is not None:
            body["response_format"] = self.response_format
        return body | sampling.extra_body


def prompt_hash(body: dict[str, Any]) -> str:
    """Return the fingerprint (SHA-256, hexadecimal) of a request's body: model, messages, form and sampling."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
