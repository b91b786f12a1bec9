"""Why a provider refuses a whole batch: its errors, read with care."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from datagen.providers import wording
from datagen.service import refusals
from datagen.service.error_body import read_error

_SHOWN = 3


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
