"""Reads finish reasons in every service's vocabulary.

OpenAI's names are ``stop``, ``length``, ``content_filter`` and ``tool_calls``; services and gateways in front of other
APIs pass on the names of those: ``end_turn``, ``MAX_TOKENS``, ``FINISH_REASON_SAFETY``, ``eos_token``, ``eosFound``,
``insufficient_system_resource``. A reply counts as whole only if its reason is known to mean that. The words are
under ``finish reasons`` in ``providers.yaml``.
"""

import functools
import re
from typing import Literal

from datagen.providers import names, pattern, words_of

#: The reply is whole; was cut at a limit of tokens; was withheld; or ended for another reason, such as an error.
Finish = Literal["whole", "cut", "filtered", "failed"]

# "['stop']" or '{"type": "stop"}' is no reason but something that holds one.
_NAME = re.compile(r"[\w .:/-]+")


@functools.lru_cache(maxsize=1024)
def read_finish(reason: str | None) -> Finish:
    """Classify a finish reason in any spelling; a missing or empty reason counts as "whole".

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
    words = words_of(reason)
    if words[:2] in (["finish", "reason"], ["stop", "reason"]):
        words = words[2:]
    known = set(words)
    ends, beside, limits, limited = (
        set(names("finish reasons", each)) for each in ("ends", "beside ends", "limits", "limited")
    )
    if reason.lower() in ("", *names("finish reasons", "nothing said")):
        return "whole"
    if known & ends and known <= ends | beside and _NAME.fullmatch(reason):
        return "whole"
    if pattern("finish reasons", "filtered").search("_".join(words)):
        return "filtered"
    if "length" in known or words in (["limit"], ["incomplete"], ["truncated"]):
        return "cut"
    return "cut" if known & limits and known & limited and "rate" not in known else "failed"
