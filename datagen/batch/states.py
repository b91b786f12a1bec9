"""What a provider says about a batch or a file, in one vocabulary: states, counts and the ids of its files.

OpenAI, Azure and Groq write ``in_progress`` and ``completed``; Together writes ``COMPLETED`` within a ``job``;
Mistral ``SUCCESS``, ``TIMEOUT_EXCEEDED``, ``output_file`` and ``succeeded_requests``; others ``JOB_STATE_SUCCEEDED``.
The words of a state are told apart by their stems. One that no rule knows is waited for, and told of.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

State = Literal["waiting", "cancelling", "completed", "failed", "expired", "cancelled", "unknown"]
FileState = Literal["ready", "failed", "waiting"]

ENDED = ("completed", "failed", "expired", "cancelled")

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W_]+")
# In this order: what was cancelled or ran out of time may be said with the words of the others.
_STEMS: tuple[tuple[State, str], ...] = (
    ("cancelling", r"cancell?ing\b|cancell?ation requested|cancel requested|\bstopping\b|\bcancel in progress"),
    ("cancelled", r"\bcancel|\bstopped\b|\bterminated\b|\brevoked\b|\bdeleted\b"),
    ("expired", r"\bexpired?\b|\btime(?:d)? ?out\b"),
    ("waiting", r"\b(?:not|un|in)[ -]?(?:started|complete|completed|finished)\b|\bpartial(?:ly)? \w+ing\b"),
    ("completed", r"\bcomplete[d]?\b|\bsucce\w+|\bdone\b|\bfinished\b|\bended\b"),
    ("failed", r"\bfail|\berror|\breject|\binvalid|\babort|\brefused\b"),
    ("waiting", r"ing\b|\bqueued?\b|\bprogress\b|\bcreated\b|\bsubmitted\b|\bscheduled\b|\baccepted\b|\bstarted\b"
                r"|\bready\b|\bnew\b|\bactive\b|\bpaused\b|\bsuspended\b"),
)  # fmt: skip
_FILE_FAILED = re.compile(r"fail|error|reject|invalid|abort|delet|expired|cancel|corrupt")
_FILE_WAITS = re.compile(
    r"ing\b|upload|queue|progress|created|submitted|scheduled|validat(?!ed)|received|new\b"
)


def read_state(words: object) -> State:
    """Return what the state of a batch means, in any provider's words.

    Example:
        >>> [read_state(words) for words in ("validating", "COMPLETED", "TIMEOUT_EXCEEDED", "JOB_STATE_SUCCEEDED")]
        ['waiting', 'completed', 'expired', 'completed']
        >>> read_state("CANCELLATION_REQUESTED"), read_state("hibernated")
        ('cancelling', 'unknown')
    """
    plain = " ".join(_WORDS.split(str(words or ""))).lower()
    return next((state for state, stems in _STEMS if re.search(stems, plain)), "unknown")


def read_file_state(file: Mapping[str, Any]) -> FileState:
    """Return whether an input file may be used; services that say nothing of it have it ready at once.

    Example:
        >>> [read_file_state({"status": status}) for status in ("uploaded", "processed", "error", None)]
        ['waiting', 'ready', 'failed', 'ready']
    """
    status = str(file.get("status") or "").lower()
    if file.get("processed") is True:
        return "ready"
    if _FILE_FAILED.search(status):
        return "failed"
    return "waiting" if _FILE_WAITS.search(status) or file.get("processed") is False else "ready"


def unwrapped(data: dict[str, Any]) -> dict[str, Any]:
    """Return the batch or file of a reply that wraps it, as ``{"job": {...}}``."""
    if "id" not in data:
        for key in ("job", "batch", "file", "data"):
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
    told = batch.get("request_counts")
    told = told if isinstance(told, dict) else {}
    completed = [told.get("completed"), told.get("succeeded"), batch.get("succeeded_requests")]
    failed = [told.get("failed"), told.get("errored"), batch.get("failed_requests")]
    known = [
        next((n for each in some if (n := _number(each)) is not None), None) for some in (completed, failed)
    ]
    if known[0] is None:
        return None
    return known[0], known[1] or 0


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
