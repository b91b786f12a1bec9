"""Reading a judge's reply: which of the two answers it chose, and what that means for the model.

A verdict is only taken where the reply leaves no doubt. The rules, in order; the first that finds labels
decides:

1. Labels in double brackets, ``[[A]]``, ``[[B]]``, ``[[C]]`` (C is a tie), anywhere in the reply.
2. Lines that hold nothing but a label (``Output (a)``, ``(b)``, ``Tie``), apart from marks such as ``**`` and
   a lead-in such as ``Answer:``; or a line that ends in ``final verdict: Output (a)``.
3. A reply of one sentence that says one label is better, or that prefers one, without a negation.

Under rules 1 and 2 a statement called final (``final verdict: [[B]]``) outranks the others. Labels of the
same rank that disagree make the reply invalid, and so does a reply in which no rule finds a label. Nothing is
guessed.
"""

import re
from typing import Literal

Choice = Literal["first", "second", "tie", "invalid"]
Outcome = Literal["win", "tie", "loss", "invalid"]

MODEL_FIRST = "model_first"
REFERENCE_FIRST = "reference_first"
ORDERS = (MODEL_FIRST, REFERENCE_FIRST)

_CHOICES: dict[str, Choice] = {"a": "first", "b": "second", "c": "tie", "tie": "tie"}
_BRACKETS = re.compile(r"\[\[\s*([abc]|tie)\s*\]\]", re.IGNORECASE)
_OUTPUT = r"(?:output|answer|response|assistant)?\s*(?:\(([ab])\)|\b([ab])\b)"
_TIE = r"(?:it\s+is\s+|its\s+)?(?:a\s+)?\b(tie)d?\b"
_LABEL = rf"(?:{_OUTPUT}|{_TIE})"
_NOUN = r"(?:verdict|answer|decision|choice|judge?ment)\s*(?:is\b)?\s*[:=\-–—]?\s*"
_LEAD_IN = rf"(?:(?:the\s+|my\s+)?(?:final\s+)?{_NOUN})?"
_LABEL_ALONE = re.compile(rf"{_LEAD_IN}{_LABEL}\s*\.?", re.IGNORECASE)
_FINAL = rf"\bfinal\s+{_NOUN}"
_FINAL_LABEL = re.compile(rf"{_FINAL}{_LABEL}\s*\.?$", re.IGNORECASE)
_FINAL_BRACKETS = re.compile(rf"{_FINAL}{_BRACKETS.pattern}", re.IGNORECASE)
_NAMED = r"output\s*\(?([ab])\b\)?"
_PREFERENCE = re.compile(
    rf"(?:.*\bi\s+(?:\w+\s+)?(?:prefer|choose|pick|select)\s+{_NAMED}"
    rf"|(?:overall,?\s+)?{_NAMED}\s+is\s+(?:\w+\s+){{0,2}}(?:better|superior|preferable|preferred|best)\b"
    rf"|{_NAMED}\s+is\s+the\s+(?:correct|right|winning)\s+(?:answer|choice|one|output)\b)",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|no|neither|nor|never|cannot|hardly|but|however|unless|if)\b|n't", re.IGNORECASE
)
_MARKS = str.maketrans("", "", "*_`\"'“”‘’#>")


def parse_choice(raw: str) -> Choice:
    """Read which answer a judge's reply chose, by the rules at the head of this module.

    Args:
        raw: The judge's whole reply.

    Returns:
        "first" for Output (a) or [[A]], "second" for Output (b) or [[B]], "tie", or "invalid" where the reply
        names no label or contradicts itself.

    Example:
        >>> parse_choice("Output (a)"), parse_choice("Both are sound. [[C]]"), parse_choice("(a) or (b)?")
        ('first', 'tie', 'invalid')
        >>> parse_choice("At first sight [[A]], but it errs on the dose. Final verdict: [[B]]")
        'second'
    """
    # Runs of white space become one space first: the patterns below would backtrack over a long run for ever.
    lines = [" ".join(line.translate(_MARKS).split()) for line in raw.splitlines()]
    lines = [line for line in lines if line]
    whole = " ".join(lines)
    for pattern in (_FINAL_BRACKETS, _BRACKETS):
        labels = {_label(hit) for hit in pattern.finditer(whole)}
        if labels:
            return _agreed(labels)
    lines = [line.strip("[] ") for line in lines]
    for pattern, match in ((_FINAL_LABEL, re.Pattern.search), (_LABEL_ALONE, re.Pattern.fullmatch)):
        found = [hit for line in lines if (hit := match(pattern, line))]
        if found:
            return _agreed({_label(hit) for hit in found})
    return _preferred(whole)


def outcome(choice: Choice, order: str) -> Outcome:
    """Turn a choice between first and second answer into the model's outcome.

    Args:
        choice: What :func:`parse_choice` returned.
        order: "model_first" or "reference_first": whose answer stood first.

    Example:
        >>> outcome("first", "model_first"), outcome("first", "reference_first")
        ('win', 'loss')
    """
    if choice in ("tie", "invalid"):
        return choice  # type: ignore[return-value]
    return "win" if (choice == "first") == (order == MODEL_FIRST) else "loss"


def _preferred(sentence: str) -> Choice:
    # Several sentences weigh for and against; only a single plain one is taken at its word.
    if _NEGATION.search(sentence) or len(re.findall(r"[.!?](?:\s|$)", sentence)) > 1:
        return "invalid"
    hit = _PREFERENCE.match(sentence)
    return _label(hit) if hit else "invalid"


def _label(hit: re.Match[str]) -> Choice:
    return _CHOICES[next(group for group in hit.groups() if group).lower()]


def _agreed(labels: set[Choice]) -> Choice:
    return next(iter(labels)) if len(labels) == 1 else "invalid"
