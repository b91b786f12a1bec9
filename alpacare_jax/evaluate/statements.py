"""What the sentences of a judge's reply, written in signs, state.

A sentence is cut into clauses, and each clause is matched with a handful of forms
(:mod:`alpacare_jax.evaluate.verdict_forms`). What a sentence asks, supposes, denies or reports is no statement of the
judge's; what it concedes ("although A is better ...") is one of a part.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

from alpacare_jax.evaluate import verdict_forms as forms
from alpacare_jax.evaluate.verdict_forms import SO, VERDICT, Choice, Statement, label_alone, lines, said

_BETTER = f"{forms.BETTER}(?: {forms.ANSWER})?"
_SENTENCE = re.compile(
    r"(?!(?<=[ :]\d)\. [AB]\b)(?:(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\d)[.!?]+(?=\s|$|[ABTPN]\b)|(?<=\d)[.!?]+(?=\s|$))"
)
# What comes between an answer and what is said of it, or before both, and changes nothing.
_FILLER = lines(
    r"""(?:(?<=\b[ABTPN])|(?<=\b[ABTPN] is)), (?!not|and|because|since|if)[^,.;ABTPNO]{1,200},
    (?=[ ](?:is|was|wins|seems|stands|the|better|best|superior)\b)
    |(?:^|(?<=, )|(?<=[ABTPN] ))(?:(?:i|we) (?:believe|think)|not only|no (?:doubt|question)
    |if (?:i|we|one) (?:had|have|must|were|am|are|was)(?: forced)?(?: to)? (?:choose|pick|decide)(?: one)?
    |if (?:anything|forced|pressed|pushed)(?: to choose)?)(?:,|(?= (?:i|we)\b)|(?= (?:is|was|wins|seems)\b)|$)
    |^there is (?:no|little) (?:doubt|question)(?: that)? """
)
_CLAUSE = lines(
    r"""(?:[,;()]|:(?= )| [-–—]+(?= )| (?:and|making|which makes)(?= [ABTPN]\b)
    |\b(?:but|yet)(?=,? (?:[ABTPN]|it|i|we|the|my|this|that)\b)
    |\b(?=(?:so|thus|hence|therefore),? (?:[ABTPN]|it|i|we|the|my|this|that)\b)
    |\b(?=(?:although|though|while|whilst|whereas|despite|even though|even if|because|since|(?<!even )if|unless
        |assuming|had|were|should(?= (?:the|you|one|a)\b)|when)\b))"""
)
_FINAL = re.compile(
    rf"^\W*{SO}|^\W*for these reasons\b|\bfinal\b|\bmy {VERDICT}|\bconclu|\b(?:i|we) (?:have )?determined"
)
_NAMING = re.compile(rf"\b({VERDICT}|{_BETTER}|answer|final|overall)(?: is| was)? ?(?::|=|->|=>|→) ?")
_PRONOUN = re.compile(
    rf"\b(?:it|this|that|this (?:one|output|response|answer))"
    rf"(?= wins\b|(?: is| was|(?<=making it)|(?<=makes it))(?: (?:\w+ly|the|a|far|much|still|thus))* {_BETTER}"
    r"(?:[.!,]|$| than [AB]| because| as it| overall| for the| of the))"
)
_CONTRAST = re.compile(
    r"^\W*(?:however|but|yet|wait|actually|still|nevertheless|on (?:reflection|second thou?ghts?)|correction|no,)"
)
_CONCESSION = re.compile(r"^(?:although|though|while|whilst|whereas|despite|even (?:though|if))\b")
_SUPPOSITION = re.compile(
    r"^(?:if|unless|assuming|as \w+ by|according to [ABT]|had|were|should|when(?! (?:\w+ing|it comes)\b))\b"
)
_TURN = re.compile(r"\b(?:but|however|yet|so|thus|hence|therefore|still)\b")
_HEADED = re.compile(rf"(?!{SO}|(?:wait|no|actually)\b)(?:[\w/&-]+ ){{0,3}}[\w/&-]+: ")
_YES = re.compile(r"yes\b")
_GOES_ON = re.compile(
    r"(?:(?:i'd|i|we)(?: would)? (?:think|believe|find|say|argue) (?:that )?|so |but )?(?P<label>[AB])"
    r"(?: is| does|(?: is)?(?P<part> (?:at|in|on|for) [^ABTPNO]{1,80}))"
)
_RELATION = re.compile(
    r"\b(?:better|superior|best|preferable|preferred|stronger|worse|worst|inferior|weaker)\b"
)
_LONGEST = 2000  # characters; what is longer is no sentence


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


def stated(sentence: str, before: Sequence[str] = ()) -> Statement | None:
    """Read what a sentence states; its choice is "invalid" where it contradicts itself.

    Args:
        sentence: One sentence of :func:`sentences`.
        before: The sentences before it, which "it" may mean, and "yes" and "B is" go on from.

    Example:
        >>> stated("although A is longer, B is better.")
        Statement(choice='second', weight=2)
        >>> stated("therefore, A is better because it is safer, but B is shorter.")
        Statement(choice='first', weight=3)
        >>> stated("A is not better than B."), stated("if brevity mattered, A would be better.")
        (None, None)
        >>> stated("A is better on tone, but B is better on facts.")
        Statement(choice='invalid', weight=1)
        >>> stated("yes.", ["is B better than A?"]), stated("A is not better; B is.")
        (Statement(choice='second', weight=2), Statement(choice='second', weight=2))
    """
    if sentence.endswith("?") or len(sentence) > _LONGEST:
        return None
    last = before[-1] if before else ""
    if last.endswith("?") and _YES.match(sentence):
        sentence = last.rstrip("?")
    text = _PRONOUN.sub(
        lambda hit: sole_label(sentence[: hit.start()]) or sole_label(last) or hit[0], sentence
    )
    text = _FILLER.sub("", _NAMING.sub(r"\1 is ", text)).strip(" ,.!")
    alone = label_alone(text)
    found = [alone] if alone else _said_in_clauses(text, before, finished=sentence[-1] in ".!")
    if not found:
        return None
    weight, choices = heaviest(found)
    # "Tone: A is better" speaks of the tone alone.
    weight = 1 if _HEADED.match(text) else min(3, weight + 1) if _FINAL.search(sentence) else weight
    return Statement(choices.pop() if len(choices) == 1 else "invalid", weight)


def heaviest(found: list[Statement]) -> tuple[int, set[Choice]]:
    """Return the greatest weight among statements, and the choices of that weight.

    Being equal in a part ("equally accurate") is no rival of being better in another.
    """
    weight = max(one.weight for one in found)
    choices = {one.choice for one in found if one.weight == weight}
    return weight, choices - {"tie"} if weight == 1 and len(choices) > 1 else choices


def _said_in_clauses(text: str, before: Sequence[str], *, finished: bool) -> list[Statement]:
    found: list[Statement] = []
    supposed: int | None = None
    cuts = [(0, 0), *(hit.span() for hit in _CLAUSE.finditer(text)), (len(text), len(text))]
    for (_, start), (end, _) in itertools.pairwise(cuts):
        clause = text[start:end].strip(" ,.")
        if _SUPPOSITION.match(clause):
            # "X would be better if ..." and "if ..., X would be better" alike state nothing.
            supposed = start
            found = found if clause.startswith(("if only", "if any", "as ")) else []
        if supposed is not None and not _TURN.search(text, supposed, start + 10):
            continue
        if (hit := _GOES_ON.fullmatch(clause)) and finished:
            # "A is not better; B is", "A is better on tone, B on facts"
            relations = _RELATION.findall(" ".join([*before, text[:start]]))
            clause = f"{hit['label']} is {relations[-1]}{hit['part'] or ''}" if relations else clause
        one = said(clause) or (label_alone(clause) if re.match("so|thus|hence|therefore", clause) else None)
        if one:
            found.append(Statement(one.choice, 1) if _CONCESSION.match(clause) else one)
    return found
