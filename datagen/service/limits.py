"""Rate limits in HTTP headers: Retry-After and ``x-ratelimit-*``, in every format in use.

Providers write waits as seconds, as milliseconds (``retry-after-ms``), as HTTP dates, as ``6m0s`` and as Unix
times. Values that cannot be parsed are ignored.
"""

import dataclasses
import datetime
import email.utils
import functools
import math
import re
from collections.abc import Iterator, Mapping

from datagen.providers import pattern, table

#: Longer waits (three centuries) are cut to this.
_ENDLESS_S = 1e10
#: A plain number beyond this (three years) is a moment in Unix time, unless that moment is long past: then it is a
#: number of seconds to wait, however absurd.
_LONGEST_WAIT_S = 1e8
_LONG_PAST_S = 86400.0


@dataclasses.dataclass(frozen=True)
class Allowance:
    """One rate limit; a value that the headers do not give is None.

    Attributes:
        limit: Requests or tokens allowed in the provider's window.
        remaining: How many of them are left.
        reset_s: Seconds until the limit resets.
    """

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """The rate limits in one response's headers: the requested wait in seconds, and both allowances."""

    wait_s: float | None = None
    requests: Allowance = Allowance()
    tokens: Allowance = Allowance()

    @property
    def said(self) -> bool:
        """Whether the headers give any limit or remaining allowance."""
        return any(
            each.limit is not None or each.remaining is not None for each in (self.requests, self.tokens)
        )

    def exhausted(self, tokens: float) -> bool | None:
        """Return whether the remaining allowances are too small for a request of so many tokens; None if unknown."""
        left = [each.remaining for each in (self.requests, self.tokens)]
        if left[0] is None and left[1] is None:
            return None
        return (left[0] is not None and left[0] < 1) or (left[1] is not None and left[1] < max(tokens, 1))

    @property
    def reset_s(self) -> float | None:
        """The longest reset among the allowances that are used up, in seconds."""
        resets = [
            each.reset_s
            for each in (self.requests, self.tokens)
            if each.reset_s is not None and each.remaining is not None and each.remaining < 1
        ]
        return max(resets, default=None)


def read_limits(headers: Mapping[str, str], now: datetime.datetime | None = None) -> Limits:
    """Read the headers of one reply.

    Args:
        headers: Names in lower case, or a mapping that does not mind.
        now: The present time, for waits that are given as a date.

    Example:
        >>> limits = read_limits({"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "1m2.5s"})
        >>> limits.requests
        Allowance(limit=60.0, remaining=None, reset_s=62.5)
    """
    now = now or datetime.datetime.now(datetime.UTC)
    return Limits(
        _retry_after_s(headers, now), _allowance(headers, "requests", now), _allowance(headers, "tokens", now)
    )


def _allowance(headers: Mapping[str, str], kind: str, now: datetime.datetime) -> Allowance:
    limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
    return Allowance(
        limit=limit if limit else None,
        remaining=_number(headers.get(f"x-ratelimit-remaining-{kind}")),
        reset_s=read_wait(headers.get(f"x-ratelimit-reset-{kind}"), now),
    )


def _retry_after_s(headers: Mapping[str, str], now: datetime.datetime) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    return read_wait(headers.get("retry-after"), now)


def read_wait(text: str | None, now: datetime.datetime) -> float | None:
    """Read a wait in any of the forms in use; in seconds, None where it makes no sense.

    Example:
        >>> noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
        >>> [read_wait(text, noon) for text in ("1.5", "6m0s", "20ms", "Thu, 01 Jan 2026 12:01:00 GMT", "soon")]
        [1.5, 360.0, 0.02, 60.0, None]
    """
    if text is None:
        return None
    text = text.strip()
    seconds = _number(text)
    if seconds is not None:
        if seconds <= _LONGEST_WAIT_S:
            return seconds
        moment = seconds / 1000 if seconds > 1e11 else seconds
        ahead = moment - now.timestamp()
        return seconds if ahead < -_LONG_PAST_S else max(0.0, ahead)
    if _durations().fullmatch(text):
        return _seconds_of(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        try:
            date = datetime.datetime.fromisoformat(text)
        except ValueError:
            return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - now).total_seconds())


def _number(text: str | None) -> float | None:
    """Read a number that is neither negative nor endless."""
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return number if number >= 0 and math.isfinite(number) else None


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
# "Retry-After: 30"
_BARE_SECONDS = re.compile(
    r"(?:retry|again|wait)[ -](?:after|in|for)\W{1,3}(\d+(?:\.\d+)?)(?![\w.])(?!\s*\w)", re.IGNORECASE
)


def wait_in_words(words: str) -> float | None:
    """Return the wait that a sentence asks for, in seconds; None where it names none.

    Example:
        >>> said = "60 requests per 60 seconds. Please try again in 1m3.5s.", "Retry in 20 ms", "Try later"
        >>> [wait_in_words(words) for words in said]
        [63.5, 0.02, None]
    """
    later = pattern("waits", "later").search(words)
    if later is None:
        return None
    waits = list(_waits(words))
    behind = [wait_s for place, wait_s in waits if place > later.start()]
    return behind[0] if behind else waits[-1][1] if waits else None


def _waits(words: str) -> Iterator[tuple[int, float]]:
    """Yield every moment and duration that a sentence names, with its place."""
    now = datetime.datetime.now(datetime.UTC)
    for match in _MOMENT.finditer(words):
        if (ahead_s := read_wait(match.group().replace(" ", "T"), now)) is not None:
            yield match.start(), ahead_s
    for match in _BARE_SECONDS.finditer(words):
        yield match.start(1), float(match[1])
    for match in _durations().finditer(words):
        if not pattern("waits", "a rate").search(words[: match.start()]):
            yield match.start(), _seconds_of(match.group())


@functools.cache
def _amount() -> str:
    """Return a pattern of a number and its unit."""
    units = "|".join(table()["waits"]["units"].values())
    # A unit of letters ends where its word ends, but for Chinese.
    return rf"(\d+(?:[.,]\d+)?)\s*((?:{units})(?:(?![^\W\d_])|(?<=[毫秒分时天])))"


@functools.cache
def _durations() -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.])(?:{_amount()}[\s钟]*(?:and\s+|und\s+|,\s*)?)+", re.IGNORECASE)


def _seconds_of(text: str) -> float:
    """Add the amounts of a text up, in seconds."""
    units = table()["waits"]["units"]
    return sum(
        float(amount.replace(",", "."))
        * next(seconds for seconds, names in units.items() if re.fullmatch(names, unit, re.IGNORECASE))
        for amount, unit in re.findall(_amount(), text, re.IGNORECASE)
    )


def utc_in(seconds: float) -> str:
    """Return the moment after so many seconds from now, UTC, as ISO 8601 to the second."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=min(seconds, _ENDLESS_S))
    return until.isoformat(timespec="seconds")


def in_words(seconds: float) -> str:
    """Format a duration for people.

    Example:
        >>> [in_words(seconds) for seconds in (0.42, 75, 5400, 86400 * 2)]
        ['0.4 s', '1 min 15 s', '1 h 30 min', '2 d 0 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(min(seconds, _ENDLESS_S))
    for big, small, unit, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= big:
            return f"{whole // big} {unit} {whole % big // small} {part}"
    raise AssertionError("unreachable")
