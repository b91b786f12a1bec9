"""What the finish reason of a reply means, whichever service wrote it.

OpenAI's names are ``stop``, ``length``, ``content_filter`` and ``tool_calls``; services and gateways in front of other
APIs pass on the names of those: ``end_turn``, ``MAX_TOKENS``, ``FINISH_REASON_SAFETY``, ``eos_token``, ``eosFound``,
``insufficient_system_resource``. A reply counts as whole only where its reason is known to say so.
"""

import functools
import re
from typing import Literal

#: The reply is whole; was cut at a limit of tokens; was withheld; or ended for another reason, such as an error.
Finish = Literal["whole", "cut", "filtered", "failed"]

# The end of a word of camelCase, or anything that is no letter or digit.
_BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W_]+")
_ENDS = frozenset(
    {"complete", "completed", "done", "end", "endoftext", "eos", "eot", "finish", "finished", "stop"}
)
# What may stand beside those: "end_of_turn", "stopStringFound", "FINISH_REASON_STOP".
_BESIDE_ENDS = frozenset({
    "a", "at", "by", "finishreason", "found", "hit", "id", "im", "matched", "message", "normal", "of", "on", "reached",
    "reason", "sequence", "sequences", "str", "string", "text", "the", "token", "turn", "word",
})  # fmt: skip
# "['stop']" or '{"type": "stop"}' is no reason but something that holds one.
_NAME = re.compile(r"[\w .:/-]+")
_NOTHING_SAID = frozenset({"", "none", "null"})
_LIMITS = frozenset(
    {"exceeded", "exhausted", "full", "limit", "max", "maximum", "overflow", "reached", "window"}
)
_LIMITED = frozenset({"completion", "context", "output", "predict", "predicted", "token", "tokens"})
_FILTER = re.compile(
    r"armor|block|censor|filter|guardrail|harm|inspection|moderat|policy|prohibit|recitation|refus|safety|sensitive"
    r"|spii|toxic|violat"
)


@functools.lru_cache(maxsize=1024)
def read_finish(reason: str | None) -> Finish:
    """Return what a finish reason means, in any spelling; one that is missing or empty speaks for a whole reply.

    Args:
        reason: As the service gave it.

    Returns:
        "whole"; "cut", where more tokens may help; "filtered", by the service or by the model; or "failed", which is
        every reason that is not known, tool calls among them.

    Example:
        >>> [read_finish(reason) for reason in ("stop", None, "STOP_SEQUENCE", "eosFound")]
        ['whole', 'whole', 'whole', 'whole']
        >>> [read_finish(reason) for reason in ("length", "MAX_TOKENS", "SAFETY", "tool_calls", "userStopped")]
        ['cut', 'cut', 'filtered', 'failed', 'failed']
    """
    reason = (reason or "").strip()
    if reason.lower() in _NOTHING_SAID:
        return "whole"
    spaced = [word.lower() for word in _BETWEEN_WORDS.split(reason) if word]
    words = spaced[2:] if spaced[:2] in (["finish", "reason"], ["stop", "reason"]) else spaced
    known = set(words)
    if known & _ENDS and known <= _ENDS | _BESIDE_ENDS and _NAME.fullmatch(reason):
        return "whole"
    if _FILTER.search("_".join(words)):
        return "filtered"
    if "length" in known or words in (["limit"], ["incomplete"], ["truncated"]):
        return "cut"
    if known & _LIMITS and known & _LIMITED and "rate" not in known:
        return "cut"
    return "failed"
