"""Reasoning models may write their thoughts before their reply; the ledger keeps them, tasks and answers do not."""

import re

_NAMES = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_BLOCK = re.compile(rf"<\|?({_NAMES})\|?>.*?</\|?\1\|?>", re.DOTALL | re.IGNORECASE)
# Chat templates may open the thoughts in the prompt, so that the reply holds their end alone.
_END_ALONE = re.compile(rf"\A.*?</\|?{_NAMES}\|?>", re.DOTALL | re.IGNORECASE)
_UNENDED = re.compile(rf"(?:\A|(?<=\n))[ \t]*<\|?{_NAMES}\|?>.*\Z", re.DOTALL | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """Take the thoughts of a reasoning model out of its reply; thoughts that never end leave nothing behind them.

    Example:
        >>> without_thoughts("<think>Gout... uric acid.</think>\\n\\nRest and drink.")
        'Rest and drink.'
        >>> without_thoughts("First, I recall gout.</think>Rest."), without_thoughts("<think>Gout is")
        ('Rest.', '')
        >>> without_thoughts("A blood pressure <think twice> of 140/90")
        'A blood pressure <think twice> of 140/90'
    """
    if "<" not in text:
        return text
    shown = _UNENDED.sub("", _END_ALONE.sub("", _BLOCK.sub("", text), count=1))
    return text if shown == text else shown.strip()
