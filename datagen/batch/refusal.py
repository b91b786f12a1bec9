"""Why a provider refuses a whole batch: its errors, read with care."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from datagen.service import refusals
from datagen.service.error_body import read_error

_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A provider's objections to a batch.

    Attributes:
        words: The provider's, shortened.
        queue_is_full: There are too many tokens in its queue; smaller batches, or later ones, may pass.
        no_credit: The account has none.
        lines: What is wrong with single lines, counted from 1; empty unless that is all that is wrong.
    """

    words: str
    queue_is_full: bool
    no_credit: bool
    lines: dict[int, str]


def read_refusal(batch: Mapping[str, Any], conceal: Callable[[str], str]) -> Refusal:
    """Read the errors of a batch that failed.

    Args:
        batch: As the provider describes it.
        conceal: Takes a key out of words and shortens them.

    Example:
        >>> error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
        >>> read_refusal({"errors": {"data": [error]}}, str)  # doctest: +ELLIPSIS
        Refusal(words='token_limit_exceeded: Enqueued token limit reached.', queue_is_full=True, no_credit=False, ...
    """
    errors = batch.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    codes = [str(row.get("code") or "") for row in rows]
    said = [f"{code or 'error'}: {row.get('message') or ''}" for code, row in zip(codes, rows, strict=True)]
    lines = {
        row["line"]: conceal(str(row.get("message") or ""))
        for row in rows
        if isinstance(row.get("line"), int)
    }
    meant = refusals.read_refusal(read_error(0, rows))
    return Refusal(
        words=conceal("; ".join(said[:_SHOWN]) or "no reason is given"),
        queue_is_full=any("limit" in code and "token" in code for code in codes),
        no_credit=meant == refusals.NO_CREDIT or any("quota" in code for code in codes),
        lines=lines if all(isinstance(row.get("line"), int) for row in rows) else {},
    )
