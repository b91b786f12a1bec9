"""The connection to one OpenAI-compatible service: sends one request once, and classifies the reply or the error.

Retries and the ledger are the business of :mod:`datagen.client`. Whatever a service sends back, a try ends with an
:class:`Answer` or a :class:`RequestError`; neither contains the API key.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from datagen.finish import read_finish
from datagen.money.account import Bill
from datagen.providers import names
from datagen.records import shorten
from datagen.service.content import UnreadableError, read_content
from datagen.service.endpoint import Service
from datagen.service.error_body import ErrorBody, page_words, read_error
from datagen.service.limits import Limits, read_limits
from datagen.service.redaction import LogRedactor, Redactor
from datagen.service.refusals import Kind, read_refusal
from datagen.service.usage import read_usage


@dataclasses.dataclass(frozen=True)
class Answer:
    """A usable reply and the rate limits in its headers; token counts are 0 if the service does not report them."""

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    limits: Limits = Limits()

    def row(self) -> dict[str, Any]:
        """Return the columns that the ledger keeps."""
        return {name: value for name, value in vars(self).items() if name != "limits"}


@dataclasses.dataclass(eq=False)
class RequestError(Exception):
    """A failed try.

    Attributes:
        code: Short and stable, for counting, such as "timeout".
        words: The provider's message, or a description of the failure, without the API key.
        kind: "refusal" (too much at once: later), "fault" (may pass), "final" (this request never works) or
            "fatal" (no request works).
        what: For a fatal error, the headline of the error that ends the run.
        field: The request field that the service rejects.
        daily: A quota of a day or longer is used up.
        paid: The service generated a reply and bills it, so the request is retried at most once.
        limits: The rate limits in the headers.
        busy: The service seems overloaded.
        bill: Whether the try is free ("none"), costs ``usage`` (tokens in and out; "counted") or is "unknown".
        page: The response is a web page, as from a proxy or a wrong address.
    """

    code: str
    words: str
    kind: Kind
    _: dataclasses.KW_ONLY
    what: str = ""
    field: str = ""
    daily: bool = False
    paid: bool = False
    limits: Limits = Limits()
    busy: bool = False
    bill: Bill = "none"
    usage: tuple[int, int] = (0, 0)
    page: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.words}" if self.words else self.code


class Wire:
    """A connection to one service, opened by the first request; an asynchronous context manager."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._client: Any = None
        self._redactor = Redactor()
        self._opening = asyncio.Lock()
        self._open = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()
        self._open.close()

    async def open(self) -> None:
        """Create the client in a thread, before the first request: a run that only reads needs no key and no library.

        Raises:
            ServiceError: There is no key.
        """
        async with self._opening:
            if self._client is None:
                key = self.service.api_key()
                self._redactor = Redactor(key)
                self._open.enter_context(LogRedactor(self._redactor))
                self._client = await asyncio.to_thread(_make_client, self.service, key)

    async def post(self, body: dict[str, Any]) -> Answer:
        """Send one request once.

        Raises:
            RequestError: No usable reply.
        """
        response = await self.send("POST", "chat/completions", body=body)
        return self._read(response.text, read_limits(response.headers))

    async def send(self, method: str, path: str, timeout_s: float | None = None, **content: Any) -> Any:
        """Send one HTTP request once and return the HTTP library's response, with its body.

        Raises:
            RequestError: There is no response, or its status is an error.
        """
        async with self.receiving(method, path, timeout_s, **content) as response:
            return response

    @contextlib.asynccontextmanager
    async def receiving(
        self,
        method: str,
        path: str,
        timeout_s: float | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        stream: bool = False,
        **content: Any,
    ) -> AsyncIterator[Any]:
        """Send an HTTP request once and give the response; what the libraries raise becomes a RequestError.

        Args:
            method: "GET" or "POST".
            path: Below the base URL.
            timeout_s: For the whole exchange, in seconds; None for the service's.
            params: What follows the ``?``.
            stream: Whether the body is left to be read.
            content: What the client's ``post`` sends: ``body`` (JSON), or ``files`` with it.
        """
        import openai

        await self.open()
        http = _http_library()
        timeout_s = timeout_s or self.service.timeout_s
        options: dict[str, Any] = {"timeout": timeout_s, "params": params or {}}
        if "files" in content:
            options["headers"] = {"Content-Type": "multipart/form-data"}
        ask = self._client.get if method == "GET" else self._client.post
        try:
            async with asyncio.timeout(timeout_s):
                response = await ask(path, cast_to=http.Response, options=options, stream=stream, **content)
                try:
                    yield response
                finally:
                    await response.aclose()
        except openai.APIStatusError as error:
            raise self._refusal(error.response) from None
        except (TimeoutError, openai.APITimeoutError, http.TimeoutException) as error:
            bill: Bill = "none" if isinstance(error.__cause__, http.ConnectTimeout) else "unknown"
            words = f"no reply within {timeout_s:g} s"
            raise RequestError("timeout", words, "fault", busy=True, bill=bill) from None
        except (openai.APIConnectionError, http.RequestError) as error:
            words = self.words(_reason_of(error))
            if isinstance(error.__cause__, http.ConnectError):
                raise RequestError("unreachable", words, "fault") from None
            raise RequestError("connection", words, "fault", bill="unknown") from None

    def _refusal(self, response: Any) -> RequestError:
        """Classify a response whose status is an error."""
        text = response.text
        page = page_words(text)
        said = read_error(response.status_code, text if page is None else "")
        words = page or said.words or text or response.reason_phrase
        error = self._judge(said, words, read_limits(response.headers))
        assert error is not None, "a status says what an error means"
        error.page = page is not None
        return error

    def _judge(self, said: ErrorBody, words: str, limits: Limits) -> RequestError | None:
        """Classify an error; None if no rule matches."""
        if said.wait_s is not None and said.wait_s > (limits.wait_s or 0.0):
            limits = dataclasses.replace(limits, wait_s=said.wait_s)
        meant = read_refusal(said, asked_to_wait=limits.wait_s is not None)
        if meant is None:
            return None
        words = self.words(f"HTTP {said.status}: {words}" if said.status else words)
        return RequestError(words=words, limits=limits, **vars(meant))

    def _read(self, text: str, limits: Limits) -> Answer:
        """Extract the reply from the HTTP body, which may have any form."""
        data: Any = None
        try:
            data = json.loads(text)
            choice = data["choices"][0]
            content = read_content(choice["message"])
        except UnreadableError as error:
            words = (
                f"the content cannot be read: {error}: {self.words(json.dumps(choice, ensure_ascii=False))}"
            )
            tokens = read_usage(data.get("usage"), 0)
            raise RequestError("bad-reply", words, "fault", bill="counted", usage=tokens, paid=True) from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._no_completion(data, text, limits) from None
        usage = data.get("usage") or data.get("usageMetadata")
        tokens = read_usage(usage, len(content.text) + content.thoughts)
        reason = "refusal" if content.refused else self._label(_finish_reason(choice))
        finish = read_finish(reason)
        if choice.get("error") and finish != "filtered":
            finish = "failed"
        settled: Any = {"limits": limits, "bill": "counted", "usage": tokens}
        if finish == "filtered" and not content.refused:
            raise RequestError("content-filter", "the service withheld its reply", "final", **settled)
        if finish == "failed":
            raise self._failed(choice, reason, settled)
        if finish == "whole" and content.thoughts and not content.text.strip():
            words = f"the reply has no text, only {content.thoughts:,} characters of reasoning"
            raise RequestError("no-text", words, "final", **settled)
        shown = _clean(self._redactor.redact(content.text))
        model = self._label(data.get("model")) or self.service.model
        return Answer(shown, reason, model, *tokens, limits)

    def _failed(self, choice: dict[str, Any], reason: str, settled: dict[str, Any]) -> RequestError:
        """Classify a reply that an error cut short; an error object beside it may give the reason."""
        words = f"the reply ended with finish_reason {reason!r}"
        if choice.get("error"):
            said = read_error(0, {"error": choice["error"]})
            if said.words:
                words += f": {self.words(said.words)}"
            meant = self._judge(said, words, settled["limits"])
            if meant is not None and (meant.kind == "fatal" or meant.code == "content-filter"):
                meant.bill, meant.usage = settled["bill"], settled["usage"]
                return meant
        return RequestError("interrupted", words, "fault", paid=True, **settled)

    def _no_completion(self, data: Any, text: str, limits: Limits) -> RequestError:
        """Classify a body with status 200 that is not a reply: some gateways put an error there."""
        if data is None and _is_stream(text):
            failed = [
                line[5:] for line in text.splitlines() if line.startswith("data:") and '"error"' in line
            ]
            said = read_error(0, failed[0] if failed else "")
            if failed and (error := self._judge(said, said.words, limits)) is not None:
                return error
            words = "an event stream, which was not asked for: the service only streams its replies"
            return RequestError("streams", words, "fault", limits=limits, bill="unknown", paid=True)
        paid = isinstance(data, dict) and any(data.get(key) for key in names("content", "work was done"))
        if isinstance(data, dict | list) and not (isinstance(data, dict) and data.get("choices")):
            said = read_error(0, data)
            error = self._judge(said, said.words, limits)
            if error is not None:
                error.bill = "unknown" if paid else error.bill
                return error
        # Serialized again, so that no escape sequence hides a key.
        shown = text if data is None else json.dumps(data, ensure_ascii=False)
        page = page_words(text) if data is None else None
        words = self.words(page) if page else f"not a chat completion: {self.words(shown)}"
        return RequestError(
            "bad-reply", words, "fault", limits=limits, bill="unknown", page=page is not None, paid=paid
        )

    def _label(self, value: object) -> str:
        """Return a short text from the service for the ledger, without the key."""
        return shorten(_clean(self._redactor.redact(str(value or ""))), 200)

    def words(self, words: str) -> str:
        """Remove the key from a provider's message, also where only a part of the key is shown, and shorten it."""
        return shorten(_clean(self._redactor.redact_words(words)), 300)


def _make_client(service: Service, key: str) -> Any:
    """Create the client; importing openai takes a while."""
    import openai

    local: dict[str, Any] = {}
    if service.is_loopback():
        # A proxy for outside traffic must not receive requests to this machine.
        local["trust_env"] = False
        if urlsplit(service.base_url).scheme == "http":
            # Loading the CA certificates takes longer than a request, and plain HTTP needs none.
            local["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = _http_library().Limits(max_connections=None)
    return openai.AsyncOpenAI(
        base_url=service.address,
        api_key=key,
        default_query=service.query,
        # Azure's own API, whose requests name its version, expects the key in this header.
        default_headers={"api-key": key} if "api-version" in service.query else {},
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            limits=limits, event_hooks={"response": [_check_charset]}, **local
        ),
    )


def _http_library() -> Any:
    """Return the HTTP library that openai is built on: httpx2, before openai 3 httpx."""
    import openai

    client: Any = openai.DefaultAsyncHttpxClient
    return sys.modules[client.__base__.__module__]


async def _check_charset(response: Any) -> None:
    """Decode the body as UTF-8 if its headers name a charset that cannot encode JSON."""
    try:
        usable = b"{}".decode(response.charset_encoding or "utf-8", "replace") == "{}"
    except (LookupError, UnicodeError):
        usable = False
    if not usable:
        response.encoding = "utf-8"


def _reason_of(error: BaseException) -> str:
    """Return the message of the innermost cause that has one."""
    cause = error.__cause__ or error.__context__
    return (_reason_of(cause) if cause else "") or str(error)


def _finish_reason(choice: dict[str, Any]) -> str:
    """Return a choice's finish reason, which some servers give as an object such as ``{"type": "stop"}``."""
    reason = choice.get("finish_reason")
    if isinstance(reason, dict):
        reason = reason.get("type") or reason.get("reason") or reason
    return "" if reason is None else str(reason)  # a list or a number stays one, and is no known reason


#: How an event stream begins: with an event's field, or with a comment that keeps the connection open.
_EVENTS = re.compile(r"\ufeff?\s*(?:data|event|id|retry)?:")


def _is_stream(text: str) -> bool:
    """Tell whether a body is a stream of events, or of JSON objects in a line each."""
    if _EVENTS.match(text):
        return True
    lines = text.strip().splitlines()
    return len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines[:2])


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON can spell and no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
