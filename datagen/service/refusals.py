"""What a refusal means, in one table for single requests and for batches.

What a service says in fields that are made for it (a code, a type, the findings of a moderation) counts before its
status, and its status before its sentences: those are read last, without what they quote. What no row knows stays what
its status says: a 4xx is a fault of this request alone.
"""

import dataclasses
import re
from typing import Literal

from datagen.money.account import Bill
from datagen.service import refusal_words as said_by
from datagen.service.error_body import Said

#: Too much at once; may pass; this request never works; no request works.
Kind = Literal["refusal", "fault", "final", "fatal"]

# A gateway lost patience with a server that may go on, and bill.
_GAVE_UP_WAITING = (408, 499, 504, 524)
#: 529 is what some providers answer when they are overloaded.
_BUSY = (503, 529)
_PASSING = (408, 409, 425, 499)
_BAD_INPUT = (0, 400, 422)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a refusal means.

    Attributes:
        code: Short and stable: "quota", "content-filter", "unauthorized", "region", "not-found", "bad-request",
            "rate-limited" or "server-error".
        kind: Whom it concerns, and whether it may pass.
        what: The sentence that the run ends with: for a fatal one, and for one of a field that all requests share.
        field: The field of the request that is not taken as it is, if that is what it says.
        busy: The service seems to have too much to do.
        bill: Whether the try costs nothing, or nobody knows.
        daily: A quota of a day, a week or a month is used up, which a wait of seconds does not bring back.
    """

    code: str
    kind: Kind
    what: str = ""
    field: str = ""
    busy: bool = False
    bill: Bill = "none"
    daily: bool = False


NO_CREDIT = Refusal("quota", "fatal", "the account has no credit left")
FILTERED = Refusal("content-filter", "final")
BAD_KEY = Refusal("unauthorized", "fatal", "the service refused the key")
REGION = Refusal("region", "fatal", "the service does not serve the place that the request comes from")
NO_MODEL = Refusal("not-found", "fatal", "the service does not know the model or the address")
BAD_REQUEST = Refusal("bad-request", "final")


#: Fields of a request that its own settings set.
FIELDS = ("max_completion_tokens", "max_tokens", "temperature", "top_p", "presence_penalty", "response_format", "seed",
          "stop", "frequency_penalty", "reasoning_effort", "top_k", "min_p", "enable_thinking",
          "thinking")  # fmt: skip


def read_refusal(said: Said, *, asked_to_wait: bool = False) -> Refusal | None:
    """Return what an error means; None where nothing in it is known and it has no status.

    Args:
        said: What the service says, from :func:`datagen.service.error_body.read_error`.
        asked_to_wait: Whether its headers name a wait.

    Example:
        >>> from datagen.service.error_body import read_error
        >>> body = {"error": {"message": "Your credit balance is too low.", "type": "invalid_request_error"}}
        >>> read_refusal(read_error(400, body)).code
        'quota'
    """
    status, codes, words = said.status, said.all_codes, said.own_words
    waits = asked_to_wait or said.wait_s is not None
    if said_by.CREDIT_CODE.search(codes) or status == 402:
        return NO_CREDIT
    if said.moderated or said_by.FILTER_CODE.search(codes):
        return FILTERED
    rate = bool(said_by.RATE_CODE.search(codes) or said_by.RATE.search(words))
    if rate and status in (0, 400, 403, 498):
        status = 429
    rate = status == 429 and (rate or waits)
    perhaps = said_by.PERHAPS_CREDIT.search(words) or (status != 429 and said_by.QUOTA.search(words))
    if said_by.CREDIT.search(words) or (perhaps and status in (0, 400, 401, 403, 412, 429) and not rate):
        return NO_CREDIT
    if status == 429 or (status in _BUSY and waits):
        daily = bool(said_by.DAILY.search(codes) or said_by.DAILY.search(words))
        return Refusal("rate-limited", "refusal", busy=True, daily=daily)
    if status == 500 and said_by.FILTER.search(words):
        return FILTERED
    if status >= 500 or status in _PASSING:
        bill: Bill = "unknown" if status in _GAVE_UP_WAITING else "none"
        return Refusal("server-error", "fault", busy=status in _BUSY, bill=bill)
    return _read_client_error(said, words)


def _read_client_error(said: Said, words: str) -> Refusal | None:
    """Judge what is neither about money nor about load."""
    status, codes = said.status, said.codes
    if said_by.REGION_CODE.search(codes) or said_by.REGION.search(words):
        return REGION
    if said_by.MODEL_CODE.search(codes):
        return NO_MODEL
    if status == 401 or said_by.KEY_CODE.search(codes) or said_by.ACCOUNT.search(words):
        return BAD_KEY
    if status in _BAD_INPUT:
        if said_by.STREAM_ONLY.search(words):
            return Refusal("bad-request", "final", "the service only streams its replies", field="stream")
        if said_by.LENGTH_CODE.search(codes) or said_by.LENGTH.search(words):
            return Refusal("bad-request", "final", field="length")
        if field := _field_at_fault(said, words):
            return Refusal(
                "bad-request", "final", f"the service does not take {field} as it is sent", field=field
            )
    if status != 404 and said_by.FILTER.search(words):
        return FILTERED
    if status == 451:
        return FILTERED
    if said_by.KEY.search(words):
        return BAD_KEY
    if status in (0, 400, 403, 404, 410, 422) and said_by.MODEL.search(words):
        return NO_MODEL
    if status == 403:
        return BAD_KEY
    if status == 404:
        return NO_MODEL
    if status == 413:
        return Refusal("bad-request", "final", field="length")
    return BAD_REQUEST if status else None


def _field_at_fault(said: Said, words: str) -> str:
    """Return the field of the request that an error names as not taken; "" where it names none."""
    objects = bool(said_by.PARAMETER_CODE.search(said.codes) or said_by.NOT_TAKEN.search(words))
    named = [part.strip("'\"`$").rpartition(".")[2] for part in said.fields]
    for field in named:
        if field in FIELDS and (objects or field != "stop"):
            return field
    if not objects:
        return ""
    words = words.replace("response format", "response_format").replace("json_schema", "response_format")
    found = [
        (match.start(), field)
        for field in FIELDS
        if (match := re.search(rf"(?<!\w){field}(?!\w)" if "_" in field else _as_field(field), words))
    ]
    return min(found)[1] if found else ""


def _as_field(word: str) -> str:
    """Return a pattern that finds a word of the language, such as "stop", where it names a field."""
    return (
        rf"['\"`]{word}['\"`]|\b{word}:"
        rf"|(?:parameters?|arguments?|fields?|supports?|value of|this model|invalid|unsupported)\W{{1,3}}{word}\b"
        rf"|(?<!body )\b{word}\b\W{{1,3}}(?:is|must|should|does|may|can|value|param\w*|field|参数)"
    )
