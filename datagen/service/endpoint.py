"""The settings of a service: address, model, key variable, retries and rate limits."""

import dataclasses
import ipaddress
import math
import os
import re
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from datagen.configuration import Range, check
from datagen.errors import ConfigError, ServiceError

#: What ends the path of one operation, which people copy in place of the API's; a lone ``/models`` is some API's own.
_OPERATION = re.compile(
    r"(?:/+(?:chat(?:/+completions)?|completions|responses|embeddings|messages)|(?<=[^/])/+models)?/*\Z",
    re.IGNORECASE,
)
#: Characters around an address that was copied from a file or a page.
_AROUND = " \t\r\n\"'`<>,;\u00a0\u200b\ufeff\u201c\u201d"
_SECRET_NAME = re.compile(r"key|token|secret|pass|auth|sig|code|cred", re.IGNORECASE)
_SECRET = re.compile(r"(?=\S*\d)(?=\S*[^\W\d_])\S{20,}")

_SECONDS, _COUNT = Range(0, math.inf, above=True), Range(1, math.inf)


@dataclasses.dataclass(frozen=True)
class Service:
    """The settings of a service.

    Attributes:
        base_url: Address of the API, such as ``http://127.0.0.1:8000/v1``; that of one of its operations
            (``.../v1/chat/completions``) also works. A query string is sent with each request.
        model: The model's name at the service.
        api_key_env: Environment variable that holds the key.
        timeout_s: Longest wait for one reply, in seconds.
        max_tries: Tries per request, the first one included.
        concurrency: Requests in flight at the same time.
        first_wait_s: Longest wait before the second try, in seconds; it doubles with each further try.
        requests_per_minute: Upper bound on requests a minute; None leaves it to the service's headers.
        tokens_per_minute: Upper bound on tokens a minute, in and out; None leaves it to the service's headers.
        patience_s: Longest pause that the service may ask for, in seconds; a longer one ends the run (or the
            request, if it concerns a single one) with the reason instead of waiting.
        heed_headers: Whether the limits in ``x-ratelimit-*`` headers count; Retry-After does in any case.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: Annotated[float, _SECONDS] = 120.0
    max_tries: Annotated[int, _COUNT] = 5
    concurrency: Annotated[int, _COUNT] = 8
    first_wait_s: Annotated[float, _SECONDS] = 1.0
    requests_per_minute: Annotated[int | None, _COUNT] = None
    tokens_per_minute: Annotated[int | None, _COUNT] = None
    patience_s: Annotated[float, _SECONDS] = 3600.0
    heed_headers: bool = True

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "base_url", _api_root(self.base_url))

    @property
    def address(self) -> str:
        """The base URL without its query string."""
        return self.base_url.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query parameters of the base URL, such as the version of Azure's API, which each request gets."""
        return dict(parse_qsl(urlsplit(self.base_url).query, keep_blank_values=True))

    def is_loopback(self) -> bool:
        """Return whether the service runs on this machine."""
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
            ServiceError: The variable is not named, not set or empty, and the service is on another machine; or its
                value cannot be sent as a key.
        """
        name = self.api_key_env
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ServiceError(
                "the key for the service cannot be sent",
                where=self.base_url,
                found=f"spaces, line breaks or characters beyond ASCII within environment variable {name}",
                remedy="copy the key alone into it, without quotation marks or anything around it",
            )
        if key:
            return key
        if self.is_loopback():
            return "none"
        found, remedy = (
            "no environment variable is named",
            "name the variable that holds it with `api_key_env`",
        )
        if name:
            found = f"environment variable {name} is {'empty' if name in os.environ else 'not set'}"
            remedy = f"export {name}=..., or name another variable with `api_key_env`"
        raise ServiceError(
            "no key for the service",
            where=self.base_url,
            found=found,
            remedy=f"{remedy}; a server that asks for none takes any word, such as none",
        )


def _api_root(text: str) -> str:
    """Return the address of an API from a user's input.

    Examples:
        >>> _api_root(' "https://api.example.org/v1/chat/completions/" ')
        'https://api.example.org/v1'
        >>> _api_root("https://example.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01")
        'https://example.openai.azure.com/openai/deployments/d?api-version=2024-06-01'
    """
    text = text.strip(_AROUND)
    parts = _split(text)
    if parts is None:
        bare = re.sub(r"^(?:[a-z]*(?:://?|//)|/+)", "", text, flags=re.IGNORECASE)
        near = "http" if re.match(r"localhost|127\.|0\.0\.0\.0|\[", bare) else "https"
        raise ConfigError(
            "the base URL is not an address",
            found=text or "nothing",
            expected="such as http://127.0.0.1:8000/v1",
            remedy=f"write {near}://{bare}" if _split(f"{near}://{bare}") else None,
        )
    behind = parse_qsl(parts.query, keep_blank_values=True)
    more = {
        "a user name or password": parts.username or parts.password,
        "a part behind #": parts.fragment,
        "what may be a key behind ?": any(
            _SECRET_NAME.search(name) or _SECRET.search(f"{name} {value}") for name, value in behind
        ),
    }
    if any(more.values()):
        raise ConfigError(
            "the base URL holds more than an address",
            where=parts.hostname,
            found=" and ".join(what for what, there in more.items() if there),
            remedy="put the key into an environment variable and name it with `api_key_env`",
        )
    return urlunsplit(parts._replace(path=_OPERATION.sub("", parts.path, count=1)))


def _split(text: str) -> SplitResult | None:
    """Return the parts of an address; None if it is not one or contains a placeholder."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if valid and not re.search(r"[\s<>{}$\\^`|]", text) else None
