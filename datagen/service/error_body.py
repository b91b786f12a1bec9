"""What a service says about a failure, collected from an error body of any shape.

``{"error": {"message", "type", "code", "param"}}`` is OpenAI's; others put the same at the top, into a list, into
``detail``, ``details`` or ``metadata``, or as JSON within a text. Of all of it only what the service says itself is
taken: a prompt that it quotes back must not be read as its words.
"""

import contextlib
import dataclasses
import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

from datagen.service.limits import read_wait

_CODE_KEYS = frozenset({
    "code", "type", "status", "reason", "errorcode", "errortype", "errcode", "statuscode", "providercode", "quotaid",
    "blockreason",
})  # fmt: skip
_WORD_KEYS = frozenset({
    "message", "msg", "error", "detail", "errormsg", "errormessage", "statusmsg", "description", "title", "raw",
    "userprovidedmessage",
})  # fmt: skip
_FIELD_KEYS = frozenset({"param", "parameter", "field", "loc"})
# Keys that only an answer about moderation has; Azure marks with "filtered": true what was withheld.
_MODERATION = re.compile(r"flagged|moderation|blockreason|contentfilterresult$|^reasons$")
_WAIT_KEY = re.compile(
    r"(?:retry(?:after|delay|in)|(?:resets?|wait)(?:after|in)?|backoff)(?P<unit>ms|milliseconds|s|sec|secs|seconds)?$"
    r"|(?:resets?at|(?:x?ratelimit)reset(?:requests|tokens)?)$"
)
_DEPTH, _PARTS, _CODE_LENGTH, _LONGEST_WORDS = 8, 300, 100, 3000
_QUOTED = re.compile(r"""(?<!\w)(["'`“«])(?:(?!\1)[^"'`“”«»\n]){60,}(?:["'`”»]|$)""")
_IDENTIFIER = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b|\b(?:[A-Z]+[a-z]+){2,}\b")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")
#: A status that a body names, where the HTTP status does not say it.
_STATUS_BY_NAME = (
    (429, r"resource_exhausted|rate_?limit|too_many_requests|throttl"),
    (529, r"overloaded"),
    (503, r"\bunavailable\b|service_unavailable"),
    (401, r"unauthenticated|authentication"),
    (403, r"permission"),
    (404, r"not_found"),
    (400, r"invalid_(?:argument|request)|bad_request|failed_precondition"),
    (504, r"deadline_exceeded|timeout"),
    (500, r"server_error|api_error|internal"),
)


@dataclasses.dataclass(frozen=True)
class Said:
    """What an error says.

    Attributes:
        status: The HTTP status, or the one that the body names; 0 where neither says one.
        codes: Every code, type, status and reason, in snake_case, with a blank between them.
        words: Its sentences.
        fields: Names of fields of the request that it gives as such.
        wait_s: The wait that the body asks for, in seconds.
        moderated: It holds what only a finding of a moderation holds.
    """

    status: int
    codes: str = ""
    words: str = ""
    fields: tuple[str, ...] = ()
    wait_s: float | None = None
    moderated: bool = False

    @property
    def all_codes(self) -> str:
        """The codes, and the identifiers among the words: gateways write an upstream's code into their sentence."""
        return " ".join([self.codes, *(_snake(name) for name in _IDENTIFIER.findall(self.own_words))])

    @property
    def own_words(self) -> str:
        """The words without long quotations, which may be of the prompt."""
        return _QUOTED.sub(" ", self.words)


def read_error(status: int, body: Any, now: datetime.datetime | None = None) -> Said:
    """Collect what an error body says.

    Args:
        status: Of the HTTP reply; 0 or 200 where only the body speaks of an error.
        body: The text of the body, or what its JSON holds.
        now: The present time, for waits that are given as a moment.

    Example:
        >>> said = read_error(200, {"error": {"code": "429", "message": "Slow down.", "retryDelay": "1.5s"}})
        >>> said.status, said.words, said.wait_s
        (429, 'Slow down.', 1.5)
    """
    now = now or datetime.datetime.now(datetime.UTC)
    found = _Found(now)
    found.take("", body, 0)
    codes = " ".join(dict.fromkeys(found.codes))
    words = "; ".join(dict.fromkeys(found.words))[:_LONGEST_WORDS]
    wait_s = max(found.waits, default=None)
    if wait_s is None:
        wait_s = wait_in_words(words, now)
    if status in (0, 200):
        status = _status_of(found.codes, codes)
    return Said(status, codes, words, tuple(dict.fromkeys(found.fields)), wait_s, found.moderated)


def _status_of(each: list[str], codes: str) -> int:
    numbers = [int(code) for code in each if re.fullmatch(r"[45]\d\d", code)]
    if numbers:
        return numbers[0]
    return next((status for status, pattern in _STATUS_BY_NAME if re.search(pattern, codes)), 0)


class _Found:
    """Walks through an error body once."""

    def __init__(self, now: datetime.datetime) -> None:
        self._now = now
        self._left = _PARTS
        self.codes: list[str] = []
        self.words: list[str] = []
        self.fields: list[str] = []
        self.waits: list[float] = []
        self.moderated = False

    def take(self, key: str, value: Any, depth: int) -> None:
        """Look at a value under its key, and into it."""
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            return
        if isinstance(value, str) and (not key or key in _WORD_KEYS):
            before, held = _json_within(value)
            self.words += [before] if before else []
            if held is not None:
                self.take(key, held, depth + 1)
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                self._take_pair("".join(c for c in str(name).lower() if c.isalnum()), inner, depth)
        elif isinstance(value, list) and key in _FIELD_KEYS:
            self.fields += [str(part) for part in value]
        elif isinstance(value, list):
            for inner in value:
                self.take(key, inner, depth + 1)

    def _take_pair(self, key: str, value: Any, depth: int) -> None:
        self.moderated |= bool(value) and bool(
            _MODERATION.search(key) or (key == "filtered" and value is True)
        )
        wait = _WAIT_KEY.fullmatch(key)
        if wait and (wait_s := self._wait(value, wait["unit"] or "")) is not None:
            self.waits.append(wait_s)
        if key in _CODE_KEYS and isinstance(value, str | int) and not isinstance(value, bool):
            self.codes.append(_snake(str(value)[:_CODE_LENGTH]))
        elif key in _FIELD_KEYS and isinstance(value, str):
            self.fields.append(value)
        else:
            self.take(key, value, depth + 1)

    def _wait(self, value: Any, unit: str) -> float | None:
        if isinstance(value, dict):
            value = value.get("seconds")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        wait_s = read_wait(str(value), self._now)
        return wait_s / 1000 if wait_s is not None and unit.startswith("m") else wait_s


def _json_within(text: str) -> tuple[str, Any]:
    """Split a text into its words and the JSON at its end; None where there is none."""
    text = text.strip()
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if starts and text.endswith(("}", "]")):
        for start in sorted(starts):
            with contextlib.suppress(ValueError, RecursionError):
                held = json.loads(text[start:])
                if isinstance(held, dict | list):
                    return text[:start].strip(" :"), held
    return text, None


def _snake(code: str) -> str:
    return "_".join(part.lower() for part in _CAMEL.split(code) if part)


# Units by how they begin, the longer beginnings first: English, German, French, Spanish, Italian, Portuguese, Chinese.
_UNITS = (
    ("ms", 1e-3), ("milli", 1e-3), ("毫秒", 1e-3), ("stund", 3600.0), ("std", 3600.0), ("s", 1.0), ("秒", 1.0),
    ("min", 60.0), ("m", 60.0), ("分", 60.0), ("h", 3600.0), ("o", 3600.0), ("小时", 3600.0), ("时", 3600.0),
    ("d", 86400.0), ("t", 86400.0), ("j", 86400.0), ("g", 86400.0), ("天", 86400.0),
)  # fmt: skip
_UNIT = (
    r"(?:ms|millisec\w*|millis\b|milliseconds?|stunden?|std|s|secs?|seconds?|sekunden?|segundos?|secondes?|secondi|m|mins?"
    r"|minutes?|minuten?|minutos?|minuti|h|hrs?|hours?|heures?|horas?|ore|ora|d|days?|tage?n?|jours?|d[ií]as?|giorni)"
    r"(?![^\W\d_])|毫秒|秒|分|小时|时|天"
)
_DURATION = re.compile(
    rf"(?<![\w.])(?:(\d+(?:[.,]\d+)?)\s*({_UNIT})[\s钟]*(?:and\s+|und\s+|,\s*)?)+", re.IGNORECASE
)
_DURATION_PART = re.compile(rf"(\d+(?:[.,]\d+)?)\s*({_UNIT})", re.IGNORECASE)
_LATER = re.compile(
    r"again|retry|retri|wait|later|reset|available|erneut|versuch|wart|essay|attend|int[eé]nt|espera|tente|aguard|riprov"
    r"|重试|稍后|等待|再试",
    re.IGNORECASE,
)
_A_RATE = re.compile(r"(?:\b(?:per|every|each|pro|par|por|a|/)|/|每)\s*$", re.IGNORECASE)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
# "Retry-After: 30"
_BARE_SECONDS = re.compile(
    r"(?:retry|again|wait)[ -](?:after|in|for)\W{1,3}(\d+(?:\.\d+)?)(?![\w.])(?!\s*\w)", re.IGNORECASE
)


def wait_in_words(words: str, now: datetime.datetime | None = None) -> float | None:
    """Return the wait that a sentence asks for, in seconds; None where it names none.

    Example:
        >>> said = "60 requests per 60 seconds. Please try again in 1m3.5s.", "Retry in 20 ms", "Try later"
        >>> [wait_in_words(words) for words in said]
        [63.5, 0.02, None]
    """
    later = _LATER.search(words)
    if later is None:
        return None
    waits = list(_waits(words, now or datetime.datetime.now(datetime.UTC)))
    behind = [wait_s for place, wait_s in waits if place > later.start()]
    if behind:
        return behind[0]
    return waits[-1][1] if waits else None


def _waits(words: str, now: datetime.datetime) -> Iterator[tuple[int, float]]:
    for match in _MOMENT.finditer(words):
        if (ahead_s := read_wait(match.group().replace(" ", "T"), now)) is not None:
            yield match.start(), ahead_s
    for match in _BARE_SECONDS.finditer(words):
        yield match.start(1), float(match[1])
    for match in _DURATION.finditer(words):
        if not _A_RATE.search(words[: match.start()]):
            yield (
                match.start(),
                sum(
                    float(amount.replace(",", ".")) * _seconds(unit)
                    for amount, unit in _DURATION_PART.findall(match.group())
                ),
            )


def _seconds(unit: str) -> float:
    return next(seconds for beginning, seconds in _UNITS if unit.lower().startswith(beginning))
