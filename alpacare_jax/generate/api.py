"""The OpenAI-compatible HTTP server over one model.

Requests of any number of clients are answered together by one engine. The handlers live in the event loop,
the engine lives in its own thread (:mod:`alpacare_jax.generate.worker`).
"""

import asyncio
import bisect
import hmac
import json
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alpacare_jax.errors import DataError, ServiceError
from alpacare_jax.generate import refusals, replies
from alpacare_jax.generate.bodies import read_body
from alpacare_jax.generate.connections import Gate, Limits
from alpacare_jax.generate.generation import Generation
from alpacare_jax.generate.protocol import ChatRequest, CompletionRequest, refuse, usage
from alpacare_jax.generate.worker import Worker

COMPLETION_TOKENS = 16
"""Tokens of a completion whose request names no limit, as in OpenAI's API."""


LONGEST_TOKEN = 32
"""Characters of a token, when in doubt."""


class Api:
    """The server's routes.

    Args:
        worker: The engine's thread.
        name: The model's name, which requests must give.
        api_key: If set, requests must carry it as a bearer token.
        limits: What clients may take.
    """

    def __init__(
        self, worker: Worker, name: str, api_key: str | None = None, limits: Limits | None = None
    ) -> None:
        self.worker, self.name, self._api_key = worker, name, api_key
        self._limits = limits or Limits()
        self.engine, self.tokenizer = worker.engine, worker.engine.tokenizer
        # One pattern for all, because a request may hold a million messages; one that never matches where none is.
        spellings = map(re.escape, filter(None, self.tokenizer.special_texts))
        self._control_tokens = re.compile("|".join(spellings) or r"(?!)")
        self._created = int(time.time())

    def build(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        gate = Middleware(Gate, most=self._limits.requests)
        return Starlette(routes=routes, middleware=[gate], exception_handlers=refusals.HANDLERS)

    async def health(self, request: Request) -> Response:
        """Say whether the engine runs, and how much it has to do."""
        failed = self.worker.failure is not None
        body = {
            "status": "failed" if failed else "ok",
            "active": self.engine.active,
            "slots": self.engine.slots,
        }
        return JSONResponse(body, status_code=503 if failed else 200)

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._authorise(request)
        return JSONResponse({"object": "list", "data": [self._model_card()]})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        self._authorise(request)
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model_card())

    async def completions(self, request: Request) -> Response:
        """Answer ``POST /v1/completions``."""
        asked = await self._read(request, CompletionRequest)
        asked.check()
        texts: list[str | None] = []
        generations: list[Generation] = []
        seed = _seed(asked.seed)
        limit = COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens
        for prompt in asked.prompt:
            # In a thread of its own, so that a long text does not hold up the other clients.
            ids = await asyncio.to_thread(self._encode, prompt) if isinstance(prompt, str) else prompt
            for choice in range(asked.n):
                texts.append(prompt if isinstance(prompt, str) else None)
                sampling = asked.sampling(seed + choice, limit, asked.logprobs)
                generations.append(Generation(list(ids), sampling, continues=True, echo=asked.echo))
        self._check_prompts(generations, "prompt")
        prompt_tokens = sum(len(g.prompt) for g in generations[:: asked.n])
        head = self._head("cmpl", "text_completion")
        if asked.stream:
            chunks = self._stream_completion(
                generations, head, asked.stream_options.include_usage, prompt_tokens
            )
            return StreamingResponse(_with_errors(chunks), media_type="text/event-stream")
        if not await self._answer(request, generations):
            return Response(status_code=refusals.CLIENT_GONE)
        choices = [
            replies.completion_choice(index, generation, self.tokenizer, text)
            for index, (generation, text) in enumerate(zip(generations, texts, strict=True))
        ]
        counts = usage(prompt_tokens, [g.tokens for g in generations])
        return JSONResponse(head | {"choices": choices, "usage": counts})

    async def chat(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        asked = await self._read(request, ChatRequest)
        messages = [message.plain() for message in asked.messages]
        prompt = await asyncio.to_thread(self._encode_chat, messages)
        limit = self.engine.max_len if asked.limit is None else asked.limit
        seed, wanted = _seed(asked.seed), asked.wanted_logprobs
        generations = [
            Generation(list(prompt), asked.sampling(seed + choice, limit, wanted))
            for choice in range(asked.n)
        ]
        self._check_prompts(generations)
        if asked.stream:
            chunks = self._stream_chat(generations, asked.stream_options.include_usage)
            return StreamingResponse(_with_errors(chunks), media_type="text/event-stream")
        if not await self._answer(request, generations):
            return Response(status_code=refusals.CLIENT_GONE)
        choices = [
            replies.chat_choice(i, generation, self.tokenizer) for i, generation in enumerate(generations)
        ]
        counts = usage(len(prompt), [g.tokens for g in generations])
        return JSONResponse(self._head("chatcmpl", "chat.completion") | {"choices": choices, "usage": counts})

    # -- checking and encoding ------------------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[Any]) -> Any:
        self._authorise(request)
        asked = await read_body(request, kind, self._limits.body_bytes)
        self._check_model(asked.model)
        return asked

    def _authorise(self, request: Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise HTTPException(401, "the API key is missing or wrong")

    def _check_model(self, name: str) -> None:
        if name != self.name:
            raise HTTPException(404, f"there is no model {name[:100]!r} here; this server has {self.name!r}")

    def _encode(self, text: str) -> list[int]:
        self._check_length(text)
        return self.tokenizer.encode_prompt(text)

    def _encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        for at, message in enumerate(messages):
            if spelled := self._control_tokens.search(message["content"]):
                raise refuse("messages", f"messages[{at}].content spells the control token {spelled[0]!r}")
        try:
            text = self.tokenizer.render_chat(messages, add_generation_prompt=True)
        except DataError as error:
            raise refuse("messages", f"{error.what}: {error.found or error.remedy}") from None
        self._check_length(text)
        return self.tokenizer.encode(text)

    def _check_length(self, text: str) -> None:
        """Refuse a text that is far too long by its beginning: the tokens of 30 MB would take gigabytes."""
        beginning = text[: LONGEST_TOKEN * self.engine.max_len]
        if len(beginning) < len(text):
            tokens = len(self.tokenizer.encode(beginning))
            if (
                tokens > 2 * self.engine.max_len
            ):  # however its end is cut, the whole has no fewer than half of them
                raise DataError(
                    "the prompt is longer than the context",
                    found=f"more than {tokens} tokens",
                    expected=f"at most {self.engine.max_len - 1}",
                )

    def _check_prompts(self, generations: Sequence[Generation], where: str = "the prompt") -> None:
        for generation in generations:
            self.engine.check(generation.prompt, generation.sampling, where)

    def _model_card(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "alpacare",
            "max_model_len": self.engine.max_len,
        }

    def _head(self, prefix: str, kind: str) -> dict[str, Any]:
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
        }

    # -- answering ------------------------------------------------------------------------------------------

    def _submit(self, generations: Sequence[Generation]) -> "asyncio.Queue[tuple[int, str, str]]":
        """Hand requests to the engine; news come as (index, text so far, finish reason)."""
        loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str, str]]()

        def listen(index: int) -> Any:
            def tell(text: str, reason: str) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(news.put_nowait, (index, text, reason))

            return tell

        for index, generation in enumerate(generations):
            self.worker.submit(generation, listen(index))
        return news

    async def _news(self, generations: Sequence[Generation]) -> AsyncIterator[tuple[int, str, str]]:
        """Yield news until all requests have ended; give them up if the reader goes away."""
        news = self._submit(generations)
        running = set(range(len(generations)))
        try:
            while running:
                index, text, reason = await news.get()
                if reason == "error":
                    raise self.worker.reason()
                if reason:
                    running.discard(index)
                yield index, text, reason
        finally:
            for index in running:
                self.worker.cancel(generations[index])

    async def _answer(self, request: Request, generations: Sequence[Generation]) -> bool:
        """Wait for all requests; give them up and return False when the client has gone."""

        async def collect() -> None:
            news = self._news(generations)
            try:
                async for _ in news:
                    pass
            finally:
                await news.aclose()  # type: ignore[attr-defined]

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        collecting, watching = asyncio.create_task(collect()), asyncio.create_task(watch())
        try:
            await asyncio.wait({collecting, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                return False
            await collecting
            return True
        finally:
            for task in (collecting, watching):
                task.cancel()
            await asyncio.gather(collecting, watching, return_exceptions=True)

    async def _stream_chat(self, generations: Sequence[Generation], wants_usage: bool) -> AsyncIterator[str]:
        head = self._head("chatcmpl", "chat.completion.chunk")

        def chunk(index: int, delta: dict[str, Any], reason: str = "", logprobs: Any = None) -> str:
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason or None}
            return _event(head | {"choices": [choice]})

        for index in range(len(generations)):
            yield chunk(index, {"role": "assistant", "content": ""})
        async for index, piece, scored, reason in self._pieces(generations):
            logprobs = replies.chat_logprobs(generations[index], self.tokenizer, scored)
            if piece or (logprobs and logprobs["content"]):
                yield chunk(index, {"content": piece}, logprobs=logprobs)
            if reason:
                yield chunk(index, {}, reason)
        if wants_usage:
            counts = usage(len(generations[0].prompt), [g.tokens for g in generations])
            yield _event(head | {"choices": [], "usage": counts})
        yield "data: [DONE]\n\n"

    async def _stream_completion(
        self, generations: Sequence[Generation], head: dict[str, Any], wants_usage: bool, prompt_tokens: int
    ) -> AsyncIterator[str]:
        async for index, piece, scored, reason in self._pieces(generations):
            generation, logprobs = generations[index], None
            if generation.sampling.logprobs is not None:
                scores, offsets = generation.scores[scored], generation.offsets[scored]
                spelled = [replies.spell(self.tokenizer, score.token) for score in scores]
                logprobs = replies.completion_logprobs(self.tokenizer, scores, spelled, offsets)
            if piece or reason or (logprobs and logprobs["tokens"]):
                choice = {
                    "index": index,
                    "text": piece,
                    "logprobs": logprobs,
                    "finish_reason": reason or None,
                }
                yield _event(head | {"choices": [choice]})
        if wants_usage:
            counts = usage(prompt_tokens, [g.tokens for g in generations])
            yield _event(head | {"choices": [], "usage": counts})
        yield "data: [DONE]\n\n"

    async def _pieces(self, generations: Sequence[Generation]) -> AsyncIterator[tuple[int, str, slice, str]]:
        """Yield the new part of each reply as it comes: (index, text, which scores, finish reason).

        Scores come with their text: those of a text that is held back may yet be cut off with it.
        """
        shown, scored = [0] * len(generations), [0] * len(generations)
        news = self._news(generations)
        try:
            async for index, text, reason in news:
                piece, shown[index] = text[shown[index] :], len(text)
                offsets, since = generations[index].offsets, scored[index]
                scored[index] = len(offsets) if reason else bisect.bisect_left(offsets, len(text))
                yield index, piece, slice(since, scored[index]), reason
        finally:
            await news.aclose()  # type: ignore[attr-defined]


async def _with_errors(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Pass a stream on; if it breaks off, say so in its last event, since its status has been sent already."""
    try:
        async for chunk in chunks:
            yield chunk
    except ServiceError as error:
        yield _event(refusals.error_body(error.what, kind="server_error"))
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _seed(asked: int | None) -> int:
    return secrets.randbits(31) if asked is None else asked
