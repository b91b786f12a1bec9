"""What the HTTP server understands: OpenAI's completion and chat requests, checked field by field.

A field that this server does not know, or knows and cannot honour, is refused: a client that asks for something
must never get an answer that silently lacks it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from alpacare_jax.errors import DataError
from alpacare_jax.generate.sampling import MAX_TOP_LOGPROBS, Sampling

MOST_CHOICES = 128
MOST_STOPS = 16


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class Request(BaseModel):
    """The fields that both kinds of request share. ``top_k`` and ``ignore_eos`` are additions to OpenAI's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    # Accepted because they change nothing in the reply.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    # Accepted only with the value that means "off".
    logit_bias: dict[str, float] | None = None

    def sampling(self, seed: int, max_tokens: int, logprobs: int | None) -> Sampling:
        """Return what the sampler is asked for.

        Raises:
            DataError: A value cannot be honoured.
        """
        if self.logit_bias:
            raise refuse("logit_bias", "logit_bias is not supported")
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > MOST_STOPS:
            raise refuse("stop", f"at most {MOST_STOPS} stop strings are supported")
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            stop=stops,
            seed=seed,
            logprobs=logprobs,
            ignore_eos=bool(self.ignore_eos),
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed reply is to end with its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Request):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    def check(self) -> None:
        """Refuse what cannot be honoured.

        Raises:
            DataError: Names the field.
        """
        if self.suffix:
            raise refuse("suffix", "suffix is not supported: this model writes forward only")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise refuse("best_of", "best_of is not supported, other than equal to n")
        if self.echo and self.stream:
            raise refuse("echo", "echo cannot be streamed")

    def prompts(self) -> list[str] | list[list[int]]:
        """Return the prompts as a list: texts, or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise refuse("prompt", "prompt is empty")
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A chat message."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    # What clients send back unchanged from an earlier reply; of no meaning to a model without tools.
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = Field(None, max_length=0)

    def plain(self) -> dict[str, str]:
        """Return role and text; a developer's message is a system message."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseFormat(BaseModel):
    """The format of the reply; text alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None

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
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = details[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    if first["type"] == "extra_forbidden":
        place = ".".join(str(part) for part in first["loc"])
        return refuse(name, f"{place} is not supported by this server")
    if first["type"] == "missing":
        return refuse(name, f"{'.'.join(str(part) for part in first['loc'])} is missing")
    reasons = sorted({item["msg"] for item in details if item["loc"][:1] == first["loc"][:1]})
    place = name if len(reasons) > 1 else ".".join(str(part) for part in first["loc"])
    return refuse(name, f"{place} is not valid: {'; '.join(reasons)}")


def error_body(
    message: str, *, param: str | None = None, code: str | None = None, kind: str = ""
) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {
        "error": {
            "message": message,
            "type": kind or "invalid_request_error",
            "param": param,
            "code": code,
        }
    }


def usage(prompt_tokens: int, generated: Sequence[Sequence[int]]) -> dict[str, int]:
    """Count tokens; every token drawn counts, the end token included."""
    completion = sum(len(tokens) for tokens in generated)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }
