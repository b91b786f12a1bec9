"""Reads the state, the counts and the file ids of batches and files, in every provider's vocabulary.

OpenAI, Azure and Groq write ``in_progress`` and ``completed``; Together writes ``COMPLETED`` within a ``job``;
Mistral ``SUCCESS``, ``TIMEOUT_EXCEEDED``, ``output_file`` and ``succeeded_requests``; others ``JOB_STATE_SUCCEEDED``.
States are matched by the patterns in ``providers.yaml``. A batch in an unknown state is waited for, with a warning.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from datagen.providers import names, table, wording, words_of
from datagen.service import refusals
from datagen.service.error_body import read_error

State = Literal["waiting", "cancelling", "completed", "failed", "expired", "cancelled", "unknown"]
FileState = Literal["ready", "failed", "waiting"]

ENDED = ("completed", "failed", "expired", "cancelled")
_SHOWN = 3


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


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A provider's objections to a batch.

    Attributes:
        words: The provider's, shortened.
        queue_is_full: There are too many tokens in its queue; smaller batches, or later ones, may pass.
        lines: What is wrong with single lines, counted from 1; empty unless that is all that is wrong.
        meant: What the table of refusals says of it; None where it knows nothing of it.
    """

    words: str
    queue_is_full: bool
    lines: dict[int, str]
    meant: refusals.Refusal | None = None


def read_refusal(batch: Mapping[str, Any], redact: Callable[[str], str]) -> Refusal:
    """Read the errors of a batch that failed.

    Args:
        batch: As the provider describes it.
        redact: Takes a key out of words and shortens them.

    Example:
        >>> error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
        >>> read_refusal({"errors": {"data": [error]}}, str)  # doctest: +ELLIPSIS
        Refusal(words='token_limit_exceeded: Enqueued token limit reached.', queue_is_full=True, lines={}, ...
    """
    rows = _rows(batch)
    codes = [str(row.get("code") or "") for row in rows]
    said = [f"{code or 'error'}: {row.get('message') or ''}" for code, row in zip(codes, rows, strict=True)]
    lines = {
        row["line"]: redact(str(row.get("message") or "")) for row in rows if isinstance(row.get("line"), int)
    }
    errors = read_error(0, rows)
    quota = any("quota" in code for code in codes)
    return Refusal(
        words=redact("; ".join(said[:_SHOWN]) or "no reason is given"),
        queue_is_full=any("limit" in code and "token" in code for code in codes)
        or (not any(codes) and bool(wording("queue full").search(" ".join(said)))),
        lines=lines if all(isinstance(row.get("line"), int) for row in rows) else {},
        meant=refusals.meaning("quota", errors) if quota else refusals.read_refusal(errors),
    )


def _rows(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the errors of a batch, which some give as a list, as one object or as a sentence."""
    errors = next((batch[key] for key in ("errors", "error", "failure_reason") if batch.get(key)), None)
    if isinstance(errors, dict):
        errors = errors.get("data", [errors])
    elif isinstance(errors, str):
        errors = [errors]
    listed = errors if isinstance(errors, list) else []
    rows = [{"message": row} if isinstance(row, str) else row for row in listed]
    return [row for row in rows if isinstance(row, dict)]
