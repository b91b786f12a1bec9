"""The rows of the ledger's tables: requests and tries."""

import dataclasses
import datetime
from typing import Literal

State = Literal["sent", "answered", "failed"]
Outcome = Literal["open", "settled", "free", "unknown"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    ``state`` is "sent" (asked, outcome unknown), "answered" or "failed" (given up, ``error`` says why). Times
    are UTC in ISO 8601; ``cost_usd`` is that of the try that was answered, in US dollars, None where it is not
    known.
    """

    stage: str
    id: str
    state: State
    tries: int
    prompt_hash: str
    request: str
    reply: str | None
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    batch_id: str | None
    error: str | None
    created_at: str
    sent_at: str | None
    finished_at: str | None


@dataclasses.dataclass(frozen=True)
class Try:
    """One try of a request that may cost money: its worst case and its outcome.

    ``outcome`` is "open" (in flight), "settled" (the service counted its tokens), "free" (surely not billed) or
    "unknown" (its worst case counts as spent). Amounts are in US dollars, None where there is no price; times
    are UTC in ISO 8601. A try of a ``batch`` stays open until the batch ends.
    """

    number: int
    stage: str
    id: str
    model: str
    most_prompt_tokens: int
    most_completion_tokens: int
    reserved_usd: float | None
    batch: bool = False
    outcome: Outcome = "open"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    sent_at: str = ""
    finished_at: str | None = None


@dataclasses.dataclass
class StageSpending:
    """What the tries of one stage cost, in US dollars.

    Attributes:
        spent_usd: What the service counted.
        unknown_usd: Worst cases of tries whose bill is unknown.
        held_usd: Worst cases of tries in flight.
        unpriced: How many tries have no price.
        settled: How many tries the service counted, at a price.
    """

    spent_usd: float = 0.0
    unknown_usd: float = 0.0
    held_usd: float = 0.0
    unpriced: int = 0
    settled: int = 0


@dataclasses.dataclass(frozen=True)
class Settled:
    """How many requests were settled, and their tokens."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def utc_now() -> str:
    """Return the present time, UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
