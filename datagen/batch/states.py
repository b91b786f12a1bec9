"""What a provider says about a batch or a file, in one vocabulary: states, counts and the ids of its files.

OpenAI, Azure and Groq write ``in_progress`` and ``completed``; Together writes ``COMPLETED`` within a ``job``;
Mistral ``SUCCESS``, ``TIMEOUT_EXCEEDED``, ``output_file`` and ``succeeded_requests``; others ``JOB_STATE_SUCCEEDED``.
The words of a state are told apart by their stems. One that no rule knows is waited for, and told of.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from datagen.providers import names, table, words_of

State = Literal["waiting", "cancelling", "completed", "failed", "expired", "cancelled", "unknown"]
FileState = Literal["ready", "failed", "waiting"]

ENDED = ("completed", "failed", "expired", "cancelled")


def read_state(words: object) -> State:
    """Return what the state of a batch means, in any provider's words.

    Example:
        >>> [read_state(words) for words in ("validating", "COMPLETED", "TIMEOUT_EXCEEDED", "JOB_STATE_SUCCEEDED")]
        ['waiting', 'completed', 'expired', 'completed']
        >>> read_state("CANCELLATION_REQUESTED"), read_state("hibernated")
        ('cancelling', 'unknown')
    """
    return _first("states", " ".join(words_of(str(words or "")))) or "unknown"


def read_file_state(file: Mapping[str, Any]) -> FileState:
    """Return whether an input file may be used; services that say nothing of it have it ready at once.

    Example:
        >>> [read_file_state({"status": status}) for status in ("uploaded", "processed", "error", None)]
        ['waiting', 'ready', 'failed', 'ready']
    """
    if file.get("processed") is True:
        return "ready"
    state: FileState | None = _first("file states", str(file.get("status") or "").lower())
    return state or ("waiting" if file.get("processed") is False else "ready")


def _first(list_of: str, words: str) -> Any:
    """Return the first state whose pattern is found in words; None where none is."""
    patterns = (pair for row in table()["batches"][list_of] for pair in row.items())
    return next((state for state, stems in patterns if re.search(stems, words)), None)


def unwrapped(data: dict[str, Any]) -> dict[str, Any]:
    """Return the batch or file of a reply that wraps it, as ``{"job": {...}}``."""
    if "id" not in data:
        for key in names("batches", "wrapped in"):
            if isinstance(data.get(key), dict):
                inner: dict[str, Any] = data[key]
                return inner
    return data


def file_id(batch: Mapping[str, Any], kind: Literal["output", "error"]) -> str:
    """Return the id of a batch's output or error file; "" where there is none (yet)."""
    for key in (f"{kind}_file_id", f"{kind}_file"):
        value = batch.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def counts(batch: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many requests of a batch are said to be completed and failed; None where nothing is said.

    Example:
        >>> counts({"request_counts": {"total": 3, "completed": 2, "failed": 1}}), counts({"succeeded_requests": 3})
        ((2, 1), (3, 0))
    """
    nested = batch.get("request_counts")
    told = {**batch, **nested} if isinstance(nested, dict) else batch
    completed, failed = (
        next((n for name in names("batches", each) if (n := _number(told.get(name))) is not None), None)
        for each in ("completed", "failed")
    )
    return None if completed is None else (completed, failed or 0)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
