"""Control tokens: the marks of a chat template, known by their shapes, that a server hands on as text.

What a model says lies between such marks. A run of them is one mark, whose **kind** says what follows: its own turn
(``<|im_start|>assistant``), its thoughts (``<|channel|>analysis<|message|>``), its last word (``<|channel|>final``),
somebody else's turn (``<|im_end|><|im_start|>user``), the end, or none of these.
"""

import dataclasses
import functools
import re

from datagen.phrases import compiled, groups_of_words

_KINDS = groups_of_words("kinds of tokens")


@dataclasses.dataclass(frozen=True)
class Mark:
    """Control tokens in a row at ``start:end``, with the name of a role among or behind them."""

    kind: str
    start: int
    end: int


@functools.lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Split a tag's or token's name: ``START_THINKING``, ``innerThoughts``, ``seed:think``.

    Example:
        >>> words_of("<|END_THINKING|>"), words_of("innerThoughts"), words_of("end▁of▁sentence")
        (('end', 'thinking'), ('inner', 'thoughts'), ('end', 'of', 'sentence'))
    """
    return tuple(re.findall(r"[^\W\d_▁]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def find_marks(text: str) -> list[Mark]:
    """Return the control tokens of a text as marks, in order.

    Example:
        >>> [mark.kind for mark in find_marks("<|im_start|>assistant\\nRest.<|im_end|>\\n<|im_start|>user\\nWhy?")]
        ['own-turn', 'other-turn']
    """
    marks: list[Mark] = []
    for token in compiled("control tokens").finditer(text):
        kind, end = _read(text, token)
        if marks and not text[marks[-1].end : token.start()].strip():
            before = marks.pop()
            marks.append(Mark(min(kind, before.kind, key=[*_KINDS, "none"].index), before.start, end))
        else:
            marks.append(Mark(kind, token.start(), end))
    return marks


def _read(text: str, token: re.Match[str]) -> tuple[str, int]:
    words = set(words_of(token.group()))
    closing = "/" in token.group() or bool(words & _KINDS["end"])
    if closing and "/" in token.group() and "inst" in words:
        return "own-turn", token.end()
    if closing and "role" not in words:
        role = compiled("role behind a token").match(text, token.end())
        if role and (role["line"] or "").lower() in _KINDS["other-turn"]:
            return "other-turn", role.end()
        return ("end" if words & _KINDS["end"] and "header" not in words else "none"), token.end()
    for kind, names in _KINDS.items():
        if words & names:
            return kind, token.end()
    if role := compiled("role behind a token").match(text, token.end()):
        name = next(group for group in role.groups() if group).lower()
        for kind, names in _KINDS.items():
            if name in names and kind != "end":
                return kind, role.end()
    return "none", token.end()


def own_turn(text: str) -> str:
    """Return what a model says in its own turn, without its thoughts, where control tokens tell them apart.

    Tokens around it are dropped, and so is an invented turn of somebody else after it. Where the tokens leave a doubt
    the text stays as it is, tokens included (:func:`control_tokens`).

    Example:
        >>> own_turn("<|channel|>analysis<|message|>Gout?<|end|><|start|>assistant<|channel|>final<|message|>Rest.")
        'Rest.'
        >>> own_turn("Rest.<|eot_id|><|start_header_id|>user<|end_header_id|>Why?"), own_turn("Rest.</s> Run.")
        ('Rest.', 'Rest.</s> Run.')
    """
    text = compiled("box tokens").sub("", text)
    marks = find_marks(text)
    if not marks:
        return text
    ends = [*(mark.start for mark in marks[1:]), len(text)]
    said = [
        text[mark.end : end].strip().removeprefix(":").lstrip() for mark, end in zip(marks, ends, strict=True)
    ]
    kinds = [mark.kind for mark in marks]
    if "thoughts" in kinds or "final" in kinds:
        if "final" in kinds:
            return said[kinds.index("final")]
        last = len(kinds) - 1 - kinds[::-1].index("thoughts")
        return next(
            (said[n] for n in range(last + 1, len(kinds)) if said[n] and kinds[n] != "other-turn"), ""
        )
    before = text[: marks[0].start].strip()
    at = 0
    if not before:
        # The prompt may come back before the model's own turn.
        at = kinds.index("own-turn") if kinds[0] == "other-turn" and "own-turn" in kinds else 0
        if kinds[at] == "other-turn":
            return text
        before, at = said[at], at + 1
    if at == len(kinds) or kinds[at] == "other-turn" or not any(said[at:]):
        return before
    return text


def control_tokens(text: str) -> list[str]:
    """Return the control tokens in a text, and words that are joined by spaces as a tokenizer spells them.

    Example:
        >>> control_tokens("Rest.</s> Run."), control_tokens("BP <140/90, [Ca2+] <2.1 | K >5")
        (['</s>'], [])
    """
    return [
        found.group()
        for pattern in (compiled("control tokens"), compiled("tokenizer spelling"))
        for found in pattern.finditer(text)
    ]
