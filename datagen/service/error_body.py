"""Collects codes, messages, field names and waits from error bodies of any shape.

``{"error": {"message", "type", "code", "param"}}`` is OpenAI's; others put the same at the top, into a list, into
``detail``, ``details`` or ``metadata``, or as JSON within a text; ``providers.yaml`` has the names under ``error
body``. Long quotations are left out: a prompt that the service quotes must not be read as its message.
"""

import contextlib
import dataclasses
import datetime
import functools
import html
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from datagen.providers import names, pattern, plain, table, words_of
from datagen.service.limits import read_wait, wait_in_words

_DEPTH, _PARTS, _CODE_LENGTH, _LONGEST_WORDS = 8, 300, 100, 3000
_QUOTED = re.compile(r"""(?<!\w)(["'`“«])(?:(?!\1)[^"'`“”«»\n]){60,}(?:["'`”»]|$)""")
_IDENTIFIER = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b|\b(?:[A-Z]+[a-z]+){2,}\b")
_PAGE = re.compile(r"\ufeff?\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]{0,1000}>([^<]{0,1000})</title", re.IGNORECASE)
#: The title of a page is searched within so many characters.
_LOOKED_THROUGH = 100_000


@dataclasses.dataclass(frozen=True)
class ErrorBody:
    """The content of an error body.

    Attributes:
        status: The HTTP status, or the one that the body names; 0 if neither is known.
        codes: All codes, types, statuses and reasons, in snake_case, separated by spaces.
        words: Its messages.
        fields: Request fields that it names.
        wait_s: The wait that the body asks for, in seconds.
        moderated: It contains a moderation result.
    """

    status: int
    codes: str = ""
    words: str = ""
    fields: tuple[str, ...] = ()
    wait_s: float | None = None
    moderated: bool = False

    @functools.cached_property
    def all_codes(self) -> str:
        """The codes, and the identifiers among the words: gateways write an upstream's code into their sentence."""
        return " ".join([self.codes, *(_snake(name) for name in _IDENTIFIER.findall(self.own_words))])

    @functools.cached_property
    def own_words(self) -> str:
        """The words without long quotations, which may be of the prompt."""
        return _QUOTED.sub(" ", self.words)


def read_error(status: int, body: Any) -> ErrorBody:
    """Read an error body.

    Args:
        status: The HTTP status; 0 or 200 if only the body reports an error.
        body: The text of the body, or its parsed JSON.

    Example:
        >>> said = read_error(200, {"error": {"code": "429", "message": "Slow down.", "retryDelay": "1.5s"}})
        >>> said.status, said.words, said.wait_s
        (429, 'Slow down.', 1.5)
    """
    codes: list[str] = []
    words: list[str] = []
    fields: list[str] = []
    waits: list[float] = []
    moderated = False
    for key, value in itertools.islice(_walk("", body), _PARTS):
        is_finding = pattern("error body", "moderated").search(key) or (key == "filtered" and value is True)
        moderated |= bool(value and is_finding)
        if (wait_s := _wait(key, value)) is not None:
            waits.append(wait_s)
        if (
            key in names("error body", "codes")
            and isinstance(value, str | int)
            and not isinstance(value, bool)
        ):
            codes.append(_snake(str(value)[:_CODE_LENGTH]))
        elif key in names("error body", "fields") and isinstance(value, str):
            fields.append(value)
        elif key in ("", *names("error body", "words")) and isinstance(value, str) and value:
            words.append(value)
    all_words = "; ".join(dict.fromkeys(words))[:_LONGEST_WORDS]
    if status in (0, 200):
        status = _status_of(codes)
    asked_s = max(waits) if waits else wait_in_words(all_words)
    return ErrorBody(
        status, " ".join(dict.fromkeys(codes)), all_words, tuple(dict.fromkeys(fields)), asked_s, moderated
    )


def _walk(key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a body, from the outside in, also those of JSON within its texts."""
    held = value
    if isinstance(value, str) and key in ("", *names("error body", "words")):
        value, held = _json_within(value)
    yield key, value
    if depth < _DEPTH and isinstance(held, dict):
        for name, inner in held.items():
            yield from _walk(plain(name), inner, depth + 1)
    elif depth < _DEPTH and isinstance(held, list):
        for inner in held:
            yield from _walk(key, inner, depth + 1)


def _json_within(text: str) -> tuple[str, Any]:
    """Split a text into a message and the JSON at its end, None without JSON."""
    text = text.strip()
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if text.endswith(("}", "]")):
        for start in sorted(starts):
            with contextlib.suppress(ValueError, RecursionError):
                return text[:start].strip(" :"), json.loads(text[start:])
    return text, None


def _wait(key: str, value: Any) -> float | None:
    found = pattern("error body", "waits").fullmatch(key)
    if isinstance(value, dict):
        value = value.get("seconds")
    if found is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    wait_s = read_wait(str(value), datetime.datetime.now(datetime.UTC))
    return wait_s / 1000 if wait_s is not None and (found["unit"] or "").startswith("m") else wait_s


def _status_of(codes: list[str]) -> int:
    """Return the HTTP status that the codes name, or 0."""
    numbers = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
    known = table()["error body"]["status"]
    return next(iter(numbers), 0) or next(
        (each for each in known if re.search(known[each], " ".join(codes))), 0
    )


def _snake(code: str) -> str:
    return "_".join(words_of(code))


def page_words(text: str) -> str | None:
    """Describe a body that is a web page, with its title if it has one; None for any other body.

    A page comes from a wrong base URL, a login page in between, or a proxy's error.

    Example:
        >>> page_words("<!DOCTYPE html><title> Please log&nbsp;in </title>...")
        'a web page (HTML) with the title "Please log in"'
        >>> page_words('{"error": "<html>"}') is None
        True
    """
    beginning = text[:_LOOKED_THROUGH]
    if not _PAGE.match(beginning):
        return None
    found = _TITLE.search(beginning)
    title = " ".join(html.unescape(found.group(1)).split()) if found else ""
    return f'a web page (HTML) with the title "{title}"' if title else "a web page (HTML) without a title"
