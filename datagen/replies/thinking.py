"""Reasoning models may write their thoughts before their reply; the ledger keeps them, tasks and answers do not.

Thoughts are known by their shape: a block between two tags whose name speaks of thinking, in any brackets; a channel
or turn named so (:mod:`datagen.replies.tokens`); or a heading such as "Thinking..." with one of the reply behind it.
"""

import re
from collections import Counter

from datagen.phrases import compiled, groups_of_words, search
from datagen.replies.tokens import find_marks, own_turn, words_of

_FAMILY_OF = {
    name: family for family, names in groups_of_words("families of thoughts").items() for name in names
}
_OPENING, _CLOSING = {"start", "begin", "prefix", "open"}, {"end", "suffix", "close", "stop"}
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def without_thoughts(text: str) -> str:
    """Return a model's reply without its thoughts and without the control tokens around it.

    Thoughts that never end leave nothing behind them, and neither does an invented turn of somebody else. Where it is
    not sure what a mark means, it stays (:func:`datagen.replies.answers.leftover` tells).

    Example:
        >>> without_thoughts("<think>Gout... uric acid.</think>\\n\\nRest and drink.<|eot_id|>")
        'Rest and drink.'
        >>> without_thoughts("First, I recall gout.</think>Rest."), without_thoughts("<think>Gout is")
        ('Rest.', '')
        >>> without_thoughts("A blood pressure <think twice> of 140/90")
        'A blood pressure <think twice> of 140/90'
    """
    text = text if not text.startswith(tuple(_INVISIBLE)) else text.lstrip(_INVISIBLE)
    shown = own_turn(_without_folded(_without_blocks(text))) if search("any bracket", text) else text
    shown = _behind_headings(_behind_names(shown))
    return text if shown == text else shown.strip()


def is_thought_name(name: str) -> bool:
    """Say whether the name of a tag speaks of thinking.

    Example:
        >>> is_thought_name("START_THINKING"), is_thought_name("inner_monologue"), is_thought_name("answer")
        (True, True, False)
    """
    return any(word in _FAMILY_OF for word in words_of(name))


def _without_blocks(text: str) -> str:
    """Cut out everything between tags of thoughts, nested ones, ends without a beginning and the reverse included."""
    tags = list(_thought_tags(text))
    last_end = {family: start for start, _, opening, family, _ in tags if not opening}
    spans: list[tuple[int, int]] = []
    opened: list[tuple[int, str]] = []
    within: Counter[str] = Counter()
    for start, end, opening, family, bracketed in tags:
        if opening:
            if not bracketed or last_end.get(family, -1) > start:
                opened.append((start, family))
                within[family] += 1
            continue
        if not opened:
            # The prompt held the beginning, unless a second end stands behind the reply.
            spans.append((start if spans and not text[end:].strip() else 0, end))
            continue
        held = within[family] > 0
        if not held and last_end.get(opened[-1][1], -1) > start:
            continue
        while opened:
            first, closed = opened.pop()
            within[closed] -= 1
            if closed == family or not held:
                break
        if not opened:
            spans.append((first, end))
    if opened:
        # An inner beginning may be a mere mention: thoughts reach to the last end, or to the end of the text.
        first = opened[0][0]
        line = text[text.rfind("\n", 0, first) + 1 : first]
        end = max(
            (tag[1] for tag in tags if not tag[2] and tag[0] > first and tag[3] == opened[0][1]), default=0
        )
        ended_by_a_token = compiled("control tokens").match(text, first) and len(find_marks(text[first:])) > 1
        if end or not (line.strip() or ended_by_a_token):
            spans.append((first, end or len(text)))
    return _without(text, spans)


def _thought_tags(text: str) -> list[tuple[int, int, bool, str, bool]]:
    """Return start, end, whether it opens, family and whether it stands in text-like brackets, of every tag."""
    tags = []
    # A block in which thoughts only end, or only begin, is a part of them.
    shown = [
        block.span()
        for block in compiled("code block").finditer(text)
        if block["end"] and _is_balanced(block["code"])
    ]
    for tag in compiled("bracketed tag").finditer(text):
        while shown and shown[0][1] <= tag.start():
            del shown[0]
        if shown and shown[0][0] <= tag.start():
            continue
        words = words_of(tag["name"])
        family = next((_FAMILY_OF[word] for word in words if word in _FAMILY_OF), None)
        if family is None:
            continue
        closing = bool(tag["slash"]) or bool(_CLOSING & set(words))
        strong = (
            family == "think" and tag["name"].isupper()
        )  # [THINK] is a token; [Analysis] may be a heading
        textlike = tag["open"][0] in "[«《〈⟨【‹{" and not strong and not _OPENING & set(words)
        tags.append((*_decorated(text, tag), not closing, family, textlike or bool(tag["more"])))
    return tags


def _is_balanced(code: str) -> bool:
    open_tags = 0
    for tag in compiled("bracketed tag").finditer(code):
        if is_thought_name(tag["name"]):
            open_tags += -1 if tag["slash"] else 1
            if open_tags < 0:
                return False
    return not open_tags


def _decorated(text: str, tag: re.Match[str]) -> tuple[int, int]:
    """Return where a tag begins and ends together with the marks of Markdown on both its sides."""
    start, end = tag.span()
    for mark in ("***", "**", "*", "`", "_"):
        if text.endswith(mark, 0, start) and text.startswith(mark, end):
            return start - len(mark), end + len(mark)
    quote = search("quote mark", text, max(0, start - 4), start)
    return (quote.start() if quote else start), end


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    kept, at = [], 0
    for start, end in sorted(spans):
        if start > at:
            kept.append(text[at:start])
        at = max(at, end)
    return "".join([*kept, text[at:]])


def _without_folded(text: str) -> str:
    """Cut out thoughts that are folded away in HTML, or stand in a code block of that name."""
    spans: list[tuple[int, int]] = []
    for pattern, closing in (
        (compiled("folded details"), compiled("end of details")),
        (compiled("fence of thoughts"), compiled("bare fence")),
    ):
        at = 0
        while at < len(text) and (opening := pattern.search(text, at)):
            at = opening.end()
            if pattern is compiled("fence of thoughts") or search("about thoughts", opening.group()):
                end = closing.search(text, at)
                at = end.end() if end else len(text)
                spans.append((opening.start(), at))
    return _without(text, spans)


def _behind_names(text: str) -> str:
    """Return what follows the name of the final channel, where the names of channels stand in the text."""
    finals = list(compiled("glued final").finditer(text))
    if finals:
        return text[finals[-1].end() :].lstrip(":* \n")
    if compiled("glued thoughts").match(text):
        return ""
    return re.sub(r"\A\s*final(?=[A-Z])", "", text)


def _behind_headings(text: str) -> str:
    """Return what follows the heading of the reply, where the text begins with a heading of thoughts."""
    heading = compiled("heading of thoughts").match(text)
    if heading is None:
        return text
    reply = search("heading of the reply", text, heading.end())
    if reply:
        return text[reply.end() :]
    return "" if heading["sure"] else text
