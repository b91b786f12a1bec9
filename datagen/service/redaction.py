"""Removes API keys from everything that is written: error messages, logs, ledgers, replies.

Providers echo keys: whole, truncated, with stars in the middle, percent-encoded, in headers, inside JSON. A
:class:`Redactor` removes all of these from a text; a :class:`LogRedactor` from the log lines of the HTTP libraries.
"""

import base64
import html
import logging
import re
from collections.abc import Iterator
from typing import Self
from urllib.parse import quote, unquote

HIDDEN = "[key]"
#: This many consecutive characters of the key do not occur by chance.
_PART = 8
_TRACE = 4
#: A shorter key is not redacted: it would match ordinary text.
_SHORTEST = 6
#: Placeholders for servers without keys; redacting these words would damage replies.
_PLACEHOLDERS = {"none", "null", "empty", "dummy", "test", "testing", "unused", "not-needed", "no-key-required",
                 "sk-no-key-required", "placeholder"}  # fmt: skip
_LOGGERS = (
    *("openai", "openai._base_client", "httpx", "httpx2"),
    *(
        f"{core}.{part}"
        for core in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy")
    ),
)


class Redactor:
    """Removes one key, whole or in part, from texts.

    Args:
        key: The key; a placeholder such as "none" is left alone.

    Example:
        >>> Redactor("abcdefgh12345678").redact("key abcdefgh12345678, again ...efgh12345678")
        'key [key], again ...[key]'
    """

    def __init__(self, key: str = "") -> None:
        self._key = key if len(key) >= _SHORTEST and key.lower() not in _PLACEHOLDERS else ""
        if not self._key:
            return
        forms = sorted(
            {key, quote(key, safe=""), key.encode().hex(), *_in_base64(key)}, key=len, reverse=True
        )
        parts = list(_windows(key)) if len(key) >= 2 * _PART else []
        # Eight characters in a row always hold one of these whole: most texts are done with after a quick look.
        pieces = [key[at : at + _TRACE] for at in range(0, len(key) - _TRACE + 1, _TRACE)] if parts else []
        self._traces = (*forms, *pieces)
        self._whole = re.compile("|".join(map(re.escape, [*forms, *parts])))
        self._letters = set(_windows("".join(each for each in key.lower() if each.isalnum())))
        # The beginning of the key, stars or dots, and perhaps its end.
        self._masked = re.compile(re.escape(key[:3]) + r"[\w-]*(?:\*+|•+|…|\.{3,})[\w*•….-]*")

    def redact(self, text: str) -> str:
        """Return a text without the key and without any eight characters in a row of it."""
        if not self._key or not any(trace in text for trace in self._traces):
            return text
        parts, at = [], 0
        while match := self._whole.search(text, at):
            end = match.end()
            # A piece of the key may extend beyond the eight matched characters.
            while end < len(text) and text[match.start() : end + 1] in self._key:
                end += 1
            parts += [text[at : match.start()], HIDDEN]
            at = end
        return "".join(parts) + text[at:]

    def redact_words(self, words: str) -> str:
        """Return a provider's message without the key, and without what looks like a masked or foreign key.

        Here the key is found in any case, spelt in entities or escapes, and with other characters between its letters.
        """
        if self._key:
            words = self.redact(self._masked.sub(HIDDEN, self._redact_spelt(words)))
        words = re.sub(r"(?i)\b(bearer\s+)[\w.~+/=*•…-]{6,}", rf"\1{HIDDEN}", words)
        return re.sub(r"\bsk-[\w*•….-]{4,}", HIDDEN, words)

    def _redact_spelt(self, words: str) -> str:
        """Hide the key where only its letters and digits are there, in order; entities and escapes are read first."""
        plain = words
        for _ in range(_SPELT_WITHIN_SPELT):
            plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), unquote(html.unescape(plain)))
        if plain != words and self._spans(plain):
            words = plain
        for start, end in reversed(self._spans(words)):
            words = words[:start] + HIDDEN + words[end:]
        return words

    def _spans(self, words: str) -> list[tuple[int, int]]:
        """Find eight or more consecutive letters and digits of the key, whatever characters are between them."""
        places = [place for place, each in enumerate(words) if each.isalnum()]
        letters = "".join(words[place].lower()[:1] for place in places)
        spans: list[tuple[int, int]] = []
        for at, part in enumerate(_windows(letters)):
            if part in self._letters:
                start, end = places[at], places[at + _PART - 1] + 1
                if spans and start < spans[-1][1]:
                    start = spans.pop()[0]
                spans.append((start, end))
        return spans


def _windows(text: str) -> Iterator[str]:
    """Yield every run of eight characters."""
    return (text[at : at + _PART] for at in range(len(text) - _PART + 1))


_SPELT_WITHIN_SPELT = 2
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


def _in_base64(key: str) -> set[str]:
    """Return the parts of a key's base64 that do not depend on the text around the key."""
    forms = {base64.b64encode(key.encode()).decode()}
    for before in range(3):
        data = b"\0" * before + key.encode()
        whole = base64.b64encode(data[: len(data) // 3 * 3]).decode()[-(-before * 4 // 3) :]
        forms |= {whole, whole.translate({ord("+"): "-", ord("/"): "_"})}
    return forms


class LogRedactor(logging.Filter):
    """Redacts the key in the log lines of the HTTP libraries; a context manager."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the key in a record; every record passes."""
        text = record.getMessage()
        hidden = self._redactor.redact_words(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True

    def __enter__(self) -> Self:
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)
