"""A line of a judge's reply in signs, so that a small grammar can read it.

Everything is written in lower case but for the answers: ``A`` and ``B``, ``T`` for both ("both outputs"), ``P`` for
the pair ("A and B"), ``N`` for neither, ``O`` for one or the other.
"""

import re

from alpacare_jax.evaluate.verdict_patterns import groups, pattern

_SIGNS = {0xE00A: "A", 0xE00B: "B"}  # private characters, which lower case leaves alone
_ENDS = re.compile(r"(?<=[.!?])(?=\s)")


def signs(line: str) -> str:
    """Write a line of a reply in the signs of this grammar.

    Args:
        line: One of the lines of :func:`alpacare_jax.evaluate.judge_text.own_lines`.

    Example:
        >>> signs("Thus Output (b) is better than Response 1."), signs("Neither Output A nor Output B is better.")
        ('thus B is better than A.', 'N is better.')
        >>> signs("A list of vitamin B sources"), signs("B, for Assistant A's answer is vague")
        ('a list of vitamin b sources', 'B, for A is vague')
    """
    line = "".join(map(_read_brackets, _ENDS.split(line))) if "[[" in line else line
    line = pattern("letter").sub(_letter, line)
    text = " ".join(pattern("written label").sub(_label, line).lower().translate(_SIGNS).split())
    text = re.sub(r" (?=[.,;:!?)']|$)", "", text)
    for group, sign in groups():
        text = group.sub(sign, text)
    return text


def _label(hit: re.Match[str]) -> str:
    if hit["alone"] and pattern("answer to an exam").search(
        hit.string, max(0, hit.start() - 40), hit.start()
    ):
        return hit[0]
    label = next(filter(None, hit.groups())).lower()
    return " \ue00a " if label in ("a", "1", "first", "1st") else " \ue00b "


def _letter(hit: re.Match[str]) -> str:
    before = hit["before"] if hit["letter"] else hit["lead"]
    # "The correct answer is B" speaks of the options of a question, not of the two outputs.
    if pattern("answer to an exam").search(hit.string, max(0, hit.start() - 40), hit.start() + len(before)):
        return hit[0]
    return f"{before}({hit['letter'] or hit['last']})"


def _read_brackets(sentence: str) -> str:
    # "[[A]]" is a verdict of its own where the sentence neither quotes it nor lists others beside it.
    rivals = {_bracketed(inside) for inside in pattern("double brackets").findall(sentence)}

    def read(hit: re.Match[str]) -> str:
        before, label = sentence[max(0, hit.start() - 80) : hit.start()], _bracketed(hit[1])
        if (
            len(rivals) > 1
            or pattern("quoting").search(before)
            or not pattern("after brackets").match(sentence, hit.end())
        ):
            return f" {label} "
        lead = "" if before.rstrip().endswith((":", "is")) else ". Verdict:" if before.strip() else "Verdict:"
        return f"{lead} {label}. "

    return re.sub(r"(?<=[)e]\.) [.,;:!]+", " ", pattern("double brackets").sub(read, sentence))


def _bracketed(inside: str) -> str:
    inside = inside.lower()
    if "=" in inside or inside in ("c", "tie"):
        return "tie"
    return "(A)" if (inside[0] == "a") != ("<" in inside) else "(B)"
