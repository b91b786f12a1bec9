"""Reads the token counts of a reply.

The output is the total minus the prompt: some services count reasoning tokens only in the total. Malformed or
contradictory counts are ignored; the bill is then unknown, and the reserved worst case counts as spent.
"""

from collections.abc import Mapping
from typing import Any

from datagen.providers import names, plain

#: More tokens than any request can have; a larger number is not a count.
_MOST_TOKENS = 10**9
#: A reply with more characters a token than this was not counted; the longest tokens of all are runs of blanks.
_MOST_CHARACTERS_PER_TOKEN = 50
_KINDS = ("prompt", "completion", "total")


def read_usage(usage: object, written: int) -> tuple[int, int]:
    """Return the tokens in and out; 0 and 0 if they are unknown.

    Args:
        usage: The usage object, with any of the names in use.
        written: Characters of the reply, reasoning included.

    Example:
        >>> read_usage({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 1040}, 80)
        (100, 940)
        >>> read_usage({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 90}, 80)
        (0, 0)
    """
    if not isinstance(usage, Mapping):
        return 0, 0
    counts = {plain(name): value for name, value in usage.items()}
    details = [counts.get(name) for name in names("usage", "details")]
    told = [each.get("reasoning_tokens") for each in details if isinstance(each, Mapping)]
    try:
        prompt, completion, total = (_largest(counts, names("usage", kind)) for kind in _KINDS)
        thoughts = max(
            _largest(counts, names("usage", "thoughts")) or 0, *(_count(each) or 0 for each in told), 0
        )
        cached = sum(_count(counts.get(name)) or 0 for name in names("usage", "cached"))
    except ValueError:
        return 0, 0
    if not counts.get("prompttokens") and not counts.get("prompttokencount"):
        # Services with these names mostly count cached tokens beside the input tokens.
        prompt = (prompt or 0) + cached
    if not prompt or completion is None:
        return 0, 0
    if "thoughtstokencount" in counts and not total:
        completion += thoughts
    if total and total < prompt + completion:
        return 0, 0
    completion = total - prompt if total else completion
    if completion < thoughts or written > _MOST_CHARACTERS_PER_TOKEN * completion:
        return 0, 0
    return prompt, completion


def _largest(counts: Mapping[str, Any], known: tuple[str, ...]) -> int | None:
    """Return the largest count under any of the names; gateways fill some of them with 0."""
    found = [count for name in known if (count := _count(counts.get(name))) is not None]
    return max(found, default=None)


def _count(value: Any) -> int | None:
    """Return a number of tokens; None where none is given.

    Raises:
        ValueError: The value is not a count.
    """
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= _MOST_TOKENS
        or value % 1
    ):
        raise ValueError(value)
    return int(value)
