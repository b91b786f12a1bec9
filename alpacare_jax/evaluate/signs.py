"""A line of a judge's reply in signs, so that a small grammar can read it.

Everything is written in lower case but for the answers: ``A`` and ``B``, ``T`` for both ("both outputs"), ``P`` for
the pair ("A and B"), ``N`` for neither, ``O`` for one or the other.
"""

import re

_NOUN = (
    r"(?i:(?:output|answer|response|assistant|option|candidate|completion|model|text|system)s?|repl(?:y|ies))"
)
# What may follow "output a" or a letter alone where they name an answer: "answer a question" names none.
_MORE = "=<>≈≻≫≺≪~→"
_FOLLOWS = (
    rf"(?=\s*(?:$|[.,;:!?()|{_MORE}]|[-–—]\s|'s\b)|\s(?i:is|was|wins?|won|and|or|nor|over|than|to|because|since|as|seems"
    r"|appears|would|should|has|had|does|better|provides|gives|follows|outperforms|beats|vs|for|clearly|both)\b)"
)
_LABEL = re.compile(
    rf"\b(?:(?i:the)\s)?{_NOUN}\s?#?(?:[(\[{{]\s?(?P<named>[abAB12])\s?[)\]}}]|(?P<letter>[AB12]\b|(?:a|b)\b{_FOLLOWS}))"
    r"|[(\[]\s?(?P<alone>[abAB])\s?[)\]]"
    rf"|\b(?i:the\s(?P<ordinal>first|second|1st|2nd)(?:\s(?:{_NOUN}|one)\b|(?=\s(?:is|was|wins|seems)\b|\W*$|[,.;]\s)))"
)
_BEFORE_LETTER = (
    r"that|than|over|prefer|choose|pick|select|so|therefore|thus|hence|and|or|nor|but|with|for|to|while|both|neither"
    r"|either|overall|conclude|think|believe|is"
)
_LETTER = re.compile(
    rf"(?P<before>(?:^|[.,;:!?—–{_MORE}-]|\b(?i:{_BEFORE_LETTER}))\s?)\b(?P<letter>[AB]\b{_FOLLOWS}|[ab](?=\s?[=<>≈≻≫≺≪~]+\s?[abAB]\W*$))"
    rf"|(?P<lead>(?:^|[:{_MORE}]|\b(?:choice|pick|verdict|winner|vote|preference) is\b)[\s\"']*)"
    r"\b(?P<last>[abAB])(?=[\s\"'.!,)]*$)"
)
_EXAM = re.compile(
    r"\b(?:correct|right|true) (?:answer|option|choice|letter|response)(?: is| was|:)+ ?$", re.I
)
_GROUPS = [
    (re.compile(pattern), sign)
    for sign, pattern in re.findall(
        r"(\S+)  (.*)",
        r"""
\1  ([AB]) ?'s (?:own )?(?:answers?|responses?|outputs?|repl(?:y|ies)|approach|version)\b
N  \bneither (?:of )?(?:A (?:n?or|and) B|B (?:n?or|and) A)\b
N  \b(?:neither|none) of (?:the |these )?(?:two )?(?:them|outputs|answers|responses|two)\b
N  \bneither(?: one| output| answer| response| assistant)?\b|\bno (?:output|answer|response) (?=is better)
O  \b(?:either )?(?:A (?:or|vs\.?|versus) B|B (?:or|vs\.?|versus) A)\b|\beither (?:output|answer|one)\b
P  \b(?:both (?:of )?)?(?:A (?:and|&) B|B (?:and|&) A)\b
T  \b(?:they both|both|the two)(?: of)?(?: the| these)?(?: two)? (?:outputs|answers|responses)\b
T  \bboth(?: of them)?\b|\bthe (?:two|outputs|answers|responses)\b|\bthe(?:y|se)(?= (?:are|tie)\b)
""",
    )
]
_SIGNS = {0xE00A: "A", 0xE00B: "B"}  # private characters, which lower case leaves alone
_BRACKETS = re.compile(r"\[\[\s*([abc]|tie|[ab]\s*[<>=]{1,3}\s*[ab])\s*\]\]", re.I)
_ENDS = re.compile(r"(?<=[.!?])(?=\s)")
_QUOTING = re.compile(
    r"\b(?:claims?|says?|said|states?|argues?|contains?|includes?|ends?|writes?|wrote|mentions?|tells?|asks?|instructs?"
    r"|inserts?|plants?|tries|attempts?|string|text|token|marker|phrase|words?|not|no|never|the|an?|this|of|between"
    r"|like|such)\s*$|\b(?:ends? with|contains?|includes?|injects?|claims?|says?|tries|instructs?)\b",
    re.I,
)
_AFTER_BRACKETS = re.compile(
    r"\s*(?:$|[.,;:!)]|[-–—]\s|(?-i:[A-Z])|(?:it is|because|since|as|is (?:clearly |much )?better)\b)",
    re.I,
)


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
    line = _LETTER.sub(_letter, line)
    text = " ".join(_LABEL.sub(_label, line).lower().translate(_SIGNS).split())
    text = re.sub(r" (?=[.,;:!?)']|$)", "", text)
    for pattern, sign in _GROUPS:
        text = pattern.sub(sign, text)
    return text


def _label(hit: re.Match[str]) -> str:
    if hit["alone"] and _EXAM.search(hit.string, max(0, hit.start() - 40), hit.start()):
        return hit[0]
    label = next(filter(None, hit.groups())).lower()
    return " \ue00a " if label in ("a", "1", "first", "1st") else " \ue00b "


def _letter(hit: re.Match[str]) -> str:
    before = hit["before"] if hit["letter"] else hit["lead"]
    # "The correct answer is B" speaks of the options of a question, not of the two outputs.
    if _EXAM.search(hit.string, max(0, hit.start() - 40), hit.start() + len(before)):
        return hit[0]
    return f"{before}({hit['letter'] or hit['last']})"


def _read_brackets(sentence: str) -> str:
    # "[[A]]" is a verdict of its own where the sentence neither quotes it nor lists others beside it.
    rivals = {_bracketed(inside) for inside in _BRACKETS.findall(sentence)}

    def read(hit: re.Match[str]) -> str:
        before, label = sentence[max(0, hit.start() - 80) : hit.start()], _bracketed(hit[1])
        if len(rivals) > 1 or _QUOTING.search(before) or not _AFTER_BRACKETS.match(sentence, hit.end()):
            return f" {label} "
        lead = "" if before.rstrip().endswith((":", "is")) else ". Verdict:" if before.strip() else "Verdict:"
        return f"{lead} {label}. "

    return re.sub(r"(?<=[)e]\.) [.,;:!]+", " ", _BRACKETS.sub(read, sentence))


def _bracketed(inside: str) -> str:
    inside = inside.lower()
    if "=" in inside or inside in ("c", "tie"):
        return "tie"
    return "(A)" if (inside[0] == "a") != ("<" in inside) else "(B)"
