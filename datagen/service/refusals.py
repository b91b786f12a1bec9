"""Classifies errors of single requests and batches by the first matching rule of ``providers.yaml``."""

import dataclasses
import functools
import re
from typing import Any, Literal

from datagen.money.account import Bill
from datagen.providers import table, wording
from datagen.service.error_body import ErrorBody

#: Rate limit; transient error; this request never works; no request works.
Kind = Literal["refusal", "fault", "final", "fatal"]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The class of an error.

    Attributes:
        code: Short and stable: "quota", "content-filter", "unauthorized", "region", "not-found", "bad-request",
            "rate-limited" or "server-error".
        kind: Whether it concerns the request or all requests, and whether a retry may help.
        what: The headline of the error that ends the run: for a fatal error, or a rejected field of all requests.
        field: The request field that the service rejects, if the error names one.
        busy: The service seems overloaded.
        bill: Whether the try is free ("none") or its bill is "unknown".
        daily: A daily, weekly or monthly quota is used up; retrying within seconds does not help.
    """

    code: str
    kind: Kind
    what: str = ""
    field: str = ""
    busy: bool = False
    bill: Bill = "none"
    daily: bool = False


def read_refusal(said: ErrorBody, *, asked_to_wait: bool = False) -> Refusal | None:
    """Classify an error; None if no rule matches.

    Args:
        said: The error body, read by :func:`datagen.service.error_body.read_error`.
        asked_to_wait: Whether its headers name a wait.

    Example:
        >>> from datagen.service.error_body import read_error
        >>> body = {"error": {"message": "Your credit balance is too low.", "type": "invalid_request_error"}}
        >>> read_refusal(read_error(400, body)).code
        'quota'
    """
    waits = asked_to_wait or said.wait_s is not None
    rule = next((each for each in table()["rules"] if _fits(each, said, waits)), None)
    return None if rule is None else meaning(rule["means"], said, **rule)


def meaning(code: str, said: ErrorBody, **rule: Any) -> Refusal:
    """Return the class of a code, with the values that the matching rule adds."""
    known = {**table()["meanings"][code], **rule}
    values = {name: known[name] for name in ("kind", "what", "field", "busy", "bill") if name in known}
    if rule.get("names_field"):
        values["field"] = _field_at_fault(said)
        values["what"] = values["what"].format(field=values["field"])
    daily = any(wording("daily").search(text) for text in (said.all_codes, said.own_words))
    return Refusal(code, daily=values["kind"] == "refusal" and daily, **values)


def _fits(rule: dict[str, Any], said: ErrorBody, waits: bool) -> bool:
    """Return whether all conditions of a rule hold."""
    texts = {"codes": said.codes, "names": said.all_codes, "words": said.own_words}
    return (
        ("status" not in rule or said.status in _statuses(str(rule["status"])))
        and all(wording(rule[name]).search(text) for name, text in texts.items() if name in rule)
        and (waits or "waits" not in rule)
        and (said.moderated or "moderated" not in rule)
        and ("names_field" not in rule or bool(_field_at_fault(said)))
    )


@functools.cache
def _statuses(written: str) -> frozenset[int]:
    """Read statuses such as "0 400 500-599"."""
    ends = [each.partition("-") for each in written.split()]
    return frozenset(
        status for first, _, last in ends for status in range(int(first), int(last or first) + 1)
    )


def _field_at_fault(said: ErrorBody) -> str:
    """Return the request field that an error names as rejected; "" if it names none."""
    known = table()["request fields"].split()
    objects = wording("parameter code").search(said.codes) or wording("not taken").search(said.own_words)
    for field in (part.strip("'\"`$").rpartition(".")[2] for part in said.fields):
        if field in known and (objects or field != "stop"):
            return field
    if not objects:
        return ""
    words = said.own_words.replace("response format", "response_format").replace(
        "json_schema", "response_format"
    )
    found = [(match.start(), field) for field in known if (match := re.search(_as_field(field), words))]
    return min(found)[1] if found else ""


def _as_field(word: str) -> str:
    """Return a pattern that finds a field; a word of the language, such as "stop", only where it names one."""
    if "_" in word:
        return rf"(?<!\w){word}(?!\w)"
    return (
        rf"['\"`]{word}['\"`]|\b{word}:"
        rf"|(?:parameters?|arguments?|fields?|supports?|value of|this model|invalid|unsupported)\W{{1,3}}{word}\b"
        rf"|(?<!body )\b{word}\b\W{{1,3}}(?:is|must|should|does|may|can|value|param\w*|field|参数)"
    )
