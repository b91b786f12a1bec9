"""The OpenAI-compatible HTTP server over one model.

Requests of any number of clients are answered together by one engine. The handlers live in the event loop,
the engine lives in its own thread (:mod:`alpacare_jax.generate.worker`).
"""

import asyncio
import bisect
import contextlib
import functools
import hmac
import json
import re
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alpacare_jax.errors import DataError, ServiceError
from alpacare_jax.generate import protocol, refusals
from alpacare_jax.generate.connections import Gate, Limits
from alpacare_jax.generate.generation import Generation
from alpacare_jax.generate.protocol import ChatRequest, CompletionRequest, parse_request, refuse
from alpacare_jax.generate.replies import Chat, Completion
from alpacare_jax.generate.worker import Worker

AnyRequest = TypeVar("AnyRequest", bound=protocol.Request)

COMPLETION_TOKENS = 16
"""Tokens of a completion whose request names no limit, as in OpenAI's API."""
LONGEST_TOKEN = 32
"""Characters of a token, when in doubt."""
READ_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")
"""Accepted content types; curl and urllib send the last by default."""


class Api:
    """The server's routes.

    Args:
        worker: The engine's thread.
        name: The model's name, which requests must give.
        api_key: If set, requests must carry it as a bearer token.
        limits: Limits on what clients may use.
    """

    def __init__(
        self, worker: Worker, name: str, api_key: str | None = None, limits: Limits | None = None
    ) -> None:
        self.worker, self.name, self._api_key = worker, name, api_key
        self._limits = limits or Limits()
        self.engine, self.tokenizer = worker.engine, worker.engine.tokenizer
        # One pattern for all, because a request may hold a million messages; without control tokens it never matches.
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
        asked: CompletionRequest = await self._read(request, CompletionRequest)
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
        return await self._reply(request, asked, Completion(self.tokenizer, generations, texts))

    async def chat(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        asked: ChatRequest = await self._read(request, ChatRequest)
        messages = [message.plain() for message in asked.messages]
        prompt = await asyncio.to_thread(self._encode_chat, messages)
        limit = self.engine.max_len if asked.limit is None else asked.limit
        seed, wanted = _seed(asked.seed), asked.wanted_logprobs
        samplings = [asked.sampling(seed + choice, limit, wanted) for choice in range(asked.n)]
        generations = [Generation(list(prompt), sampling) for sampling in samplings]
        return await self._reply(request, asked, Chat(self.tokenizer, generations))

    # -- checking and encoding ------------------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[AnyRequest]) -> AnyRequest:
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
            if tokens > 2 * self.engine.max_len:  # wherever it is cut, the whole has at least half of them
                raise DataError(
                    "the prompt is longer than the context",
                    found=f"more than {tokens} tokens",
                    expected=f"at most {self.engine.max_len - 1}",
                )

    def _model_card(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "alpacare",
            "max_model_len": self.engine.max_len,
        }

    # -- answering ------------------------------------------------------------------------------------------

    async def _reply(self, request: Request, asked: AnyRequest, form: Completion | Chat) -> Response:
        """Run the requests on the engine, and reply in one body or as a stream."""
        for generation in form.generations:
            self.engine.check(generation.prompt, generation.sampling, form.prompt_field)
        kind = form.kind + form.chunk_suffix if asked.stream else form.kind
        head = {"id": f"{form.prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time())}
        head["model"] = self.name
        if asked.stream:
            stream = self._stream(form, head, asked.stream_options.include_usage, asked.n)
            return StreamingResponse(stream, media_type="text/event-stream")
        if not await self._answer(request, form.generations):
            return Response(status_code=refusals.CLIENT_GONE)
        choices = [form.whole(index) for index in range(len(form.generations))]
        return JSONResponse(head | {"choices": choices, "usage": _usage(form.generations, asked.n)})

    async def _stream(
        self, form: Completion | Chat, head: dict[str, Any], wants_usage: bool, n: int
    ) -> AsyncIterator[str]:
        """Yield each reply's new text as it comes; a failure is the last event, since the status has been sent.

        Log-probabilities come with their text: those of a text that is held back may yet be cut off with it.
        """
        for choice in form.first():
            yield _event(head | {"choices": [choice]})
        shown, scored = ([0] * len(form.generations) for _ in range(2))
        async with contextlib.aclosing(self._news(form.generations)) as news:
            try:
                async for index, text, reason in news:
                    offsets, piece = form.generations[index].offsets, text[shown[index] :]
                    until = len(offsets) if reason else bisect.bisect_left(offsets, len(text))
                    for choice in form.pieces(index, piece, slice(scored[index], until), reason or None):
                        yield _event(head | {"choices": [choice]})
                    shown[index], scored[index] = len(text), until
            except ServiceError as error:
                yield _event(refusals.error_body(error.what, kind="server_error"))
                return
        if wants_usage:
            yield _event(head | {"choices": [], "usage": _usage(form.generations, n)})
        yield "data: [DONE]\n\n"

    async def _news(self, generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, str, str]]:
        """Yield (index, text so far, finish reason) until all requests have ended; cancel the rest if closed early."""
        loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str, str]]()

        def tell(index: int, text: str, reason: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.put_nowait, (index, text, reason))

        running = set(range(len(generations)))
        try:
            for index, generation in enumerate(generations):
                self.worker.submit(generation, functools.partial(tell, index))
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
        """Wait for all requests; cancel them and return False when the client disconnects."""

        async def collect() -> None:
            async with contextlib.aclosing(self._news(generations)) as news:
                async for _ in news:
                    pass

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


async def read_body(request: Request, wanted: type[AnyRequest], most: int) -> AnyRequest:
    """Read a request's body, at most ``most`` bytes of it, whatever the request says of its length.

    Raises:
        HTTPException: The body is too large, or of another type.
        DataError: It is not a JSON object, or not of the wanted fields.
        ClientDisconnect: The client left before it was whole.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READ_AS_JSON and not kind.endswith("+json"):
        raise HTTPException(415, f"the content type {kind[:100]!r} is not supported; send application/json")
    body, too_large = bytearray(), HTTPException(413, f"the request is larger than {most:,} bytes")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise too_large
    # In a thread of its own, so that a large body does not hold up the other clients.
    return await asyncio.to_thread(parse_request, bytes(body), wanted)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _seed(asked: int | None) -> int:
    return secrets.randbits(31) if asked is None else asked


def _usage(generations: Sequence[Generation], n: int) -> dict[str, int]:
    """Count tokens: each prompt once, and every token drawn, the end token included."""
    prompts = sum(len(generation.prompt) for generation in generations[::n])
    drawn = sum(len(generation.tokens) for generation in generations)
    return {"prompt_tokens": prompts, "completion_tokens": drawn, "total_tokens": prompts + drawn}
