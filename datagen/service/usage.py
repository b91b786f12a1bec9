"""How many tokens a reply took, as the service counts them, or that nobody knows.

The output is at least what the total holds beyond the prompt: some services count thoughts in the total alone.
Counts that contradict each other, or that are no counts, make the bill unknown, and then the worst case stays spent.
"""

from collections.abc import Mapping
from typing import Any

#: More tokens than any request can have; what says more is no count.
_MOST_TOKENS = 10**9
#: A reply with more characters a token than this was not counted; the longest tokens of all are runs of blanks.
_MOST_CHARACTERS_PER_TOKEN = 50

# Names without underscores and case: OpenAI's, then those of other interfaces that gateways pass on.
_PROMPT = ("prompttokens", "inputtokens", "prompttokencount", "inputtokencount")
_COMPLETION = ("completiontokens", "outputtokens", "candidatestokencount", "outputtokencount")
_TOTAL = ("totaltokens", "totaltokencount")
_CACHED = ("cachecreationinputtokens", "cachereadinputtokens")
_THOUGHTS = ("reasoningtokens", "thoughtstokencount")
_DETAILS = ("completiontokensdetails", "outputtokensdetails")


class _NotACountError(Exception):
    """A count that cannot be believed."""


def read_usage(usage: object, written: int) -> tuple[int, int]:
    """Return how many tokens went in and out; 0 and 0 where that is not known.

    Args:
        usage: What the service says, under any of the names in use.
        written: Characters of the reply, thoughts included.

    Example:
        >>> read_usage({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 1040}, 80)
        (100, 940)
        >>> read_usage({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 90}, 80)
        (0, 0)
    """
    if not isinstance(usage, Mapping):
        return 0, 0
    counts = {str(name).replace("_", "").lower(): value for name, value in usage.items()}
    try:
        return _read(counts, written)
    except _NotACountError:
        return 0, 0


def _read(counts: Mapping[str, Any], written: int) -> tuple[int, int]:
    prompt, completion, total = (_largest(counts, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if not counts.get("prompttokens") and not counts.get("prompttokencount"):
        # Where input and output are told so, tokens of a cache mostly stand beside the input.
        prompt = (prompt or 0) + sum(_count(counts.get(name)) or 0 for name in _CACHED)
    thoughts = _largest(counts, _THOUGHTS) or 0
    for name in _DETAILS:
        details = counts.get(name)
        if isinstance(details, Mapping):
            thoughts = max(thoughts, _count(details.get("reasoning_tokens")) or 0)
    if not prompt or completion is None:
        raise _NotACountError
    if "thoughtstokencount" in counts and not total:
        completion += thoughts
    if total:
        if total < prompt + completion:
            raise _NotACountError
        completion = total - prompt
    if completion < thoughts or written > _MOST_CHARACTERS_PER_TOKEN * completion:
        raise _NotACountError
    return prompt, completion


def _largest(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the largest count under any of the names; gateways fill some of them with 0."""
    found = [count for name in names if (count := _count(counts.get(name))) is not None]
    return max(found, default=None)


def _count(value: object) -> int | None:
    """Read a number of tokens; None where none is given.

    Raises:
        _NotACountError: What is given is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_TOKENS:
        raise _NotACountError
    if value != int(value):
        raise _NotACountError
    return int(value)
