"""What the sentences of a judge's reply, written in signs, state.

A sentence is cut into clauses, and each clause is matched with a handful of forms
(:mod:`alpacare_jax.evaluate.verdict_forms`). What a sentence asks, supposes, denies or reports is no statement of the
judge's; what it concedes ("although A is better ...") is one of a part.
"""

import re
from collections.abc import Iterator

from alpacare_jax.evaluate.verdict_forms import ANSWER, BETTER, SO, VERDICT, Choice, Statement, joined, said

_SENTENCE = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\d)[.!?]+(?=\s|$|[ABTPN]\b)|(?<=\d)[.!?]+(?=\s|$)"
)
_FILLER = re.compile(
    joined(
        r"""(?:^|, ?|(?<=[ABTPN]) )
        (?:on the other hand|in (?:contrast|comparison|this case|this context|my opinion|my view|general|particular)
        |by (?:contrast|comparison)|in the end|in turn|as a result|for example|for instance|(?:i|we) (?:believe|think)
        |however|instead|though|ultimately|indeed|clearly|hands down|not only
        |no (?:doubt|question)|without (?:a |any )?(?:doubt|question)|(?<=[ABTPN], )(?:therefore|thus|hence|overall)
        |if (?:i|we|one) (?:had|have|must|were|am|are|was)(?: forced)?(?: to)? (?:choose|pick|decide)(?: one)?
        |if forced to choose)
        (?:,|(?= (?:is|was|wins|seems)\b)|$)
        |^there is (?:no|little) (?:doubt|question)(?: that)? """
    )
)
_APPOSITION = re.compile(
    r",? (?:which|who|being|having|by) [^,.;ABTPNO]{1,200},(?= (?:is|was|wins|seems|stands)\b)"
)
_CLAUSE = re.compile(
    joined(
        r"""(?:[,;()]|:(?= )| [-–—]+(?= )| (?:and|making)(?= [ABTPN]\b)
        |\b(?:so|but|yet|thus|hence|therefore)(?=,? (?:[ABTPN]|it|i|we|the|my|this|that)\b)
        |\b(?=(?:although|though|while|whilst|whereas|despite|even though|even if|because|since|if|unless|assuming
            |had|were|when)\b))"""
    )
)
_FINAL = re.compile(
    rf"^\W*{SO}|^\W*for these reasons\b|\bfinal\b|\bmy {VERDICT}|\bconclu|\b(?:i|we) (?:have )?determined"
)
_NAMING = re.compile(
    rf"\b({VERDICT}|{BETTER}(?: {ANSWER})?|answer|final|overall)(?: is| was)? ?(?::|=|->|=>|→) ?"
)
_PRONOUN = re.compile(
    rf"\b(?:it|this|that|this (?:one|output|response|answer))"
    rf"(?= (?:is|was)(?: (?:\w+ly|the|a|far|much|therefore|thus))* {BETTER}(?: {ANSWER})?"
    r"(?:[.!,]|$| than [AB]| because| as it| overall| for the| of the))"
)
_CONTRAST = re.compile(
    r"^\W*(?:however|but|yet|wait|actually|still|nevertheless|on (?:reflection|second thou?ghts?)|correction|no,)"
)
_CONCESSION = re.compile(r"^(?:although|though|while|whilst|whereas|despite|even though)\b")
_SUPPOSITION = re.compile(r"^(?:if|unless|assuming|even if|had|were|when(?! (?:\w+ing|it comes)\b))\b")
_WOULD = re.compile(r"\b(?:would|could|might|may)\b")
_LONGEST = 4000  # characters; what is longer is no sentence


def sentences(line: str) -> Iterator[str]:
    """Cut a line in signs into sentences; each keeps the mark that ends it.

    Example:
        >>> list(sentences("A is safe, e.g. in pregnancy. B is better!"))
        ['A is safe, e.g. in pregnancy.', 'B is better!']
    """
    start = 0
    for hit in _SENTENCE.finditer(line):
        yield line[start : hit.end()].strip()
        start = hit.end()
    if line[start:].strip():
        yield line[start:].strip()


def sole_label(sentence: str) -> str | None:
    """Name the answer, A or B, that a sentence is about; None where it names both or none."""
    labels = set(re.findall(r"\b[AB]\b", sentence))
    return labels.pop() if len(labels) == 1 else None


def concludes(sentence: str) -> bool:
    """Tell whether a sentence sums up what stands before it ("Therefore, ...") or takes it back."""
    return _FINAL.search(sentence) is not None or contrasts(sentence)


def contrasts(sentence: str) -> bool:
    """Tell whether a sentence takes back what stands before it ("However, ...")."""
    return _CONTRAST.match(sentence) is not None


def stated(sentence: str, about: str | None = None) -> Statement | None:
    """Read what a sentence states; its choice is "invalid" where it contradicts itself.

    Args:
        sentence: One sentence of :func:`sentences`.
        about: The answer that the sentence before was about, which "it" may mean.

    Example:
        >>> stated("although A is longer, B is better.")
        Statement(choice='second', weight=2)
        >>> stated("therefore, A is better because it is safer, but B is shorter.")
        Statement(choice='first', weight=3)
        >>> stated("A is not better than B."), stated("if brevity mattered, A would be better.")
        (None, None)
        >>> stated("A is better on tone, but B is better on facts.")
        Statement(choice='invalid', weight=1)
    """
    if sentence.endswith("?") or len(sentence) > _LONGEST:
        return None
    meant = sole_label(sentence) if re.search(r"\b[AB]\b", sentence) else about
    text = _PRONOUN.sub(meant, sentence) if meant else sentence
    text = _APPOSITION.sub("", _FILLER.sub("", _NAMING.sub(r"\1 is ", text)).strip(" ,.!"))
    found = _said_in_clauses(text)
    if not found:
        return None
    weight, choices = heaviest(found)
    weight = min(3, weight + 1) if _FINAL.search(sentence) else weight
    return Statement(choices.pop() if len(choices) == 1 else "invalid", weight)


def heaviest(found: list[Statement]) -> tuple[int, set[Choice]]:
    """Return the greatest weight among statements, and the choices of that weight.

    Being equal in a part ("equally accurate") is no rival of being better in another.
    """
    weight = max(one.weight for one in found)
    choices = {one.choice for one in found if one.weight == weight}
    return weight, choices - {"tie"} if weight == 1 and len(choices) > 1 else choices


def _said_in_clauses(text: str) -> list[Statement]:
    found: list[Statement] = []
    supposed = False
    for clause in filter(None, (part.strip(" ,.") for part in _CLAUSE.split(text))):
        if _SUPPOSITION.match(clause):
            # "X would be better if ..." and "if ..., X would be better" alike state nothing.
            supposed = True
            found = [] if _WOULD.search(text) else found
        elif supposed and not clause.startswith("and"):
            supposed = False
        elif one := said(clause):
            found.append(Statement(one.choice, 1) if _CONCESSION.match(clause) else one)
    return found
