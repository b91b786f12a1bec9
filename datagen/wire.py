"""The wire to one OpenAI-compatible service: where it is, one try of one request, and what a failure means.

Nothing here repeats or remembers; :mod:`datagen.client` does. Whatever a service sends back, a try ends with
a reply or with a :class:`Trouble` that says how bad it is, and the key is in neither.
"""

import asyncio
import dataclasses
import datetime
import email.utils
import ipaddress
import json
import os
import re
import ssl
from typing import Any, Self
from urllib.parse import urlsplit

from datagen.errors import ConfigError, ServiceError
from datagen.records import shorten

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached"}


@dataclasses.dataclass(frozen=True)
class Service:
    """Where a model is asked.

    Attributes:
        base_url: Address of the API, such as ``http://127.0.0.1:8000/v1``.
        model: The model's name at the service.
        api_key_env: Environment variable that holds the key.
        timeout_s: Longest wait for one reply, in seconds.
        max_tries: Tries per request, the first one included.
        concurrency: Requests in flight at the same time.
        first_wait_s: Longest wait before the second try, in seconds; it doubles with each further try.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120
    max_tries: int = 5
    concurrency: int = 8
    first_wait_s: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "the base URL is not an address",
                found=self.base_url,
                expected="such as http://127.0.0.1:8000/v1",
            )
        if parts.username or parts.password:
            raise ConfigError(
                "the base URL holds a user name or password",
                where=parts.hostname,
                remedy="put the key into an environment variable and name it with --api-key-env",
            )
        for name in ("timeout_s", "max_tries", "concurrency", "first_wait_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0", found=getattr(self, name))

    def is_loopback(self) -> bool:
        """Tell whether the service runs on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    def api_key(self) -> str:
        """Return the key from the environment; "none" for a service on this machine that needs no key.

        Raises:
            ServiceError: The variable is not set and the service is elsewhere.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if key:
            return key
        if self.is_loopback():
            return "none"
        raise ServiceError(
            "no key for the service",
            where=self.base_url,
            found=f"environment variable {self.api_key_env} is not set",
            remedy=f"export {self.api_key_env}=..., or name another variable with --api-key-env",
        )


class Trouble(Exception):
    """One try that came to nothing: a code for counting, the provider's words, what may be done."""

    def __init__(
        self, code: str, words: str, *, again: bool = False, fatal: str = "", wait_s: float | None = None
    ) -> None:
        self.code, self.words, self.again, self.fatal, self.wait_s = code, words, again, fatal, wait_s
        super().__init__(f"{code}: {words}" if words else code)


class Wire:
    """A connection to one service, opened by the first request; an asynchronous context manager."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._client: Any = None
        self._key = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request once.

        Returns:
            The arguments of :meth:`Ledger.record_reply`.

        Raises:
            Trouble: No usable reply.
        """
        import openai

        client = self._connect()
        try:
            async with asyncio.timeout(self.service.timeout_s):
                raw = await client.chat.completions.with_raw_response.create(**body)
                text = raw.http_response.text
        except (TimeoutError, openai.APITimeoutError):
            raise Trouble("timeout", f"no reply within {self.service.timeout_s:g} s", again=True) from None
        except openai.APIConnectionError as error:
            raise self._broken_connection(error) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except UnicodeError as error:
            raise Trouble("bad-reply", f"the reply is not text: {error}", again=True) from None
        return self._read(text)

    def _broken_connection(self, error: Exception) -> Trouble:
        causes = []
        cause: BaseException | None = error
        while cause is not None:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        unreachable = any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in causes)
        words = next((str(cause) for cause in reversed(causes) if str(cause)), str(error))
        return Trouble("unreachable" if unreachable else "connection", self._hide(words), again=True)

    def _refusal(self, error: Any) -> Trouble:
        """Judge an HTTP error status."""
        status: int = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        words = self._hide(f"HTTP {status}: {body.get('message') or error.response.text or error.message}")
        if status in (401, 403):
            return Trouble("unauthorized", words, fatal="the service refused the key")
        if status == 404:
            return Trouble("not-found", words, fatal="the service does not know the model or the address")
        if code in _QUOTA_CODES:
            return Trouble("quota", words, fatal="the account has no credit left")
        wait_s = _retry_after_s(error.response.headers)
        if status == 429:
            return Trouble("rate-limited", words, again=True, wait_s=wait_s)
        if status >= 500 or status in (408, 409, 425):
            return Trouble("server-error", words, again=True, wait_s=wait_s)
        return Trouble("bad-request", words)

    def _read(self, text: str) -> dict[str, Any]:
        """Take the reply out of the HTTP body, trusting nothing about its form."""
        try:
            data = json.loads(text)
            choice = data["choices"][0]
            message = choice["message"]
            content = message.get("content") or ""
            if not isinstance(content, str):
                raise TypeError("content is not text")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Trouble("bad-reply", f"not a chat completion: {self._hide(text)}", again=True) from None
        finish_reason = _clean(str(choice.get("finish_reason") or ""))
        if finish_reason == "content_filter":
            raise Trouble("content-filter", "the service withheld its reply")
        usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        return {
            "text": _clean(content.replace(self._key, "[key]") if self._key not in ("", "none") else content),
            "finish_reason": finish_reason,
            "model": _clean(str(data.get("model") or self.service.model)),
            "prompt_tokens": _count(usage.get("prompt_tokens")),
            "completion_tokens": _count(usage.get("completion_tokens")),
        }

    def _connect(self) -> Any:
        """Make the HTTP client when the first request is really sent: a run that only reads needs no key."""
        if self._client is None:
            import openai

            self._key = self.service.api_key()
            local: dict[str, Any] = {}
            if self.service.is_loopback():
                # A proxy meant for the world must not swallow requests to this machine.
                local["trust_env"] = False
                if urlsplit(self.service.base_url).scheme == "http":
                    # Loading the world's certificates takes longer than a request that needs none.
                    local["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client = openai.AsyncOpenAI(
                base_url=self.service.base_url,
                api_key=self._key,
                timeout=self.service.timeout_s,
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(**local),
            )
        return self._client

    def _hide(self, words: str) -> str:
        """Take the key out of a provider's words, also where the provider shows only its beginning."""
        if self._key and self._key != "none":
            words = words.replace(self._key, "[key]")
        return shorten(_clean(re.sub(r"\bsk-[\w*.-]{4,}", "[key]", words)), 300)


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON can spell and no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _count(value: object) -> int:
    """Read a number of tokens; whatever is none counts as 0."""
    return value if isinstance(value, int) and value >= 0 else 0


def _retry_after_s(headers: Any) -> float | None:
    """Read Retry-After, in seconds or as a date; None where it is missing or makes no sense."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = (
                email.utils.parsedate_to_datetime(value) - datetime.datetime.now(datetime.UTC)
            ).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait_s) if wait_s == wait_s and wait_s != float("inf") else None
