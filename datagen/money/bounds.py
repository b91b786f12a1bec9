"""How many tokens a request can take at the most, whatever tokeniser and chat template the service has."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

# What a service's chat template may add to the words of a request, in tokens: per message, and once.
_TEMPLATE_TOKENS_PER_MESSAGE = 16
_TEMPLATE_TOKENS = 64


def most_prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return a number of prompt tokens that a request cannot exceed.

    No tokeniser makes more tokens than a text has bytes; what the body holds beside the messages (a schema of the
    reply, names, numbers) counts too, and a service's chat template gets an allowance.

    Example:
        >>> most_prompt_tokens({"messages": [{"role": "user", "content": "Hi"}]})
        129
    """
    text = json.dumps(body, ensure_ascii=False)
    size = len(text.encode("utf-8", "replace"))
    if not text.isascii():  # tokenisers that normalise may write a character out in more bytes
        size = max(size, len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")))
    return size + _TEMPLATE_TOKENS_PER_MESSAGE * len(body.get("messages", ())) + _TEMPLATE_TOKENS


def most_completion_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the number of output tokens that a request allows; None where it sets no bound."""
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    return None if most is None else int(most) * int(body.get("n") or 1)
