"""The requests of the HTTP server: OpenAI's completion and chat requests, checked field by field.

A field that this server does not know, or knows and cannot honour, is refused: a client that asks for something
must never get an answer that silently lacks it. A field that is null is absent.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

from alpacare_jax.errors import DataError
from alpacare_jax.generate.sampling import MAX_TOP_LOGPROBS, SamplingParams
from datagen.decoding import Malformed, parse_json

AnyFields = TypeVar("AnyFields", bound="Fields")

MOST_CHOICES = 128
MOST_REPLIES = 2048
"""Replies that one request may ask for: prompts times choices."""
MOST_STOPS = 16
MOST_FIELDS = 100
"""Fields of one object; OpenAI's requests have about 40."""
SEEDS = (-(1 << 63), (1 << 64) - 1)

OFF: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_calls": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
"""Fields that this server cannot honour, with the values that ask for nothing and are as good as absent."""


class Fields(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        if len(fields) > MOST_FIELDS:
            raise PydanticCustomError("fields", "it has {found} fields", {"found": len(fields)})
        return {
            name: value
            for name, value in fields.items()
            if value is not None and (name in cls.model_fields or not _is_off(name, value))
        }


def _is_off(name: str, value: Any) -> bool:
    # By type too: JSON's false is not 0.
    return any(type(value) in (type(off), float) and value == off for off in OFF.get(name, ()))


class StreamOptions(Fields):
    """Options of a streamed reply."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


def _read_stop(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Request(Fields):
    """The fields that both kinds of request share. ``top_k`` and ``ignore_eos`` are additions to OpenAI's."""

    model: str
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    stop: Annotated[list[str], FailFast(), BeforeValidator(_read_stop)] = Field([], max_length=MOST_STOPS)
    seed: int | None = Field(None, ge=SEEDS[0], le=SEEDS[1])
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    ignore_eos: bool = False
    # Accepted because they change nothing in the reply.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    def sampling(self, seed: int, max_tokens: int, logprobs: int | None) -> SamplingParams:
        """Return the sampling parameters.

        Raises:
            DataError: A value cannot be honoured.
        """
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "ignore_eos")
        fields = self.model_dump(include=set(names)) | {"top_k": max(0, self.top_k)}
        return SamplingParams(max_tokens=max_tokens, seed=seed, logprobs=logprobs, **fields)


def _read_prompts(value: Any) -> list[str | list[int]]:
    """Return the prompts as a list. Checked by hand, because a list may hold millions of token ids."""
    prompts = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(prompts, list):
        raise PydanticCustomError(
            "prompt", "it must be a text, token ids, or a list of texts or of token ids"
        )
    if not prompts:
        raise PydanticCustomError("prompt", "it is empty")
    flat = type(prompts[0]) is int
    wanted = "a token id" if flat else "a text or a list of token ids"
    for at, prompt in enumerate(prompts):
        if not (type(prompt) is int if flat else isinstance(prompt, str) or _is_ids(prompt)):
            raise PydanticCustomError("prompt", "element {at} must be {wanted}", {"at": at, "wanted": wanted})
    return prompts


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)  # not True


class CompletionRequest(Request):
    """``POST /v1/completions``."""

    prompt: Annotated[Any, BeforeValidator(_read_prompts)]
    """A list of texts and of lists of token ids."""
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool = False
    best_of: int | None = None

    def check(self) -> None:
        """Refuse what cannot be honoured.

        Raises:
            DataError: Names the field.
        """
        if self.best_of is not None and self.best_of != self.n:
            raise refuse("best_of", "best_of is not supported, other than equal to n")
        if self.echo and self.stream:
            raise refuse("echo", "echo cannot be streamed")
        if len(self.prompt) * self.n > MOST_REPLIES:
            raise refuse(
                "prompt",
                f"{len(self.prompt)} prompts with n={self.n} ask for more than {MOST_REPLIES} replies at once",
            )


class TextPart(Fields):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


def _read_content(value: Any) -> str:
    """Join the text parts of a message's content."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError("content", "it must be a text or a list of text parts")
    texts = []
    for at, part in enumerate(value):
        try:
            texts.append(TextPart.model_validate(part).text)
        except pydantic.ValidationError as error:
            said = {"at": at, "what": explain(error).what}
            raise PydanticCustomError("content", "part {at}: {what}", said) from None
    return "".join(texts)


class Message(Fields):
    """A chat message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_read_content)]
    name: str | None = None
    annotations: list[Any] | None = None
    """What clients send back unchanged from an earlier reply."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _say_nothing(cls, fields: Any) -> Any:
        """A turn of the assistant may have no content."""
        if isinstance(fields, dict) and fields.get("role") == "assistant" and fields.get("content") is None:
            return {**fields, "content": ""}
        return fields

    def plain(self) -> dict[str, str]:
        """Return role and text; a developer's message is a system message."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], FailFast()] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def limit(self) -> int | None:
        """Most tokens of the reply; None for as many as fit."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many most probable tokens to report at each place; None for no log-probabilities.

        Raises:
            DataError: ``top_logprobs`` without ``logprobs``.
        """
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("top_logprobs", "top_logprobs needs logprobs to be true")
        return (self.top_logprobs or 0) if self.logprobs else None


def refuse(param: str, what: str) -> DataError:
    """Make the error for a field that cannot be honoured."""
    return DataError(what, where=param)


def explain(error: pydantic.ValidationError) -> DataError:
    """Turn a failed check of a request's fields into one error that names the first of them."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:]
    place = place or "the request"
    if first["type"] == "extra_forbidden":
        accepted = " or ".join(json.dumps(value) for value in OFF.get(str(first["loc"][-1]), ()))
        but = f", other than {accepted}" if accepted else ""
        return refuse(name, f"{place} is not supported by this server{but}")
    if first["type"] == "missing":
        return refuse(name, f"{place} is missing")
    found = f" (found {first['input']!r:.100})" if isinstance(first["input"], str | int | float) else ""
    what = "it must be a JSON object" if first["type"] in ("model_type", "dict_type") else first["msg"]
    return refuse(name, f"{place} is not valid: {what}{found}")


def parse_request(text: bytes, wanted: type[AnyFields]) -> AnyFields:
    """Read a request's JSON body.

    Raises:
        DataError: It is not a JSON object, or not of the wanted fields.
    """
    try:
        body = parse_json(text)
    except Malformed as error:
        raise refuse("body", f"the request is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise refuse("body", "the request must be a JSON object")
    try:
        return wanted.model_validate(body)
    except pydantic.ValidationError as error:
        raise explain(error) from None
