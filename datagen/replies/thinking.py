"""Reasoning models may write their thoughts before their reply; the ledger keeps them, tasks and answers do not."""

import re

_OPEN, _CLOSE = r"[<\[]\|?{0}\|?[>\]]", r"[<\[]\|?/{0}\|?[>\]]"
_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?)"
_BLOCK = re.compile(f"{_OPEN.format(_NAMES)}.*?{_CLOSE.format(_NAMES)}", re.DOTALL | re.IGNORECASE)
# Chat templates may open the thoughts in the prompt, so that the reply holds their end alone.
_END_ALONE = re.compile(rf"\A.*?{_CLOSE.format(_NAMES)}", re.DOTALL | re.IGNORECASE)
_UNENDED = re.compile(rf"(?:\A|(?<=\n))[ \t]*{_OPEN.format(_NAMES)}.*\Z", re.DOTALL | re.IGNORECASE)
# The channels of OpenAI's open models, where a server hands them on as they are.
_CHANNEL = re.compile(r"<\|channel\|>(?:analysis|commentary)\b.*?(?:<\|end\|>|<\|call\|>|\Z)", re.DOTALL)
_CONTROL = re.compile(r"<\|start\|>assistant|<\|channel\|>final\b[^<]*<\|message\|>|<\|(?:end|return)\|>")


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
    shown = text
    if "<|channel|>" in shown:
        shown = _CONTROL.sub("", _CHANNEL.sub("", shown))
    shown = _UNENDED.sub("", _END_ALONE.sub("", _BLOCK.sub("", shown), count=1))
    return text if shown == text else shown.strip()
